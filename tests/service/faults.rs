//! The library's client through everything that goes wrong: servers killed and restarted, PostgreSQL killed, calls given up
//! at any moment. How often is a matter of scale.

use std::{
    fs,
    future::Future,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    task::Poll,
    time::Duration,
};

use rapport::{
    client::{Client, Patience},
    domain::{Draft, Faults, Kind, PersonId, RankOrder, TenantId, Timestamp},
    embedded::url_of_running,
    rpc::pb,
    scoring::DEFAULT,
    service::{Clock, ConnectionQuery, PolicyDraft, RankQuery, Service, ServiceLimits},
    store::{Store, Writer},
};
use rustix::process::Signal;
use sqlx::{Connection as _, PgConnection};
use tokio::time::sleep;
use tonic::transport::{Channel, Endpoint};

use crate::{
    feed::{assert_derived, assert_exactly, item},
    harness::{database, document, eventually, ready, scaled, unique},
    process::{Process, free_address, random, random_pause, send},
    program::{Ran, postmaster, program},
};

const TENANT: &str = "faults";
const CALLERS: i64 = 6;

/// Callers who record one act after the other and rank in between, and none of whose calls may fail.
pub struct Load {
    is_enough: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    callers: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    pub fn start(client: &Client) -> Self {
        let (is_enough, calls) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let tenant = TenantId::parse_metadata(TENANT).unwrap();
        let patience = Patience { limit: Duration::from_mins(1), ..Patience::default() };
        let client = client.clone().as_tenant(&tenant).unwrap().with_patience(patience);
        let callers = (0..CALLERS)
            .map(|number| tokio::spawn(call(client.clone(), number, Arc::clone(&is_enough), Arc::clone(&calls))))
            .collect();
        Self { is_enough, calls, callers }
    }

    /// Waits for so many more calls.
    pub async fn advance(&self, count: u64) {
        let goal = self.calls.load(SeqCst) + count;
        let gone_on =
            async || self.calls.load(SeqCst) >= goal || self.callers.iter().any(tokio::task::JoinHandle::is_finished);
        eventually("calls go on", gone_on).await;
    }

    /// Ends it; the ids of all that was acknowledged.
    pub async fn finish(self) -> Vec<String> {
        self.is_enough.store(true, SeqCst);
        let mut ids = Vec::new();
        for caller in self.callers {
            ids.extend(caller.await.unwrap());
        }
        ids
    }
}

async fn call(client: Client, number: i64, is_enough: Arc<AtomicBool>, calls: Arc<AtomicU64>) -> Vec<String> {
    let mut ids = Vec::new();
    while !is_enough.load(SeqCst) {
        let mut act = item("load", ids.len() as i64);
        act.interaction_id = format!("caller {number} act {}", ids.len());
        let recorded = client.record(act.clone()).await.unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(recorded.interaction_id, act.interaction_id);
        if ids.len() % 8 == 0 {
            let request = pb::RankConnectionsRequest { person: act.actor, ..Default::default() };
            client.rank(request).await.unwrap_or_else(|error| panic!("{error:?}"));
        }
        ids.push(act.interaction_id);
        calls.fetch_add(1, SeqCst);
        sleep(Duration::from_millis(1)).await;
    }
    ids
}

pub fn at(address: SocketAddr) -> Client {
    Client::at(&format!("http://{address}")).unwrap()
}

