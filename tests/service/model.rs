//! Whatever callers send, in whatever order, at once, as calls or streams, to one server or two: the service answers what
//! the pure core says of what was accepted.

use std::{collections::BTreeMap, net::SocketAddr};

use rapport::{
    domain::{Kind, RankOrder, Timestamp},
    rpc::pb,
    scoring::DEFAULT,
    service::Clock,
    store::Store,
};
use sqlx::{Connection as _, PgConnection};
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};

use crate::{
    harness::{
        Client, act, after, all_folded, client, client_of, config, database, day, rank, reason, record, start,
        try_record,
    },
    history::{Dice, Item, PERSONS, history},
    oracle::{Oracle, assert_same, from_wire, to_wire},
};

/// What became of one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Recorded {
        replayed: bool,
    },
    /// Recorded now or before; a stream only tells how many of each there were.
    Accepted,
    Conflict,
    Faulty,
}

fn refusal(code: Code, reason: &str) -> Fate {
    match (code, reason) {
        (Code::AlreadyExists, "INTERACTION_CONFLICT") => Fate::Conflict,
        (Code::InvalidArgument, "FIELDS_INVALID") => Fate::Faulty,
        other => panic!("{other:?}"),
    }
}

fn refused(status: &Status) -> Fate {
    refusal(status.code(), &reason(status))
}

/// Everything that was sent, with what became of it, and how many were recorded for the first time.
#[derive(Default)]
struct Sent {
    items: Vec<(Item, Fate)>,
    fresh: usize,
}

impl Sent {
    fn note(&mut self, item: Item, fate: Fate) {
        self.fresh += usize::from(fate == Fate::Recorded { replayed: false });
        self.items.push((item, fate));
    }

    /// What was accepted, after checking that each fate is the one deserved.
    fn accepted(&self) -> BTreeMap<String, pb::Interaction> {
        let mut accepted: BTreeMap<String, pb::Interaction> = BTreeMap::new();
        for (item, fate) in &self.items {
            assert_eq!(*fate == Fate::Faulty, !item.sound, "{:?}", item.interaction);
            if matches!(fate, Fate::Recorded { .. } | Fate::Accepted) {
                let content = content(&item.interaction);
                let first = accepted.entry(content.interaction_id.clone()).or_insert_with(|| content.clone());
                assert_eq!(*first, content, "one id stands for one content");
            }
        }
        for (item, _) in self.items.iter().filter(|(_, fate)| *fate == Fate::Conflict) {
            let first = &accepted[&item.interaction.interaction_id];
            assert_ne!(*first, content(&item.interaction), "the same content is no conflict");
        }
        assert_eq!(self.fresh, accepted.len(), "each is recorded for the first time once");
        accepted
    }
}

/// What an interaction says, in one way.
fn content(interaction: &pb::Interaction) -> pb::Interaction {
    let mut content = interaction.clone();
    content.recipients.sort();
    content.topics.sort();
    content.audience_count = content.audience_count.max(content.recipients.len() as i64);
    content
}

/// Sends a history in a mix of ways: call by call, many calls at once, and streams.
async fn send(servers: &[SocketAddr], tenant: &str, items: Vec<Item>, seed: u64) -> Sent {
    let (mut sent, mut dice, mut items) = (Sent::default(), Dice::new(seed), items.into_iter().peekable());
    while items.peek().is_some() {
        let some: Vec<_> = items.by_ref().take(1 + dice.below(60) as usize).collect();
        let clients: Vec<_> = servers.iter().map(|server| client_of(*server, tenant)).collect();
        match dice.below(4) {
            0 => {
                for item in some.into_iter().take(15) {
                    let fate = call(dice.pick(&clients).clone(), &item).await;
                    sent.note(item, fate);
                }
            }
            1 => {
                // Two streams at once.
                let (one, other) = some.split_at(some.len() / 2);
                let streams = clients.iter().cycle().zip([one.to_vec(), other.to_vec()]);
                let streams: Vec<_> =
                    streams.map(|(client, part)| tokio::spawn(stream(client.clone(), part))).collect();
                for stream in streams {
                    let part = stream.await.unwrap();
                    sent.fresh += part.fresh;
                    sent.items.extend(part.items);
                }
            }
            _ => {
                let calls: Vec<_> = some
                    .into_iter()
                    .map(|item| {
                        let client = dice.pick(&clients).clone();
                        tokio::spawn(async move { (call(client, &item).await, item) })
                    })
                    .collect();
                for call in calls {
                    let (fate, item) = call.await.unwrap();
                    sent.note(item, fate);
                }
            }
        }
    }
    sent
}

async fn call(mut client: Client, item: &Item) -> Fate {
    match try_record(&mut client, item.interaction.clone()).await {
        Ok(recorded) => Fate::Recorded { replayed: recorded.replayed },
        Err(status) => refused(&status),
    }
}

