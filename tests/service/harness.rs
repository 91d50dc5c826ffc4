//! What the tests share: one private PostgreSQL, one server in this process, a tenant of its own for every test, and a few
//! words to build requests with. Servers and databases of their own are for tests that stop, cut or damage them.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        LazyLock, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prost_types::Timestamp;
use rapport::{
    app::App,
    config::{Config, Database, Databases, LogConfig},
    domain::Kind,
    embedded::{EmbeddedOptions, EmbeddedPostgres},
    rpc::{AdmissionLimits, ConnectionLimits, TENANT_KEY, pb},
    scoring::DEFAULT,
    service::{Clock, ServiceLimits},
    store::Store,
    telemetry::Export,
};
use sqlx::{Connection as _, PgConnection};
use tonic::{
    Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

/// Outlives every test, as what is shared among tests must.
static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| tokio::runtime::Runtime::new().unwrap());
static SHARED: OnceLock<Shared> = OnceLock::new();

struct Shared {
    postgres: EmbeddedPostgres,
    server: SocketAddr,
}

/// The folder with PostgreSQL's programs, when not any will do.
pub fn programs() -> Option<PathBuf> {
    std::env::var_os("RAPPORT_TEST_POSTGRES_BIN").map(Into::into)
}

/// The folder of the private PostgreSQL, the same in every run of these tests with the same programs and in no others.
fn folder() -> PathBuf {
    let programs = programs().unwrap_or_default();
    let bytes = env!("CARGO_MANIFEST_DIR").bytes().chain(programs.as_os_str().as_encoded_bytes().iter().copied());
    let hash = bytes.fold(0_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let user = rustix::process::geteuid().as_raw();
    std::env::temp_dir().join(format!("rapport-tests-{user}-{hash:x}"))
}

fn shared() -> &'static Shared {
    SHARED.get_or_init(|| {
        // A thread of its own, because tests run within runtimes of theirs.
        std::thread::spawn(|| {
            RUNTIME.block_on(async {
                let settings = [("fsync", "off"), ("full_page_writes", "off"), ("max_connections", "200")];
                let options = EmbeddedOptions {
                    postgres_bin: programs(),
                    extra_settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
                    ..EmbeddedOptions::new(folder())
                };
                let postgres = EmbeddedPostgres::start(options).await.unwrap();
                drop_databases(&postgres).await;
                let app = start(config(new_database(&postgres, true).await), Clock::system()).await;
                Shared { postgres, server: app.address() }
            })
        })
        .join()
        .unwrap()
    })
}

/// A database of its own: with the schema, or empty.
pub async fn database(migrated: bool) -> String {
    new_database(&shared().postgres, migrated).await
}

/// Drops what earlier runs left.
async fn drop_databases(postgres: &EmbeddedPostgres) {
    let mut connection = PgConnection::connect(&postgres.database_url()).await.unwrap();
    let left = "SELECT 'DROP DATABASE ' || datname FROM pg_database WHERE datname LIKE 'test\\_%'";
    let drops: Vec<String> = sqlx::query_scalar(left).fetch_all(&mut connection).await.unwrap();
    for drop in drops {
        sqlx::raw_sql(sqlx::AssertSqlSafe(drop)).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
}

async fn new_database(postgres: &EmbeddedPostgres, migrated: bool) -> String {
    let name = format!("test_{}", unique());
    let url = postgres.database_url();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let url = url.replacen("/rapport?", &format!("/{name}?"), 1);
    if migrated {
        Store::new(&url, 2, &DEFAULT).unwrap().migrate().await.unwrap();
    }
    url
}

/// How often something is done: `small`, and `large` where `RAPPORT_TEST_SCALE` says so.
pub fn scaled(small: u64, large: u64) -> u64 {
    match std::env::var("RAPPORT_TEST_SCALE").as_deref() {
        Ok("large") => large,
        Ok("small") | Err(_) => small,
        Ok(other) => panic!("RAPPORT_TEST_SCALE must be small or large, not {other}"),
    }
}

/// A word that no other test uses, in this run or in earlier ones.
pub fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    format!("{now:x}_{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A database without a replica, over at most so many connections.
pub fn databases(url: String, max_connections: u32) -> Databases {
    Databases { primary: Database::Url(url), replica: None, max_connections }
}

/// The settings of a server on a database, on any free port.
pub fn config(database_url: String) -> Config {
    Config {
        listen: ([127, 0, 0, 1], 0).into(),
        databases: databases(database_url, 8),
        health_listen: None,
        access_file: None,
        tls: None,
        connections: ConnectionLimits { most: 10_000, idle: Duration::from_mins(5), age: Duration::from_mins(30) },
        admission: AdmissionLimits { calls: 8192, tenant_calls: 8192, tenant_streams: 256, tenant_rate: 0 },
        shutdown_delay: Duration::ZERO,
        service: ServiceLimits { future: Duration::from_mins(5), answer_bytes: 32 << 20, view_bytes: 64 << 20 },
        drain_limit: Duration::from_secs(5),
        metrics_listen: None,
        export: Export::default(),
        slow_statement: Duration::from_secs(1),
        log: LogConfig::default(),
    }
}

/// A server that is ready.
pub async fn start(config: Config, clock: Clock) -> App {
    let app = App::start(config, clock).await.unwrap();
    ready(app.address()).await;
    app
}

/// Waits until the server there is ready.
pub async fn ready(address: SocketAddr) {
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
    let mut health = HealthClient::new(channel(address));
    eventually("the server is ready", async || {
        let request = HealthCheckRequest { service: "readiness".to_owned() };
        health.check(request).await.is_ok_and(|answer| answer.get_ref().status() == ServingStatus::Serving)
    })
    .await;
}

/// Waits until all that was recorded in a database is folded.
pub async fn all_folded(url: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let mut unfolded = async || sqlx::query("SELECT FROM unfolded").fetch_optional(&mut connection).await.unwrap();
    eventually("all is folded", async || unfolded().await.is_none()).await;
    connection.close().await.unwrap();
}

/// Waits up to half a minute until something holds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

pub fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}

/// Names the tenant in every call.
#[derive(Clone)]
pub struct AsTenant(String);

impl Interceptor for AsTenant {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(TENANT_KEY, self.0.parse().unwrap());
        Ok(request)
    }
}

