//! The embedded default: a private PostgreSQL that lives in a data folder and is reached by a unix
//! socket only.
//!
//! Here: finding or fetching its programs, making its cluster, starting, watching and stopping it.
//! Not here: anything that speaks SQL, and any reading of the environment (the caller passes what it
//! read; `PATH` counts only for the commands that are run).
//!
//! One owner per folder, by a lock. The server never outlives its owner, kill -9 included: see `guard`.

mod account;
mod cluster;
mod error;
mod fetch;
mod find;
mod folder;
mod guard;
mod leftover;
mod program;
mod server;
mod socket;
mod supervise;

use std::path::PathBuf;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use self::error::EmbeddedError;
pub use self::folder::default_data_dir;

use self::account::RunAs;
use self::find::{Places, Programs};
use self::folder::DataFolder;
use self::server::ServerPlan;
use self::socket::SocketFolder;

/// What the private PostgreSQL is made of.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// Where everything is kept; made when missing.
    pub data_dir: PathBuf,
    /// The folder with `initdb` and `postgres`. Given, no other is looked at.
    pub postgres_bin: Option<PathBuf>,
    /// Whether a PostgreSQL of the machine may be used. If not, one is fetched unless
    /// `postgres_bin` names one.
    pub system_binaries: bool,
    /// Whether a folder without data gets a new cluster. If not, such a folder is an error, and nothing is made.
    pub creates: bool,
    /// Settings as in postgresql.conf, stronger than ours, except where the socket is.
    pub extra_settings: Vec<(String, String)>,
}

impl EmbeddedOptions {
    /// The default options for this data folder.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            postgres_bin: None,
            system_binaries: true,
            creates: true,
            extra_settings: Vec::new(),
        }
    }
}

/// A running private PostgreSQL, started again whenever it dies.
///
/// Dropping it stops the server too, in the background; only [`EmbeddedPostgres::stop`] waits for it.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    database_url: String,
    stop: oneshot::Sender<()>,
    supervisor: JoinHandle<()>,
}

/// The URL of the database `rapport` of a data folder whose server another process runs.
///
/// # Errors
/// As for opening the folder.
pub fn url_of_running(data_dir: &std::path::Path) -> Result<String, EmbeddedError> {
    Ok(SocketFolder::choose(&DataFolder::open(data_dir)?).url())
}

impl EmbeddedPostgres {
    /// Starts the server of the data folder, making what is missing, and waits until it accepts
    /// connections (60 s at most, besides fetching the programs and making the cluster the first
    /// time). Dropping the future in the middle leaves nothing running.
    ///
    /// # Errors
    /// A sentence the user can act upon; see [`EmbeddedError`].
    pub async fn start(options: EmbeddedOptions) -> Result<Self, EmbeddedError> {
        if !options.creates && !folder::holds_data(&options.data_dir) {
            return Err(EmbeddedError::NoData { folder: options.data_dir });
        }
        let data = DataFolder::open(&options.data_dir)?;
        let lock = data.lock()?;
        let run_as = RunAs::choose(&data.cluster())?;
        run_as.check_entry(data.path())?;
        data.remove_partials()?;
        data.rotate_log()?;
        let programs = programs(&options, &data, &run_as).await?;
        if cluster::major(&data.cluster())?.is_none() {
            cluster::create(&data, &programs, &run_as).await?;
        }
        let socket = SocketFolder::choose(&data);
        socket.make(&run_as)?;
        let database_url = socket.url();
        let plan = ServerPlan {
            postgres: programs.folder.join("postgres"),
            cluster: data.cluster(),
            log: data.log(),
            socket,
            run_as,
            extra_settings: options.extra_settings,
        };
        let server = plan.start().await?;
        tracing::info!(
            folder = %data.path().display(), programs = %programs.folder.display(), pid = server.pid(),
            "the private PostgreSQL {} is ready", programs.major
        );
        let (stop, stopped) = oneshot::channel();
        let supervisor = tokio::spawn(supervise::supervise(plan, server, lock, stopped));
        Ok(Self { database_url, stop, supervisor })
    }

    /// The URL of the database `rapport`, which exists, for the role `rapport`, a superuser of this
    /// private cluster.
    #[must_use]
    pub fn database_url(&self) -> String {
        self.database_url.clone()
    }

    /// Stops the server (open transactions are rolled back) and frees the folder, within 25 s.
    pub async fn stop(self) {
        drop(self.stop);
        if let Err(error) = self.supervisor.await {
            tracing::warn!(%error, "the supervisor of PostgreSQL failed");
        }
    }
}

/// The named programs, else the best found, else fetched ones.
async fn programs(options: &EmbeddedOptions, data: &DataFolder, run_as: &RunAs) -> Result<Programs, EmbeddedError> {
    let cluster = data.cluster();
    let cluster_major = cluster::major(&cluster)?;
    let programs = if let Some(folder) = &options.postgres_bin {
        find::named(folder, &cluster, cluster_major, run_as).await?
    } else {
        let places = if options.system_binaries { Places::of_system() } else { Places::default() };
        match (find::search(&places.and(fetch::place(data)), cluster_major, run_as).await, cluster_major) {
            (Some(programs), _) => programs,
            (None, None | Some(fetch::MAJOR)) => fetch::fetch(data, run_as).await?,
            (None, Some(wanted)) => return Err(EmbeddedError::VersionMissing { cluster, wanted }),
        }
    };
    find::warn_if_untested(&programs);
    Ok(programs)
}
