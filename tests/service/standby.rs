//! A PostgreSQL of its own with a standby that follows it: the same cluster, copied while it stood still.

use std::{fs, path::PathBuf, process::Command};

use rapport::{
    embedded::{EmbeddedOptions, EmbeddedPostgres},
    scoring::DEFAULT,
    store::Store,
};
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use tempfile::TempDir;

use crate::{
    harness::{eventually, programs},
    program::folder,
};

/// A primary with Rapport's schema, and its standby.
pub struct Replicated {
    folder: TempDir,
    _primary: EmbeddedPostgres,
    standby: Option<EmbeddedPostgres>,
    pub primary_url: String,
    pub standby_url: String,
}

impl Replicated {
    pub async fn start() -> Self {
        let folder = folder();
        let place = |name| folder.path().join(name);
        let still = server(place("primary"), &[]).await;
        Store::new(&still.database_url(), 2, &DEFAULT).unwrap().migrate().await.unwrap();
        still.stop().await;
        // As it is, with its owner and modes.
        let copied = Command::new("cp").arg("-a").args([place("primary"), place("standby")]).status().unwrap();
        assert!(copied.success());
        fs::write(place("standby").join("cluster/standby.signal"), "").unwrap();
        let primary = server(place("primary"), &[]).await;
        let primary_url = primary.database_url();
        let mut replicated = Self { folder, _primary: primary, standby: None, primary_url, standby_url: String::new() };
        replicated.start_standby().await;
        replicated
    }

    /// Starts the standby, which has stopped or never run.
    pub async fn start_standby(&mut self) {
        let primary: PgConnectOptions = self.primary_url.parse().unwrap();
        let socket = primary.get_socket().unwrap().display();
        let source = format!("host='{socket}' port=5432 user={}", primary.get_username());
        let standby = server(self.folder.path().join("standby"), &[("primary_conninfo", &source)]).await;
        self.standby_url = standby.database_url();
        self.standby = Some(standby);
    }

    /// Stops the standby.
    pub async fn stop_standby(&mut self) {
        self.standby.take().unwrap().stop().await;
    }

    /// Lets the standby show nothing new.
    pub async fn pause(&self) {
        execute(&self.standby_url, "SELECT pg_wal_replay_pause()").await;
        eventually("the standby is paused", async || {
            let mut connection = PgConnection::connect(&self.standby_url).await.unwrap();
            let state: String =
                sqlx::query_scalar("SELECT pg_get_wal_replay_pause_state()").fetch_one(&mut connection).await.unwrap();
            state == "paused"
        })
        .await;
    }

    /// Makes the standby a primary of its own.
    pub async fn promote(&self) {
        execute(&self.standby_url, "SELECT pg_promote()").await;
    }

    /// Lets it follow again.
    pub async fn resume(&self) {
        execute(&self.standby_url, "SELECT pg_wal_replay_resume()").await;
    }
}

async fn server(data_dir: PathBuf, more: &[(&str, &str)]) -> EmbeddedPostgres {
    let settings = [("fsync", "off"), ("full_page_writes", "off"), ("wal_keep_size", "256MB")];
    let settings = settings.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let options = EmbeddedOptions {
        postgres_bin: programs(),
        extra_settings: settings.collect(),
        ..EmbeddedOptions::new(data_dir)
    };
    EmbeddedPostgres::start(options).await.unwrap()
}

async fn execute(url: &str, statement: &'static str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}
