//! What is measured is what is served: backtests see histories as the service does, and commands that judge policies say so.

use std::collections::BTreeMap;

use prost_types::{Duration, Timestamp};
use rapport::{
    domain::{Kind, TenantId},
    evaluation::{History, MIN_CONNECTIONS},
    rpc::{self, pb},
    scoring::{Act, DEFAULT, Interval},
    service::Clock,
    store::Store,
};

use crate::{
    harness::{Client, after, client_of, config, database, day, record, start, unique},
    history::Dice,
    oracle::from_wire,
};

/// How many of the persons know each other well; those after them know two each, which is too few to be asked about.
const CIRCLE: u64 = 20;
const PERSONS: u64 = 25;
const DAYS: u64 = 200;
/// The first day of the made-up histories.
const FIRST_DAY: i64 = -300;

fn person(number: u64) -> String {
    format!("p{number:02}")
}

/// Somebody, and one to three of the people around them.
fn parties(dice: &mut Dice) -> (u64, Vec<u64>) {
    let actor = dice.below(PERSONS);
    if actor >= CIRCLE {
        let outsiders = PERSONS - CIRCLE;
        return (actor, vec![CIRCLE + (actor - CIRCLE + 1) % outsiders]);
    }
    let first = 1 + dice.below(4);
    let many = if dice.percent(70) { 1 } else { 2 + dice.below(2) };
    (actor, (first..first + many).map(|step| (actor + step) % CIRCLE).collect())
}

/// A few hundred acts, in the order of time: attention, help and thanks, and promises, most of which are kept.
fn acts() -> Vec<pb::Interaction> {
    let mut dice = Dice::new(2026);
    let mut acts = Vec::new();
    for number in 0..400 {
        let (actor, recipients) = parties(&mut dice);
        let kind =
            *dice.pick(&[Kind::Message, Kind::Message, Kind::Message, Kind::Help, Kind::Gratitude, Kind::Promise]);
        let at = dice.below(DAYS * 86_400) as i64;
        let made = pb::Interaction {
            interaction_id: format!("i{number:03}"),
            actor: person(actor),
            recipients: recipients.into_iter().map(person).collect(),
            interaction_time: Some(after(day(FIRST_DAY), at)),
            kind: kind.number().into(),
            effort: dice.percent(30).then(|| Duration { seconds: dice.below(9_000) as i64, nanos: 0 }),
            unprompted: dice.percent(20),
            ..pb::Interaction::default()
        };
        if kind == Kind::Promise && dice.percent(70) {
            acts.push(pb::Interaction {
                interaction_id: format!("kept{number:03}"),
                interaction_time: Some(after(day(FIRST_DAY), at + dice.below(20 * 86_400) as i64)),
                kind: Kind::PromiseKept.number().into(),
                refers_to: made.interaction_id.clone(),
                ..made.clone()
            });
        }
        acts.push(made);
    }
    acts.sort_by_key(time);
    acts
}

fn time(act: &pb::Interaction) -> (i64, i32) {
    act.interaction_time.map(|time| (time.seconds, time.nanos)).unwrap()
}

fn history_of(acts: &[pb::Interaction]) -> History {
    let mut history = History::default();
    for act in acts {
        let act = rpc::interaction(act.clone()).unwrap();
        act.recipients.iter().for_each(|recipient| history.add(&act.actor, recipient, Act::of(&act)));
    }
    history.in_order()
}

/// What a backtest foretells at a cut, and after how many days it came true, by person and peer.
type Foretold = BTreeMap<String, BTreeMap<String, (Interval, Option<f64>)>>;

fn foretold(history: &History, cut: Timestamp) -> Foretold {
    let mut foretold = Foretold::new();
    for candidate in history.snapshot(from_wire(cut), history.event(), &DEFAULT).candidates {
        let [owner, peer] = [candidate.owner, candidate.peer].map(|one| history.id(one).unwrap().as_str().to_owned());
        let said = (candidate.steps.interval(&DEFAULT), candidate.event_after);
        assert!(foretold.entry(owner).or_default().insert(peer, said).is_none());
    }
    foretold
}

