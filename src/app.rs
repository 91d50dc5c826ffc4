//! A server's life: settings, store, use cases, gRPC, and an orderly end. Everything is wired here and nowhere else.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    net::TcpListener,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;

use crate::{
    config::{Config, Database},
    embedded::{EmbeddedError, EmbeddedPostgres},
    rpc::{Health, Rpc, Sealer},
    scoring::DEFAULT,
    service::{Clock, Service},
    store::{Store, StoreError, Writer},
};

/// How often the database is asked whether it is there, and how long it may take to answer.
const PROBE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(2));
/// After how many probes without an answer the server is no longer ready; at most 9 s with the times above.
const FAILED_PROBES: u32 = 3;
/// How long what is still queued may take to be written at shutdown.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);
/// How long connections to the database may take to be closed at shutdown.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Why a server could not start, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Somebody else listens there, or nobody may.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The private PostgreSQL did not start.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// The database could not be prepared.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server stopped by itself.
    #[error("the server stopped by itself; its log says why")]
    Stopped,
}

/// A running server.
#[derive(Debug)]
pub struct App {
    address: SocketAddr,
    stop: CancellationToken,
    ended: JoinHandle<Result<(), AppError>>,
}

impl App {
    /// Starts a server; it listens when this returns, and serves as soon as its database is ready: a private one is.
    pub async fn start(config: Config, clock: Clock) -> Result<Self, AppError> {
        let listen = |source| AppError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let (url, postgres) = match config.database {
            Database::Url(url) => (url, None),
            Database::Embedded(options) => {
                let postgres = EmbeddedPostgres::start(options).await?;
                (postgres.database_url(), Some(postgres))
            }
        };
        let store = Store::new(&url, config.max_connections, &DEFAULT)?;
        let (sealer, stop) = (Arc::new(OnceLock::new()), CancellationToken::new());
        if postgres.is_some() {
            store.migrate().await?;
            prepare(&store, &sealer).await?;
        }
        let (writer, written) = Writer::start(&store);
        let service = Service::new(store.clone(), writer.clone(), clock, config.future_limit, config.answer_bytes);
        let rpc = Rpc::new(service, Arc::clone(&sealer), stop.clone()).await;
        let readiness = tokio::spawn(watch(store.clone(), sealer, rpc.health.clone()));
        let running = Running {
            stop: stop.clone(),
            drain_limit: config.drain_limit,
            readiness,
            writer,
            written,
            store,
            postgres,
        };
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        Ok(Self { address, stop, ended: tokio::spawn(running.run(rpc, incoming)) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A token that, when cancelled, makes the server shut down.
    pub fn stopper(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Waits until it has shut down.
    pub async fn ended(self) -> Result<(), AppError> {
        self.ended.await.unwrap_or(Err(AppError::Stopped))
    }
}

/// What has to be put to rest at the end.
struct Running {
    stop: CancellationToken,
    drain_limit: Duration,
    readiness: JoinHandle<()>,
    writer: Writer,
    written: JoinHandle<()>,
    store: Store,
    postgres: Option<EmbeddedPostgres>,
}

impl Running {
    async fn run(mut self, rpc: Rpc, incoming: TcpIncoming) -> Result<(), AppError> {
        let health = rpc.health.clone();
        let mut serving = tokio::spawn(rpc.serve(incoming, self.stop.clone().cancelled_owned()));
        let by_itself = tokio::select! {
            // Asked first: an idle server may have ended already when it is looked at.
            biased;
            () = self.stop.cancelled() => false,
            ended = &mut serving => {
                tracing::error!(?ended, "the gRPC server ended by itself");
                true
            }
            // It ends with the last call, or by a defect that would leave nothing recorded ever after.
            ended = &mut self.written => {
                tracing::error!(?ended, "the writer ended by itself");
                true
            }
        };
        tracing::info!("shutting down");
        self.readiness.abort();
        health.set_ready(false).await;
        self.stop.cancel();
        if !serving.is_finished() && timeout(self.drain_limit, &mut serving).await.is_err() {
            tracing::warn!(drain_limit_s = self.drain_limit.as_secs(), "calls are cut off that took too long to end");
            serving.abort();
        }
        // Calls that were cut off can put nothing more into the queue; what is queued is still written.
        self.writer.close();
        if !self.written.is_finished() && timeout(FLUSH_LIMIT, &mut self.written).await.is_err() {
            tracing::error!("not all that was queued could be written");
        }
        if timeout(CLOSE_LIMIT, self.store.close()).await.is_err() {
            tracing::warn!("the database does not let go of its connections");
        }
        if let Some(postgres) = self.postgres {
            postgres.stop().await;
        }
        tracing::info!("shut down");
        if by_itself { Err(AppError::Stopped) } else { Ok(()) }
    }
}

/// Keeps the health service's word true: ready once the schema fits and as long as the database answers.
async fn watch(store: Store, sealer: Arc<OnceLock<Sealer>>, health: Health) {
    let mut failures = 0;
    let mut ready = false;
    loop {
        let probe = async { if sealer.get().is_some() { store.ping().await } else { prepare(&store, &sealer).await } };
        match timeout(PROBE.1, probe).await {
            Ok(Ok(())) => failures = 0,
            Ok(Err(error)) => {
                failures += 1;
                tracing::warn!(failures, "the database is not ready: {error}");
            }
            Err(_) => {
                failures += 1;
                tracing::warn!(failures, "the database does not answer");
            }
        }
        let now_ready = sealer.get().is_some() && if ready { failures < FAILED_PROBES } else { failures == 0 };
        if now_ready != ready {
            ready = now_ready;
            health.set_ready(ready).await;
            tracing::info!(ready, "readiness changed");
        }
        sleep(PROBE.0).await;
    }
}

async fn prepare(store: &Store, sealer: &OnceLock<Sealer>) -> Result<(), StoreError> {
    store.check_schema().await?;
    let key = store.page_token_key().await?;
    let made =
        Sealer::new(&key).ok_or(StoreError::Inconsistent { table: "server_key", what: "a key of the wrong length" })?;
    // Whoever sets it sets the same one.
    let _ = sealer.set(made);
    Ok(())
}