/// Every act is in the ledger once, and all that is derived from it is as `rapport rebuild --check` derives it.
pub async fn assert_kept(url: &str, ids: Vec<String>) {
    assert_exactly(url, TENANT, ids).await;
    let checked = program(&["rebuild", "--check"]).env("DATABASE_URL", url).output().unwrap();
    assert!(Ran::from(checked).expect(0).out.ends_with("No difference.\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_killed_under_load_lose_and_double_nothing() {
    let (url, address) = (database(true).await, free_address());
    let mut server = Process::on_database(&url, address).await;
    let load = Load::start(&at(address));
    let kills = scaled(5, 100);
    for _ in 0..kills {
        load.advance(100).await;
        sleep(random_pause(100)).await;
        server.kill();
        server = Process::on_database(&url, address).await;
    }
    load.advance(1).await;
    let ids = load.finish().await;
    println!("{} acts through {kills} kills of the server", ids.len());
    assert_kept(&url, ids).await;
    server.terminate();
    assert_eq!(server.stopped().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_killed_under_load_loses_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // The user that PostgreSQL runs as must be let in.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (data, address) = (folder.path().join("data"), free_address());
    let server = Process::on_folder(&data, address).await;
    let load = Load::start(&at(address));
    let kills = scaled(1, 20);
    for _ in 0..kills {
        load.advance(100).await;
        sleep(random_pause(100)).await;
        let killed = postmaster(&data).unwrap();
        send(killed, Signal::KILL);
        eventually("PostgreSQL is started again", async || postmaster(&data).is_some_and(|pid| pid != killed)).await;
        ready(address).await;
    }
    load.advance(1).await;
    let ids = load.finish().await;
    println!("{} acts through {kills} kills of PostgreSQL", ids.len());
    assert_kept(&url_of_running(&data).unwrap(), ids).await;
    server.terminate();
    assert_eq!(server.stopped().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_restarts_fail_no_call() {
    let (url, addresses) = (database(true).await, [free_address(), free_address()]);
    let mut servers = Vec::new();
    for address in addresses {
        servers.push(Process::on_database(&url, address).await);
    }
    let endpoints = addresses.map(|address| Endpoint::from_shared(format!("http://{address}")).unwrap());
    let load = Load::start(&Client::over(Channel::balance_list(endpoints.into_iter())));
    let restarts = scaled(6, 60);
    for restart in 0..restarts {
        load.advance(100).await;
        let server = servers.remove(0);
        server.terminate();
        assert_eq!(server.stopped().await.code(), Some(0));
        servers.push(Process::on_database(&url, addresses[restart as usize % 2]).await);
    }
    load.advance(100).await;
    let ids = load.finish().await;
    println!("{} acts through {restarts} restarts", ids.len());
    assert_kept(&url, ids).await;
}

/// Lets a future go on that many times, and drops it if it has not ended by then.
async fn given_up_after<T>(turns: u64, work: impl Future<Output = T>) -> Option<T> {
    let mut work = Box::pin(work);
    let mut turn = 0;
    std::future::poll_fn(move |context| match work.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending if turn == turns => Poll::Ready(None),
        Poll::Pending => {
            turn += 1;
            Poll::Pending
        }
    })
    .await
}

fn draft(id: &str) -> Draft {
    Draft {
        interaction_id: Some(id.to_owned()),
        actor: format!("person {}", random(8)),
        recipients: vec!["ada".to_owned()],
        interaction_time: Timestamp::from_seconds(1_767_225_600, 0),
        kind: Kind::from_number(Kind::Help.number().into()),
        ..Draft::default()
    }
}

/// One call of any kind, given up after that many turns. Whether it ended by itself; the id of what it recorded, if any.
async fn one_call(service: Service, turns: u64) -> (bool, Option<String>) {
    let tenant = TenantId::parse_metadata(TENANT).unwrap();
    let person = PersonId::parse("ada").unwrap();
    let id = unique();
    let draft = draft(&id);
    match random(6) {
        0 | 1 => {
            let recorded = given_up_after(turns, service.record(tenant, &draft, Faults::default())).await;
            (recorded.is_some(), recorded.map(|recorded| recorded.unwrap().id.unwrap().as_str().to_owned()))
        }
        2 => (given_up_after(turns, service.validate(tenant, &draft, Faults::default())).await.is_some(), None),
        3 => {
            let peer = PersonId::parse("person 1").unwrap();
            let query = ConnectionQuery { person, peer, as_of: None, at_least: None };
            (given_up_after(turns, service.connection(tenant, query)).await.is_some(), None)
        }
        4 => {
            let query = RankQuery {
                person,
                order: RankOrder::Mutual,
                as_of: None,
                statuses: Vec::new(),
                channels: Vec::new(),
                topics: Vec::new(),
                minimum_score: 0.0,
                page_size: 5,
                policy: None,
                after: None,
                explain: true,
                at_least: None,
            };
            (given_up_after(turns, service.rank(tenant, query)).await.is_some(), None)
        }
        _ => {
            let document = document(&format!("version-{}", random(9)));
            let policy = PolicyDraft { document, put_to_use: true, validate_only: false };
            (given_up_after(turns, service.publish_policy(tenant, policy)).await.is_some(), None)
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_given_up_at_any_await_leave_no_transaction_open() {
    const MAX_CONNECTIONS: u32 = 4;
    let url = database(true).await;
    let store = Store::new(&url, MAX_CONNECTIONS, &DEFAULT).unwrap();
    let (writer, _written) = Writer::start(&store);
    let service = Service::new(
        store.clone(),
        writer,
        Clock::system(),
        ServiceLimits { future: Duration::from_mins(5), answer_bytes: 1 << 20, view_bytes: 1 << 20 },
    );
    let (calls, mut given_up, mut acknowledged) = (scaled(300, 10_000), 0, Vec::new());
    for _ in 0..calls / 10 {
        let calls: Vec<_> = (0..10).map(|_| tokio::spawn(one_call(service.clone(), random(4)))).collect();
        for call in calls {
            let (has_ended, id) = call.await.unwrap();
            given_up += u64::from(!has_ended);
            acknowledged.extend(id);
        }
    }
    println!("{given_up} of {calls} calls were given up, {} acts acknowledged", acknowledged.len());
    assert!(given_up > calls / 10);
    let tenant = TenantId::parse_metadata(TENANT).unwrap();
    let last = service.record(tenant, &draft("last"), Faults::default()).await.unwrap();
    acknowledged.extend(last.id.map(|id| id.as_str().to_owned()));

    let mut connection = PgConnection::connect(&url).await.unwrap();
    eventually("all connections rest", async || {
        let states: Vec<String> = sqlx::query_scalar(
            "SELECT state FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
        )
        .fetch_all(&mut connection)
        .await
        .unwrap();
        assert!(states.len() <= MAX_CONNECTIONS as usize, "{states:?}");
        states.iter().all(|state| state == "idle")
    })
    .await;
    let found: Vec<String> =
        sqlx::query_scalar("SELECT interaction_id FROM ledger").fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    assert!(acknowledged.iter().all(|id| found.contains(id)));
    // Every connection can be had again: as many pieces of work at once as there are.
    let reads: Vec<_> = (0..MAX_CONNECTIONS * 4)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.page_token_key().await.unwrap() })
        })
        .collect();
    for read in reads {
        read.await.unwrap();
    }
    assert_derived(&url).await;
}
