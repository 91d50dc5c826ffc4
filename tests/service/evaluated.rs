//! What is measured is what is served: backtests see histories as the service does, and commands that judge policies say so.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use prost_types::{Duration, Timestamp};
use rapport::{
    domain::{Kind, TenantId},
    evaluation::{History, MIN_CONNECTIONS, MIN_EVENTS, MIN_PERSONS},
    rpc::{self, pb},
    scoring::{Act, DEFAULT, Interval, Policy},
    service::Clock,
    store::Store,
};

use serde_json::Value;

use crate::{
    harness::{Client, after, client_of, config, database, day, document, record, start, unique},
    history::Dice,
    oracle::from_wire,
    program::{Ran, ask, asking, fed, folder, run},
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

/// A file of a made-up history, as `rapport import` takes it: everybody writes to everybody around them now and then, and
/// helps a few of them often.
fn history_file(folder: &Path, persons: u64) -> String {
    let mut dice = Dice::new(7);
    let mut text = String::from("actor\trecipients\ttime\tkind\n");
    for day_number in 0..DAYS as i64 {
        for actor in 0..persons {
            for step in 1..=8.min(persons - 1) {
                let friends = (actor * 5 + step * 3) % 4 == 0;
                if dice.percent(if friends { 12 } else { 3 }) {
                    let kind = if dice.percent(if friends { 60 } else { 5 }) { "HELP" } else { "MESSAGE" };
                    let at = day(FIRST_DAY + day_number).seconds + dice.below(86_400) as i64;
                    let (actor, recipient) = (person(actor), person((actor + step) % persons));
                    writeln!(text, "{actor}\t{recipient}\t{at}\t{kind}").unwrap();
                }
            }
        }
    }
    let file = folder.join(format!("history-{persons}.tsv"));
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

#[test]
fn a_fit_writes_a_policy_and_the_same_one_again() {
    let folder = folder();
    let history = history_file(folder.path(), 26);
    let [one, other] = ["one.json", "other.json"].map(|name| path(folder.path(), name));
    let fit = |output: &str| run(&["fit", &history, "--version", "made-up-1", "--output", output]).expect(0).out;
    let said = fit(&one);
    assert!(said.contains("Rapport made-up-1") && said.contains("Rapport default-1 before"), "{said}");
    assert!(said.ends_with(&format!("The policy is in {one}.\n")), "{said}");
    let document = fs::read_to_string(&one).unwrap();
    let policy = Policy::parse(&document).unwrap();
    assert_eq!((&*policy.version, policy.horizon_days), ("made-up-1", 30.0));
    assert!(policy.weights.iter().all(|weight| *weight >= 0.0), "{:?}", policy.weights);
    assert_ne!(policy.weights, DEFAULT.weights);
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["fit"]["cuts"].as_array().unwrap().len(), 5);
    fit(&other);
    assert_eq!(fs::read(&one).unwrap(), fs::read(&other).unwrap());
    // What a fit writes can be published and judged.
    let tenant = unique();
    let published = ask(&tenant, &["policy", "publish", &one]).expect(0).out;
    assert_eq!(published, "made-up-1 published, and is in use.\n");
}

#[test]
fn too_little_data_is_refused_with_what_is_missing() {
    let folder = folder();
    let history = history_file(folder.path(), 7);
    let output = path(folder.path(), "policy.json");
    let said = run(&["fit", &history, "--output", &output]).expect(1).err;
    let refused = said.lines().last().unwrap();
    assert!(refused.starts_with("rapport: there is too little data to fit on: "), "{said}");
    let numbers: Vec<usize> = refused.split(|letter: char| !letter.is_ascii_digit()).flat_map(str::parse).collect();
    let [persons, events, MIN_PERSONS, MIN_EVENTS, missing @ ..] = &numbers[..] else { panic!("{said}") };
    assert!(*events < MIN_EVENTS, "{said}");
    assert_eq!(missing, [MIN_PERSONS.saturating_sub(*persons), MIN_EVENTS - events], "{said}");
    assert!(!Path::new(&output).exists());
    let short = run(&["fit", &history, "--horizon", "150d", "--output", &output]).expect(1).err;
    let sentence = " is too short to be cut 5 times with 150 days behind each cut; --cuts and --horizon ask for less\n";
    assert!(short.ends_with(sentence), "{short}");
    let empty = path(folder.path(), "empty.csv");
    fs::write(&empty, "").unwrap();
    assert!(run(&["fit", &empty]).expect(1).err.ends_with("empty.csv holds no interactions\n"));
    assert!(run(&["fit"]).expect(1).err.contains("a history is needed"));
    for wrong in [["--version", "fitted 1"], ["--shrink", "-1"], ["--shrink", "NaN"], ["--horizon", "0"]] {
        assert!(run(&[&["fit", &history][..], &wrong].concat()).expect(2).err.contains(wrong[1]));
    }
}

#[test]
fn a_backtest_is_a_table_json_and_a_page() {
    let folder = folder();
    let history = history_file(folder.path(), 26);
    let mine = path(folder.path(), "mine.json");
    fs::write(&mine, document("mine-1")).unwrap();
    let page = path(folder.path(), "report.html");
    let found = run(&["backtest", &history, "--policy", &mine, "--json", "--html", &page]).expect(0);
    let report: Value = serde_json::from_str(&found.out).unwrap();
    for text in ["title", "relevance", "subject", "reference", "policy_version"] {
        assert!(report[text].is_string(), "{text}");
    }
    for number in ["/horizon_days", "/interval_coverage", "/history/persons", "/history/acts", "/history/span_days"] {
        assert!(report.pointer(number).unwrap().is_number(), "{number}");
    }
    assert_eq!((&report["subject"], &report["policy_version"]), (&"Rapport mine-1".into(), &"mine-1".into()));
    let used_for: Vec<&str> =
        report["cuts"].as_array().unwrap().iter().map(|cut| cut["used_for"].as_str().unwrap()).collect();
    assert_eq!(used_for, ["fit", "fit", "report", "report", "report"]);
    let models = report["overall"].as_array().unwrap();
    for model in models {
        for number in ["ndcg10", "map", "auc", "brier", "calibration_error"] {
            assert!((0.0..=1.0).contains(&model[number].as_f64().unwrap()), "{number}: {model}");
        }
    }
    // The same policy under another name does the same.
    let same = models.iter().filter(|model| model["name"].as_str().unwrap().starts_with("Rapport "));
    let same: Vec<&Value> = same.map(|model| &model["ndcg10"]).collect();
    assert_eq!(same.len(), 2);
    assert_eq!(same[0], same[1]);
    let page = fs::read_to_string(page).unwrap();
    assert!(page.starts_with("<!doctype html>") || page.starts_with("<!DOCTYPE html>"), "{page:.100}");
    for foreign in ["<script", "<link", "<img", "<iframe", "http:", "https:", "src=", "url(", "@import"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert!(page.contains("Rapport mine-1") && page.contains("Interactions Rank, tuned"));
    let table = run(&["backtest", &history]).expect(0).out;
    assert!(table.contains("NDCG@10") && table.contains("Real Graph, logistic"), "{table}");
}

#[test]
fn a_policy_with_faults_is_refused_with_every_fault() {
    let folder = folder();
    let history = history_file(folder.path(), 7);
    let faulty = path(folder.path(), "faulty.json");
    let mut document: Value = serde_json::from_str(&document("faulty-1")).unwrap();
    document["horizon_days"] = 0.into();
    document["prior"] = 0.9.into();
    document["weights"]["own_365"] = (-1).into();
    document["weights"]["luck"] = 1.into();
    fs::write(&faulty, document.to_string()).unwrap();
    for arguments in [["backtest", &history, "--policy", &faulty], ["fit", &history, "--start", &faulty]] {
        let said = run(&arguments).expect(1).err;
        assert!(said.starts_with(&format!("rapport: {faulty} is no policy: ")), "{said}");
        for fault in ["horizon_days must", "prior must", "weights.own_365 must", "weights.luck is not a term"] {
            assert!(said.contains(fault), "{said}");
        }
    }
    fs::write(&faulty, "{").unwrap();
    let said = run(&["backtest", &history, "--policy", &faulty]).expect(1).err;
    assert!(said.contains(" is no policy: EOF while parsing"), "{said}");
}

/// The document of a policy that looks at nothing but whether there was anything lately.
fn blind(version: &str) -> String {
    let mut blind: Value = serde_json::from_str(&document(version)).unwrap();
    blind["weights"] = serde_json::json!({});
    blind.to_string()
}

#[test]
fn a_policy_that_ranks_worse_is_not_published() {
    let (tenant, folder) = (unique(), folder());
    let history = history_file(folder.path(), 26);
    let publish = |document: &str, flags: &[&str]| -> Ran {
        let arguments = [&["policy", "publish", "-", "--history", &history], flags].concat();
        fed(asking(&tenant, &arguments), document.as_bytes())
    };
    let refused = publish(&blind("blind-1"), &[]).expect(1);
    let sentence =
        format!("rapport: Rapport blind-1 ranks {history} worse than Rapport default-1, in use: NDCG@10 of 0.");
    let said = refused.err.lines().last().unwrap();
    assert!(said.starts_with(&sentence) && said.ends_with("; --force publishes it all the same"), "{said}");
    for column in ["NDCG@10", "Brier", "calibration", "Rapport blind-1", "Rapport default-1, in use"] {
        assert!(refused.out.contains(column), "{}", refused.out);
    }
    let listed = ask(&tenant, &["policy", "list"]).expect(0).out;
    assert!(!listed.contains("blind-1"), "{listed}");
    let checked = publish(&blind("blind-1"), &["--validate-only", "--json"]).expect(1);
    assert_eq!(checked.out, "");
    // The one in use is the one compared with: what is as good as that is published, and so is what is forced.
    let forced = publish(&blind("blind-1"), &["--force"]).expect(0).out;
    assert!(forced.ends_with("blind-1 published, and is in use.\n"), "{forced}");
    let better: Value = serde_json::from_str(&publish(&document("good-1"), &["--json"]).expect(0).out).unwrap();
    let compared = better["comparison"].as_array().unwrap();
    assert_eq!((compared.len(), &compared[1]["name"]), (2, &"Rapport blind-1, in use".into()));
    assert!(compared[0]["ndcg10"].as_f64() > compared[1]["ndcg10"].as_f64());
    assert_eq!(better["policy"]["inUse"], true);
    let again = publish(&document("good-1"), &["--cuts", "3", "--horizon", "20"]).expect(0).out;
    assert!(
        again.starts_with(&format!("Rapport good-1 ranks {history} as well as Rapport good-1, in use.\n")),
        "{again}"
    );
    assert!(again.ends_with("good-1 was published before, and is in use.\n"), "{again}");
}

#[test]
fn a_comparison_that_cannot_be_made_is_no_consent() {
    let (tenant, folder) = (unique(), folder());
    let few = history_file(folder.path(), 4);
    let file = path(folder.path(), "new.json");
    fs::write(&file, document("new-1")).unwrap();
    let publish = |flags: &[&str]| ask(&tenant, &[&["policy", "publish", &file][..], flags].concat());
    let said = publish(&["--history", &few]).expect(1).err;
    assert!(said.contains("cannot tell them apart") && said.contains("; --force publishes it"), "{said}");
    assert!(publish(&["--history", "/nowhere/history.tsv"]).expect(1).err.contains("/nowhere/history.tsv"));
    let both = fed(asking(&tenant, &["policy", "publish", "-", "--history", "-"]), b"").expect(1).err;
    assert_eq!(both, "rapport: the policy and the history cannot both be read from standard input\n");
    for flags in [&["--force"][..], &["--horizon", "20"], &["--kind", "HELP"]] {
        assert!(publish(flags).expect(2).err.contains("--history"));
    }
    assert!(publish(&["--history", &few, "--force"]).expect(0).out.ends_with("new-1 published, and is in use.\n"));
}
