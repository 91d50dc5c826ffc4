//! A server's life: settings, store, use cases, gRPC, and an orderly end. Everything is wired here and nowhere else.

use std::{borrow::Cow, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    access::{Access, AccessError},
    config::{Config, Database, HEALTH_LISTEN, LISTEN, METRICS_LISTEN, Setting},
    embedded::{EmbeddedError, EmbeddedPostgres},
    rpc::{ConnectionLimits, Gate, Health, Rpc, Sealer, ServeError, Tls, TlsError},
    scoring::DEFAULT,
    service::{Clock, Replica, Service},
    store::{Store, StoreError, Watch, Writer},
    telemetry::{Metrics, TelemetryError, names::DatabaseRole, scrape},
};

/// How often the database is asked whether it is there and fits, and how long it may take to answer.
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
    #[error("cannot listen on {address}: {source}; {flag} names another address")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The flag that says where.
        flag: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The private PostgreSQL did not start.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// The access file cannot be followed.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// TLS cannot be spoken.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The database could not be prepared.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The contract cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Telemetry has nowhere to go.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The server stopped by itself.
    #[error("the server stopped by itself; its log says why")]
    Stopped,
}

/// A running server.
#[derive(Debug)]
pub struct App {
    address: SocketAddr,
    health_address: Option<SocketAddr>,
    metrics_address: Option<SocketAddr>,
    stop: CancellationToken,
    ended: JoinHandle<Result<(), AppError>>,
}

impl App {
    /// Starts a server; it listens when this returns, and serves as soon as its database is ready: a private one is.
    pub async fn start(config: Config, clock: Clock) -> Result<Self, AppError> {
        let access = config.access_file.as_deref().map_or_else(|| Ok(Access::open()), Access::guarded)?;
        let tls = config.tls.map(Tls::load).transpose()?.map(Arc::new);
        let (listener, address) = listen(&LISTEN, config.listen).await?;
        let probes = match config.health_listen {
            Some(address) => Some(listen(&HEALTH_LISTEN, address).await?),
            None => None,
        };
        let metrics = Metrics::start(&config.export, config.metrics_listen.is_some())?;
        metrics.started(clock.now().seconds_and_nanos().0);
        metrics.set_ready(false);
        if let Cow::Borrowed(version) = DEFAULT.version {
            metrics.policy_built_in(version);
        }
        let runtime = tokio::runtime::Handle::current();
        metrics.tasks(move || runtime.metrics().num_alive_tasks());
        let (scraped, metrics_address) = offer(config.metrics_listen, &metrics).await?;
        let (url, postgres) = match config.databases.primary {
            Database::Url(url) => (url, None),
            Database::Embedded(options) => {
                let postgres = EmbeddedPostgres::start(options).await?;
                (postgres.database_url(), Some(postgres))
            }
        };
        let watched = Watch { metrics: metrics.clone(), slow_statement: config.slow_statement };
        let open =
            |url: &str, role| Store::watched(url, role, config.databases.max_connections, &DEFAULT, watched.clone());
        let store = open(&url, DatabaseRole::Primary)?;
        let replica = config.databases.replica.map(|url| open(&url.0, DatabaseRole::Replica)).transpose()?;
        let (gate, stop) = (Arc::<Gate>::default(), CancellationToken::new());
        if postgres.is_some() {
            store.migrate().await?;
            prepare(&store, &gate).await?;
        }
        let (writer, written) = Writer::start(&store);
        let mut service = Service::new(store.clone(), writer.clone(), clock.clone(), config.service);
        let mut watching = JoinSet::new();
        if let Some(replica) = &replica {
            let replica = Replica::new(replica.clone());
            service = service.with_replica(replica.clone());
            watching.spawn(replica.follow(store.clone()));
        }
        let rpc = Rpc::new(service, access.clone(), config.admission, Arc::clone(&gate)).await;
        watching.spawn(watch(store.clone(), gate, rpc.health.clone(), writer.clone()));
        watching.spawn(access.follow());
        if let Some(tls) = &tls {
            watching.spawn(Arc::clone(tls).follow(clock.clone(), metrics.clone()));
        }
        let health_address = probes.as_ref().map(|(_, address)| *address);
        if let Some((probes, _)) = probes {
            watching.spawn(rpc.serve_health(probes, config.connections, CancellationToken::new())?);
        }
        let running = Running {
            stop: stop.clone(),
            shutdown_delay: config.shutdown_delay,
            drain_limit: config.drain_limit,
            watching,
            writer,
            written,
            stores: [Some(store), replica].into_iter().flatten().collect(),
            postgres,
            metrics,
            scraped,
        };
        let ended = tokio::spawn(running.run(rpc, listener, tls, config.connections));
        Ok(Self { address, health_address, metrics_address, stop, ended })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it tells probes how things stand, if not with the rest.
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.health_address
    }