async fn stream(mut client: Client, items: Vec<Item>) -> Sent {
    let requests: Vec<_> = items
        .iter()
        .zip(1..)
        .map(|(item, number)| pb::RecordInteractionsRequest {
            sequence: number * 3,
            interaction: Some(item.interaction.clone()),
        })
        .collect();
    let mut answers = client.record_interactions(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let (mut fates, mut fresh, mut replayed, mut last) = (vec![Fate::Accepted; items.len()], 0, 0, 0);
    while let Some(answer) = answers.next().await {
        let answer = answer.unwrap();
        assert!(answer.sequence > last, "acknowledgements rise");
        last = answer.sequence;
        (fresh, replayed) = (fresh + answer.recorded_count as usize, replayed + answer.replayed_count as usize);
        for rejection in answer.rejections {
            let place = rejection.sequence as usize / 3 - 1;
            assert_eq!(rejection.interaction_id, items[place].interaction.interaction_id);
            fates[place] = rejected(&rejection.status.unwrap());
        }
    }
    let accepted = fates.iter().filter(|fate| **fate == Fate::Accepted).count();
    assert_eq!((last, fresh + replayed), (items.len() as i64 * 3, accepted), "every item is acknowledged once");
    Sent { items: items.into_iter().zip(fates).collect(), fresh }
}

fn rejected(status: &tonic_types::Status) -> Fate {
    let info: tonic_types::pb::ErrorInfo =
        status.details.iter().find(|detail| detail.type_url.ends_with("ErrorInfo")).map(decoded).unwrap();
    refusal(status.code.into(), &info.reason)
}

fn decoded<M: prost::Message + Default>(detail: &prost_types::Any) -> M {
    M::decode(detail.value.as_slice()).unwrap()
}

const ORDERS: [(pb::RankOrder, RankOrder); 4] = [
    (pb::RankOrder::Mutual, RankOrder::Mutual),
    (pb::RankOrder::TheyWouldHelp, RankOrder::TheyWouldHelp),
    (pb::RankOrder::YouWouldHelp, RankOrder::YouWouldHelp),
    (pb::RankOrder::LastInteraction, RankOrder::LastInteraction),
];

/// Times to ask for: before anything, at acts and just before them, between them, now (`None`), later.
fn times(oracle: &Oracle, dice: &mut Dice) -> Vec<Option<Timestamp>> {
    let mut times = oracle.times();
    times.sort();
    let day = 86_400_000_000;
    let (first, last) = (times[0], times[times.len() - 1]);
    let some = [*dice.pick(&times), *dice.pick(&times)];
    let earlier = |time: Timestamp, micros: i64| Timestamp::from_micros(time.micros() - micros).unwrap();
    let mut asked = vec![None, Some(earlier(first, 1)), Some(last)];
    asked.extend([some[0], earlier(some[0], 1), some[1].day().bounds().0, earlier(last, 20 * day)].map(Some));
    asked.push(Some(last.saturating_add_micros(200 * day)));
    asked
}

/// Sends to two tenants at the same time.
async fn send_both(servers: &[SocketAddr], [one, other]: [Vec<Item>; 2], seed: u64, sent: &mut [Sent; 2]) {
    let (one, other) =
        tokio::join!(send(servers, "one", one, seed), send(servers, "other", other, seed.wrapping_add(1)));
    for (sent, more) in sent.iter_mut().zip([one, other]) {
        sent.fresh += more.fresh;
        sent.items.extend(more.items);
    }
}

/// Fails unless every answer about everybody at these times is the oracle's.
async fn compare(client: &mut Client, oracle: &Oracle, times: &[Option<Timestamp>], context: &str) {
    for (owner, as_of) in PERSONS.iter().flat_map(|owner| times.iter().map(move |time| (*owner, *time))) {
        for (order_by, order) in ORDERS {
            let request = pb::RankConnectionsRequest {
                person: owner.to_owned(),
                order_by: order_by.into(),
                as_of_time: as_of.map(to_wire),
                page_size: 100,
                explain: order == RankOrder::Mutual,
                ..Default::default()
            };
            let answer = client.rank_connections(request).await.unwrap().into_inner();
            let then = from_wire(answer.as_of_time.unwrap());
            assert!(as_of.is_none_or(|as_of| as_of == then));
            let context = format!("{context}, owner {owner:?}, as of {then:?} ({as_of:?}), {order:?}");
            let found: Vec<_> = answer.connections.iter().map(|connection| connection.peer.clone()).collect();
            assert_eq!(found, oracle.ranking(owner, then, order), "{context}");
            assert_eq!((answer.next_page_token.as_str(), answer.policy_version.as_str()), ("", &*DEFAULT.version));
            for connection in &answer.connections {
                let mut wanted = oracle.connection(owner, &connection.peer, then);
                if order != RankOrder::Mutual {
                    wanted.reasons.clear();
                }
                assert_same(connection, &wanted, &context);
            }
        }
        for peer in PERSONS.iter().filter(|peer| **peer != owner) {
            let (person, peer) = (owner.to_owned(), (*peer).to_owned());
            let request = pb::GetConnectionRequest {
                person,
                peer: peer.clone(),
                as_of_time: as_of.map(to_wire),
                ..Default::default()
            };
            let answer = client.get_connection(request).await.unwrap().into_inner();
            let then = from_wire(answer.as_of_time.unwrap());
            let wanted = oracle.connection(owner, &peer, then);
            assert_same(&answer.connection.unwrap(), &wanted, &format!("{context}, {owner:?} shown as of {then:?}"));
        }
    }
}

/// When folding is held up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Never,
    /// For the second half of what is sent, and until all is compared.
    HalfWay,
}

