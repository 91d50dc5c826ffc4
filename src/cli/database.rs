//! Commands that work on the database itself, and how they reach it.

use std::time::Duration;

use clap::Args;

use crate::{
    config::{Database, Databases, process_environment, read_databases},
    embedded::{EmbeddedError, EmbeddedOptions, EmbeddedPostgres, url_of_running},
    scoring::DEFAULT,
    store::{Schema, Store, StoreError, Watch},
    telemetry::names::DatabaseRole,
};

use super::{
    Failure, Finished, print,
    settings::{OfDatabase, SettingArguments},
};

/// How long a database may take to let a command in.
pub(super) const REACH_LIMIT: Duration = Duration::from_secs(5);

#[derive(Args, Debug)]
#[command(
    after_help = "Environment: DATABASE_URL (the PostgreSQL to work on; it may hold a password, so there is no flag for \
                  it; --data-dir comes before it; without either, the private PostgreSQL of `rapport serve` is worked on, \
                  running or not)."
)]
pub(super) struct DatabaseArguments {
    #[command(flatten)]
    settings: SettingArguments<OfDatabase>,
}

/// A store, its replica if it has one, and the private PostgreSQL below it when this process runs it.
pub(super) struct Opened {
    pub store: Store,
    pub replica: Option<Store>,
    postgres: Option<EmbeddedPostgres>,
}

impl DatabaseArguments {
    /// Opens the database: that of `DATABASE_URL`, or the private one, which another process may be running. Fails when it is not
    /// there or cannot be reached.
    pub(super) async fn open(self) -> Result<Opened, Failure> {
        self.open_or_make(false).await
    }

    async fn open_or_make(self, makes: bool) -> Result<Opened, Failure> {
        let opened = open(read_databases(self.settings.flags, &process_environment)?, makes).await?;
        match opened.store.reach(REACH_LIMIT).await {
            Ok(()) => Ok(opened),
            Err(unreached) => {
                opened.close().await;
                Err(unreached.into())
            }
        }
    }
}

/// Opens a database, and its replica; neither is connected to yet. A private one that is not there is made only if asked for.
pub(super) async fn open(databases: Databases, makes: bool) -> Result<Opened, Failure> {
    let (url, postgres) = match databases.primary {
        Database::Url(url) => (url, None),
        Database::Embedded(options) => {
            let data_dir = options.data_dir.clone();
            match EmbeddedPostgres::start(EmbeddedOptions { creates: makes, ..options }).await {
                Ok(postgres) => (postgres.database_url(), Some(postgres)),
                Err(EmbeddedError::FolderInUse { .. }) => (url_of_running(&data_dir)?, None),
                Err(error) => return Err(error.into()),
            }
        }
    };
    let open = |url: &str, role| Store::watched(url, role, databases.max_connections, &DEFAULT, Watch::off());
    let replica = databases.replica.map(|url| open(&url.0, DatabaseRole::Replica)).transpose()?;
    Ok(Opened { store: open(&url, DatabaseRole::Primary)?, replica, postgres })
}

impl Opened {
    pub(super) async fn close(self) {
        self.store.close().await;
        if let Some(replica) = self.replica {
            replica.close().await;
        }
        if let Some(postgres) = self.postgres {
            postgres.stop().await;
        }
    }
}

#[derive(Args, Debug)]
pub(super) struct MigrateArguments {
    #[command(flatten)]
    database: DatabaseArguments,
    /// Let this role serve, and no more than that: it can neither change the schema nor take anything out of the ledger.
    /// A schema that is newer than this program keeps the grants of the newer one
    #[arg(long, value_name = "ROLE")]
    grant_to: Option<String>,
}

/// `rapport migrate`.
pub(super) async fn migrate(arguments: MigrateArguments) -> Result<Finished, Failure> {
    let opened = arguments.database.open_or_make(true).await?;
    let migrated = async {
        let schema = opened.store.migrate().await?;
        match &arguments.grant_to {
            // What a newer program needs is not known here, and is not taken from it.
            Some(role) if !schema.is_newer() => opened.store.grant(role).await?,
            _ => {}
        }
        Ok::<_, StoreError>(schema)
    };
    let migrated = migrated.await;
    opened.close().await;
    let schema = migrated?;
    if schema.is_newer() {
        let Schema { version, needed } = schema;
        print::line(format_args!(
            "The schema has version {version} and serves this program, which is of {needed}: nothing to do."
        ));
        return Ok(Finished::Well);
    }
    print::line("The schema is up to date.");
    Ok(Finished::Well)
}