    /// Where Prometheus can read metrics, if anywhere.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
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
    shutdown_delay: Duration,
    drain_limit: Duration,
    /// What is looked at all the time: the database, files, and probes that ask. Dropped, it ends.
    watching: JoinSet<()>,
    writer: Writer,
    written: JoinHandle<()>,
    /// On the primary and on its replica.
    stores: Vec<Store>,
    postgres: Option<EmbeddedPostgres>,
    metrics: Metrics,
    /// Serves the metrics, also while all else ends.
    scraped: Option<AbortOnDropHandle<()>>,
}

impl Running {
    async fn run(
        mut self,
        rpc: Rpc,
        listener: TcpListener,
        tls: Option<Arc<Tls>>,
        limits: ConnectionLimits,
    ) -> Result<(), AppError> {
        let (health, going_away) = (rpc.health.clone(), CancellationToken::new());
        let mut serving = tokio::spawn(rpc.serve(listener, tls, limits, going_away.clone()));
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
        health.close().await;
        self.metrics.set_ready(false);
        if !by_itself {
            sleep(self.shutdown_delay).await;
        }
        going_away.cancel();
        if !serving.is_finished() && timeout(self.drain_limit, &mut serving).await.is_err() {
            tracing::warn!(drain_limit_s = self.drain_limit.as_secs(), "calls are cut off that took too long to end");
            serving.abort();
        }
        // Calls that were cut off can put nothing more into the queue; what is queued is still written.
        self.writer.close();
        if !self.written.is_finished() && timeout(FLUSH_LIMIT, &mut self.written).await.is_err() {
            tracing::error!("not all that was queued could be written");
        }
        self.watching.shutdown().await;
        let closing = async {
            for store in &self.stores {
                store.close().await;
            }
        };
        if timeout(CLOSE_LIMIT, closing).await.is_err() {
            tracing::warn!("the database does not let go of its connections");
        }
        if let Some(postgres) = self.postgres {
            postgres.stop().await;
        }
        drop(self.scraped);
        self.metrics.end().await;
        tracing::info!("shut down");
        if by_itself { Err(AppError::Stopped) } else { Ok(()) }
    }
}

/// Listens where a setting says.
async fn listen(setting: &Setting, address: SocketAddr) -> Result<(TcpListener, SocketAddr), AppError> {
    let failed = |source| AppError::Listen { address, flag: setting.flag(), source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// Offers the metrics to Prometheus, when there is where to, and tells where that is.
async fn offer(
    address: Option<SocketAddr>,
    metrics: &Metrics,
) -> Result<(Option<AbortOnDropHandle<()>>, Option<SocketAddr>), AppError> {
    let Some(address) = address else { return Ok((None, None)) };
    let (listener, address) = listen(&METRICS_LISTEN, address).await?;
    let serving = tokio::spawn(scrape::serve(listener, metrics.clone()));
    Ok((Some(AbortOnDropHandle::new(serving)), Some(address)))
}

/// Keeps the health service's word true: ready once the schema serves this program, and as long as it does and the database
/// answers. That it does not answer may pass; what the schema says is believed at once. What is unfolded then is folded, whoever
/// left it.
async fn watch(store: Store, gate: Arc<Gate>, health: Health, writer: Writer) {
    let mut failures = 0;
    let mut ready = false;
    loop {
        let probed = timeout(PROBE.1, async {
            prepare(&store, &gate).await?;
            store.has_unfolded().await
        });
        let failed = match probed.await {
            Ok(Ok(has_unfolded)) => {
                failures = 0;
                if has_unfolded {
                    writer.fold_all();
                }
                None
            }
            Ok(Err(error)) => Some(error),
            Err(_) => Some(StoreError::Silent),
        };
        if let Some(error) = &failed {
            failures += 1;
            if error.is_of_schema() {
                gate.close();
            }
        }
        let now_ready = gate.is_open() && if ready { failures < FAILED_PROBES } else { failures == 0 };
        if now_ready != ready {
            ready = now_ready;
            health.set_ready(ready).await;
            store.metrics().set_ready(ready);
            tracing::info!(ready, "readiness changed");
        }
        // The cause is looked for during the pause, which it makes no longer.
        let tell = async {
            if let Some(error) = failed {
                tracing::warn!(failures, "the database is not ready: {}", store.why(&error, PROBE.0).await);
            }
        };
        tokio::join!(sleep(PROBE.0), tell);
    }
}

/// Opens the gate when the database is a primary whose schema serves this program.
async fn prepare(store: &Store, gate: &Gate) -> Result<(), StoreError> {
    store.ping().await?;
    store.check_schema().await?;
    if gate.is_open() {
        return Ok(());
    }
    store.check_settings().await?;
    let key = store.page_token_key().await?;
    let made =
        Sealer::new(&key).ok_or(StoreError::Inconsistent { table: "server_key", what: "a key of the wrong length" })?;
    gate.open(made);
    Ok(())
}