/// Two tenants whose ids are the same but whose histories differ, written at the same time, each against its oracle.
async fn check(seed: u64, servers: usize, interactions: u64, held: Held) {
    let context = format!("RAPPORT_TEST_SEED={seed}");
    println!("{context}");
    let url = database(true).await;
    let mut apps = Vec::new();
    for _ in 0..servers {
        apps.push(start(config(url.clone()), Clock::system()).await);
    }
    let addresses: Vec<_> = apps.iter().map(rapport::app::App::address).collect();
    let mut histories = [history(seed, interactions), history(seed ^ 0x5eed, interactions)];
    let mut blocker = PgConnection::connect(&url).await.unwrap();
    let mut sent = [Sent::default(), Sent::default()];
    if held == Held::HalfWay {
        let first = histories.each_mut().map(|items| items.drain(..items.len() / 2).collect());
        send_both(&addresses, first, seed, &mut sent).await;
        all_folded(&url).await;
        sqlx::raw_sql("BEGIN; LOCK TABLE rhythm IN SHARE MODE").execute(&mut blocker).await.unwrap();
    }
    send_both(&addresses, histories, seed, &mut sent).await;
    let [one, other] = sent;
    let mut rows = (0, 0);
    let mut compared = Vec::new();
    for (tenant, sent) in [("one", one), ("other", other)] {
        let oracle = Oracle::new(sent.accepted().values());
        rows = (rows.0 + oracle.len().0, rows.1 + oracle.len().1);
        let mut client = client_of(addresses[addresses.len() - 1], tenant);
        let times = times(&oracle, &mut Dice::new(seed));
        compare(&mut client, &oracle, &times, &format!("{context}, tenant {tenant}")).await;
        compared.push((client, oracle));
    }
    let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM unfolded").fetch_one(&mut blocker).await.unwrap();
    assert!(held == Held::Never || waiting > 0);
    blocker.close().await.unwrap();
    let store = Store::new(&url, 2, &DEFAULT).unwrap();
    let rebuilt = store.rebuild(true, |_| {}).await.unwrap();
    assert!(rebuilt.differences.is_empty(), "{:?}, {context}", rebuilt.differences);
    assert_eq!((rebuilt.ties as usize, rebuilt.rhythms as usize), rows, "{context}");
    for (mut client, oracle) in compared {
        compare(&mut client, &oracle, &[None], &format!("{context}, rebuilt")).await;
    }
}

/// The seeds to try: those given, or the one that the environment names.
fn seeds<const N: usize>(given: [u64; N]) -> Vec<u64> {
    match std::env::var("RAPPORT_TEST_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => given.to_vec(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_answers_as_the_pure_core() {
    for seed in seeds([1]) {
        check(seed, 1, 200, Held::Never).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_at_once_answer_as_the_pure_core() {
    for seed in seeds([2]) {
        check(seed, 2, 250, Held::Never).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_folded_yet_is_answered_as_the_pure_core() {
    for seed in seeds([3]) {
        check(seed, 2, 250, Held::HalfWay).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_with_the_same_ids_share_batches_and_nothing_else() {
    let (mut one, other) = (client(), client());
    let acts = |prefix: &str, kind, time| -> Vec<_> {
        let act = |number| {
            let interaction_id = format!("{prefix}{number}");
            pb::Interaction { interaction_id, ..act(kind, &format!("p{number}"), "ada", time) }
        };
        (0..100).map(act).collect()
    };
    let early = acts("early", Kind::Help, day(5));
    let last = acts("last", Kind::Message, day(10));
    let late = acts("late", Kind::Help, after(day(5), 60));
    for act in early.iter().chain(&last) {
        record(&mut one, act.clone()).await;
    }
    // What one tenant records late shares its batches with ids that it recorded long ago, now new to the other tenant.
    let calls: Vec<_> = late
        .iter()
        .zip(&early)
        .flat_map(|(late, early)| [(one.clone(), late.clone()), (other.clone(), early.clone())])
        .map(|(mut client, act)| tokio::spawn(async move { record(&mut client, act).await }))
        .collect();
    for call in calls {
        assert!(!call.await.unwrap().replayed);
    }
    let oracle = Oracle::new(early.iter().chain(&last).chain(&late));
    for connection in rank(&mut one, "ada", day(11)).await {
        let mut wanted = oracle.connection("ada", &connection.peer, from_wire(day(11)));
        wanted.reasons.clear();
        assert_same(&connection, &wanted, "one tenant of two");
    }
}