fn near(one: Interval, other: Interval) -> bool {
    let numbers = |of: Interval| [of.probability, of.lower, of.upper];
    numbers(one).iter().zip(numbers(other)).all(|(one, other)| (one - other).abs() <= 1e-9)
}

/// The ranking of a person by who would help them, as it is served.
async fn served(client: &mut Client, person: String, cut: Timestamp) -> Vec<(String, Interval)> {
    let request = pb::RankConnectionsRequest {
        person,
        order_by: pb::RankOrder::TheyWouldHelp.into(),
        as_of_time: Some(cut),
        page_size: 1000,
        ..pb::RankConnectionsRequest::default()
    };
    let ranked = client.rank_connections(request).await.unwrap().into_inner().connections;
    let interval =
        |said: pb::Willingness| Interval { probability: said.probability, lower: said.lower, upper: said.upper };
    ranked.into_iter().map(|one| (one.peer, interval(one.they_would_help.unwrap()))).collect()
}

/// Fails unless everybody's served ranking has the peers, the numbers and the order of the evaluated one.
async fn assert_served(client: &mut Client, wanted: &Foretold, cut: Timestamp) {
    assert_eq!(wanted.len() as u64, CIRCLE);
    for number in 0..PERSONS {
        let ranked = served(client, person(number), cut).await;
        let Some(wanted) = wanted.get(&person(number)) else {
            assert!(ranked.len() < MIN_CONNECTIONS, "{number} is missing");
            continue;
        };
        assert_eq!(ranked.len(), wanted.len(), "{number}");
        for (peer, interval) in &ranked {
            assert!(near(*interval, wanted[peer].0), "{number} {peer}: {interval:?} is not {:?}", wanted[peer].0);
        }
        // Equals may come in any order: what is mutual decides among them, which is not evaluated.
        let descending =
            ranked.is_sorted_by(|(one, _), (other, _)| wanted[one].0.lower + 1e-9 >= wanted[other].0.lower);
        assert!(descending, "{number}: {ranked:?}");
    }
}

#[tokio::test]
async fn the_served_ranking_is_the_evaluated_ranking() {
    let url = database(true).await;
    let app = start(config(url.clone()), Clock::system()).await;
    let tenant = unique();
    let mut client = client_of(app.address(), &tenant);
    let acts = acts();
    let history = history_of(&acts);
    let known = acts.len() * 3 / 5;
    let [cut, end] = [&acts[known - 1], acts.last().unwrap()].map(|act| act.interaction_time.unwrap());
    let wanted = foretold(&history, cut);
    let came_true = wanted.values().flat_map(BTreeMap::values).filter(|(_, event_after)| event_after.is_some()).count();
    assert!(came_true > 20, "{came_true}");
    for act in &acts[..known] {
        record(&mut client, act.clone()).await;
    }
    assert_served(&mut client, &wanted, cut).await;
    for act in &acts[known..] {
        record(&mut client, act.clone()).await;
    }
    // What happened since changes neither the past nor what is foretold of it.
    assert_served(&mut client, &wanted, cut).await;
    assert_served(&mut client, &foretold(&history, end), end).await;

    let store = Store::new(&url, 2, &DEFAULT).unwrap();
    let mut kept = History::default();
    let id = TenantId::parse_metadata(&tenant).unwrap();
    store.each_act(&id, |key, act| kept.add(&key.actor, &key.recipient, act)).await.unwrap();
    let kept = kept.in_order();
    assert_eq!(kept.len(), history.len());
    for cut in [cut, end] {
        let (found, wanted) = (foretold(&kept, cut), foretold(&history, cut));
        assert!(found.keys().eq(wanted.keys()));
        for (owner, peers) in &wanted {
            assert!(found[owner].keys().eq(peers.keys()), "{owner}");
            for (peer, (interval, event_after)) in peers {
                let (kept, kept_event_after) = found[owner][peer];
                assert!(near(kept, *interval) && kept_event_after == *event_after, "{owner} {peer}");
            }
        }
    }
    store.close().await;
}