pub type Client = pb::relationship_service_client::RelationshipServiceClient<InterceptedService<Channel, AsTenant>>;

/// A client of the shared server, in a tenant of its own.
pub fn client() -> Client {
    client_of(shared().server, &unique())
}

/// The address of the shared server.
pub fn address() -> SocketAddr {
    shared().server
}

/// A client of a server, in that tenant.
pub fn client_of(address: SocketAddr, tenant: &str) -> Client {
    Client::new(InterceptedService::new(channel(address), AsTenant(tenant.to_owned())))
        .max_decoding_message_size(64 << 20)
}

pub type PolicyClient = pb::policy_service_client::PolicyServiceClient<InterceptedService<Channel, AsTenant>>;

/// A client of a server's policies, in that tenant.
pub fn policies_of(address: SocketAddr, tenant: &str) -> PolicyClient {
    PolicyClient::new(InterceptedService::new(channel(address), AsTenant(tenant.to_owned())))
}

/// The document of a policy with that name.
pub fn document(version: &str) -> String {
    let mut document: serde_json::Value = serde_json::from_str(&DEFAULT.document()).unwrap();
    document["version"] = version.into();
    document.to_string()
}

/// The time, in whole seconds since 1970.
pub fn unix_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// 2026-01-01, and whole days after it.
pub fn day(days: i64) -> Timestamp {
    Timestamp { seconds: 1_767_225_600 + days * 86_400, nanos: 0 }
}

/// A time that many seconds after another.
pub fn after(time: Timestamp, seconds: i64) -> Timestamp {
    Timestamp { seconds: time.seconds + seconds, ..time }
}

/// An interaction with an id of its own.
pub fn act(kind: Kind, actor: &str, recipient: &str, time: Timestamp) -> pb::Interaction {
    pb::Interaction {
        interaction_id: unique(),
        actor: actor.to_owned(),
        recipients: vec![recipient.to_owned()],
        interaction_time: Some(time),
        kind: kind.number().into(),
        ..pb::Interaction::default()
    }
}

/// Records an interaction that is expected to be sound.
pub async fn record(client: &mut Client, interaction: pb::Interaction) -> pb::RecordInteractionResponse {
    try_record(client, interaction).await.unwrap()
}

pub async fn try_record(
    client: &mut Client,
    interaction: pb::Interaction,
) -> Result<pb::RecordInteractionResponse, Status> {
    let request = pb::RecordInteractionRequest { interaction: Some(interaction), validate_only: false };
    client.record_interaction(request).await.map(tonic::Response::into_inner)
}

/// A person's ranking as of a time.
pub async fn rank(client: &mut Client, person: &str, as_of: Timestamp) -> Vec<pb::Connection> {
    let request = pb::RankConnectionsRequest {
        person: person.to_owned(),
        as_of_time: Some(as_of),
        page_size: 1000,
        ..pb::RankConnectionsRequest::default()
    };
    client.rank_connections(request).await.unwrap().into_inner().connections
}

/// One connection as of a time.
pub async fn connection(client: &mut Client, person: &str, peer: &str, as_of: Timestamp) -> pb::Connection {
    let request = pb::GetConnectionRequest {
        person: person.to_owned(),
        peer: peer.to_owned(),
        as_of_time: Some(as_of),
        ..Default::default()
    };
    client.get_connection(request).await.unwrap().into_inner().connection.unwrap()
}

/// The reason in an error's `ErrorInfo`.
pub fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("every error has an ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "rapport");
    info.reason.clone()
}

/// The keys and values in an error's `ErrorInfo`.
pub fn error_metadata(status: &Status) -> Vec<(String, String)> {
    let info = status.get_error_details().error_info().cloned();
    info.unwrap_or_else(|| panic!("every error has an ErrorInfo: {status:?}")).metadata.into_iter().collect()
}

/// The fields that an error complains about, with what it says of each.
pub fn violations(status: &Status) -> HashMap<String, String> {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
    violations.into_iter().map(|violation| (violation.field, violation.description)).collect()
}
