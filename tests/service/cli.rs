//! The other commands: what they print, how they explain themselves, how they fail.

use std::{net::TcpListener, os::unix::process::CommandExt as _, process::Stdio};

use rapport::domain::Kind;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};

use crate::{
    harness::{act, address, after, client_of, connection, database, day, rank, record, unique},
    program::{Ran, Running, ask, program, run},
};

const COMMANDS: [&str; 10] =
    ["serve", "migrate", "import", "rank", "show", "policy", "keys", "doctor", "rebuild", "completions"];
/// 2026-02-10.
const AS_OF: &str = "1770681600";

/// A tenant in which `ada` knows three people, and its ranking as the API gives it.
async fn people() -> String {
    let tenant = unique();
    let mut client = client_of(address(), &tenant);
    for number in 0..6 {
        record(&mut client, act(Kind::Help, "bob", "ada", day(number))).await;
        record(&mut client, act(Kind::Help, "ada", "bob", after(day(number), 60))).await;
    }
    let mut idea = act(Kind::Idea, "cleo", "ada", day(30));
    (idea.channel, idea.topics) = ("forum".to_owned(), vec!["rust".to_owned()]);
    record(&mut client, idea).await;
    record(&mut client, act(Kind::Message, "ada", &"d".repeat(128), day(20))).await;
    tenant
}

fn json(ran: Ran) -> Value {
    serde_json::from_str(&ran.expect(0).out).unwrap()
}

/// The peers of a ranking, by its JSON.
fn peers(tenant: &str, arguments: &[&str]) -> Vec<String> {
    let answer = json(ask(tenant, &[&["rank", "ada", "--as-of", AS_OF, "--json"], arguments].concat()));
    let connections = answer["connections"].as_array().unwrap();
    connections.iter().map(|connection| connection["peer"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn rank_and_show_say_what_the_api_says() {
    let tenant = people().await;
    let mut client = client_of(address(), &tenant);
    let ranked = rank(&mut client, "ada", day(40)).await;
    let answer = json(ask(&tenant, &["rank", "ada", "--as-of", "2026-02-10T00:00:00Z", "--json"]));
    assert_eq!(answer["asOfTime"], "2026-02-10T00:00:00Z");
    for (shown, given) in answer["connections"].as_array().unwrap().iter().zip(&ranked) {
        assert_eq!(shown["peer"], given.peer);
        assert_same(&shown["mutual"]["lower"], given.mutual.unwrap().lower);
        assert_eq!(shown["status"], given.status().as_str_name());
    }
    assert_eq!(ranked.len(), 3);
    let bob = connection(&mut client, "ada", "bob", day(40)).await;
    let shown = &json(ask(&tenant, &["show", "ada", "bob", "--as-of", AS_OF, "--json"]))["connection"];
    assert_same(&shown["theyWouldHelp"]["probability"], bob.they_would_help.unwrap().probability);
    assert_eq!(shown["reasons"].as_array().unwrap().len(), bob.reasons.len());
    assert_eq!(shown["theirInteractionCounts"][0]["count"], "6");
}

/// Folding between two answers may change the last digits.
fn assert_same(shown: &Value, given: f64) {
    let shown = shown.as_f64().unwrap();
    assert!((shown - given).abs() <= 1e-9 * given.abs(), "{shown} and {given}");
}

#[tokio::test]
async fn tables_stay_aligned_whatever_the_ids() {
    let tenant = people().await;
    let table = ask(&tenant, &["rank", "ada", "--as-of", AS_OF]).expect(0).out;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2 + 3, "{table}");
    let place = lines[0].chars().count() - "peer".len();
    assert!(place <= 75 && lines[0].ends_with("peer") && lines[1].starts_with('─'), "{table}");
    for (line, peer) in lines[2..].iter().zip(rank(&mut client_of(address(), &tenant), "ada", day(40)).await) {
        assert_eq!(line.chars().skip(place).collect::<String>(), peer.peer, "{table}");
        let lower = format!("{:.2}", peer.mutual.unwrap().lower);
        assert!(line.contains(&lower), "{table}");
    }
    let shown = ask(&tenant, &["show", "ada", "bob", "--as-of", AS_OF]).expect(0).out;
    for text in ["bob: ", "mutual 0.", "they would help: 0.", "you would help: 0.", "PRIOR", "HELP", "adds  meaning"] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    let around: Vec<&str> = shown.lines().filter(|line| line.starts_with("AROUND")).collect();
    assert!(around.iter().any(|line| line.contains("they are around")), "{shown}");
    assert!(around.iter().any(|line| line.contains("you are around")), "{shown}");
    assert!(
        shown.lines().any(|line| line.starts_with("PRIOR         NOBODY") || line.starts_with("PRIOR       NOBODY"))
    );
    assert!(
        ask(&tenant, &["rank", "ada", "--as-of", AS_OF, "--limit", "1"]).out.ends_with("--limit shows up to 1000.\n")
    );
}

#[tokio::test]
async fn every_flag_of_rank_is_heeded() {
    let tenant = people().await;
    let long = "d".repeat(128);
    assert_eq!(peers(&tenant, &[])[0], "bob");
    assert_eq!(peers(&tenant, &["--order", "last"]), ["cleo", &long, "bob"]);
    assert_eq!(peers(&tenant, &["--order", "they"])[0], "bob");
    assert_eq!(peers(&tenant, &["--order", "you"])[0], "bob");
    assert_eq!(peers(&tenant, &["--limit", "1"]), ["bob"]);
    assert_eq!(peers(&tenant, &["--channel", "forum"]), ["cleo"]);
    assert_eq!(peers(&tenant, &["--topic", "rust", "--topic", "go"]), ["cleo"]);
    assert_eq!(peers(&tenant, &["--minimum-score", "1"]), [""; 0]);
    let statuses = ["unknown", "one-sided", "budding", "real", "fading", "broken"];
    let each: usize = statuses.map(|status| peers(&tenant, &["--status", status]).len()).iter().sum();
    assert_eq!(each, 3);
    let all: Vec<&str> = statuses.iter().flat_map(|status| ["--status", status]).collect();
    assert_eq!(peers(&tenant, &all).len(), 3);
    let server = format!("http://{}", address());
    let elsewhere = ["rank", "ada", "--tenant", &unique(), "--server", &server];
    assert!(run(&elsewhere).expect(0).out.starts_with("Nobody with the id ada is known"));
    assert!(run(&["rank", &unique(), "--server", &server]).expect(0).out.contains(" is known in tenant default: "));
    let filtered = ["rank", "ada", "--as-of", "2026-02-10", "--channel", "nowhere", "--minimum-score", "1"];
    let expected = "matches --channel, --minimum-score up to 2026-02-10T00:00:00Z.\n";
    assert_eq!(ask(&tenant, &filtered).expect(0).out, format!("No connection of ada in tenant {tenant} {expected}"));
}

#[tokio::test]
async fn old_data_are_told_with_the_time_to_ask_about() {
    let tenant = unique();
    let mut client = client_of(address(), &tenant);
    for days in 0..20 {
        // Up to 2018-03-31, in the evening.
        let time = prost_types::Timestamp { seconds: 1_522_522_800 - days * 86_400, nanos: 0 };
        record(&mut client, act(Kind::Help, "bob", "ada", time)).await;
        record(&mut client, act(Kind::Help, "ada", "bob", time)).await;
    }
    let note = "All of these fade, as the latest interaction was on 2018-03-31; --as-of 2018-04-01 asks as of then.\n";
    let told = ask(&tenant, &["rank", "ada"]).expect(0).out;
    assert!(told.contains("FADING") && told.ends_with(note), "{told}");
    let then = ask(&tenant, &["rank", "ada", "--as-of", "2018-04-01"]).expect(0).out;
    assert!(then.contains("REAL") && !then.contains("All of these"), "{then}");
    assert!(!ask(&tenant, &["rank", "ada", "--status", "fading"]).expect(0).out.contains("All of these"));
    assert!(json(ask(&tenant, &["rank", "ada", "--json"]))["connections"][0]["peer"] == "bob");
}

#[test]
fn hints_name_the_program_as_it_was_typed() {
    let mut command = program(&["rank", "ada", "--server", "http://127.0.0.1:1"]);
    let told = Ran::from(command.arg0("target/debug/rapport").output().unwrap()).expect(1).err;
    assert!(told.ends_with("; `target/debug/rapport serve` starts one\n"), "{told}");
}

#[test]
fn a_switch_is_taken_in_every_form() {
    for (form, is_wrong) in
        [(&["--insecure=false"][..], true), (&["--insecure", "false"], true), (&["--insecure"], false)]
    {
        let settings = [&["doctor", "--listen", "0.0.0.0:1", "--data-dir", "/dev/null/none"], form].concat();
        let told = run(&settings).expect(3).out;
        assert_eq!(told.contains("must be a loopback address"), is_wrong, "{form:?}: {told}");
    }
    let perhaps = run(&["serve", "--insecure", "perhaps"]).expect(2).err;
    assert!(perhaps.contains("unexpected argument 'perhaps'"), "{perhaps}");
}

#[tokio::test]
async fn strangers_are_no_failure() {
    let tenant = unique();
    let told = ask(&tenant, &["rank", "nobody"]).expect(0).out;
    assert_eq!(told, format!("Nobody with the id nobody is known in tenant {tenant}: check the id and --tenant.\n"));
    let told = ask(&tenant, &["rank", "nobody", "--as-of", "2018-09-02", "--status", "real"]).expect(0).out;
    let expected = "up to 2018-09-02T00:00:00Z: check the id, --as-of and --tenant.";
    assert_eq!(told, format!("Nobody with the id nobody is known in tenant {tenant} {expected}\n"));
    assert_eq!(json(ask(&tenant, &["rank", "nobody", "--json"]))["connections"], Value::Array(Vec::new()));
    let shown = ask(&tenant, &["show", "nobody", "noone"]).expect(0).out;
    assert!(shown.starts_with("noone: UNKNOWN\n") && shown.contains("PRIOR"), "{shown}");
    let expected = format!("\nno interaction of nobody and noone is known in tenant {tenant}; the figures are those");
    assert!(shown.contains(&expected), "{shown}");
    assert_eq!(json(ask(&tenant, &["show", "a", "b", "--json"]))["connection"]["lastInteractionTime"], Value::Null);
}

#[tokio::test]
async fn failures_are_one_clear_sentence() {
    let tenant = unique();
    let refused = ask(&tenant, &["show", "ada", "ada"]).expect(1);
    assert_eq!(refused.err, "rapport: the server refused: peer must not be the person itself\n");
    let nobody = run(&["rank", "ada", "--server", "http://127.0.0.1:1"]).expect(1);
    assert_eq!(nobody.err, "rapport: no Rapport server answers at http://127.0.0.1:1; `rapport serve` starts one\n");
    for server in ["nowhere", "127.0.0.1:50051", "ftp://127.0.0.1"] {
        let ran = run(&["rank", "ada", "--server", server]).expect(1);
        assert!(ran.err.starts_with("rapport: --server must be an address such as http://"), "{ran:?}");
    }
    assert_eq!(run(&["rank", "ada", "--tenant", "ä"]).expect(1).err, "rapport: --tenant must be visible ASCII\n");
    let wrong: [&[&str]; 9] = [
        &[],
        &["nope"],
        &["rank"],
        &["show", "ada"],
        &["rank", "ada", "--order", "best"],
        &["rank", "ada", "--limit", "1001"],
        &["rank", "ada", "--minimum-score", "1.1"],
        &["rank", "ada", "--as-of", "yesterday"],
        &["serve", "--nope"],
    ];
    for arguments in wrong {
        assert!(!run(arguments).expect(2).err.is_empty());
    }
}

#[test]
fn every_command_explains_itself() {
    for command in COMMANDS {
        // However it is wrapped.
        let help = run(&[command, "--help"]).expect(0).out.split_whitespace().collect::<Vec<_>>().join(" ");
        let is_set = |flag: &str, words: &[&str]| {
            assert!(words.iter().all(|word| help.contains(word)), "{command} {flag}: {help}");
        };
        match command {
            "serve" => is_set("--listen", &["RAPPORT_LISTEN", "127.0.0.1:50051", "DATABASE_URL", "RAPPORT_INSECURE"]),
            "migrate" | "doctor" | "rebuild" => is_set("--data-dir", &["DATABASE_URL", "RAPPORT_DATA_DIR"]),
            "policy" => is_set("actions", &["publish", "list", "show", "rollback"]),
            "keys" => is_set("actions", &["new", "access file"]),
            "completions" => is_set("SHELL", &["bash", "zsh", "fish"]),
            _ => is_set("--server", &["RAPPORT_SERVER", "[default: http://127.0.0.1:50051]", "RAPPORT_TENANT"]),
        }
    }
    let help = run(&["--help"]).expect(0).out;
    assert!(COMMANDS.iter().all(|command| help.contains(command)), "{help}");
    assert!(help.contains("Exit codes: 0 done") && help.contains("RAPPORT_LOG_FORMAT"), "{help}");
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(&["completions", shell]).expect(0).out.contains("minimum-score"));
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let mut child = program(&["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(Ran::from(child.wait_with_output().unwrap()).expect(0).err, "");
    // A full disk is one.
    let Ok(full) = std::fs::File::options().write(true).open("/dev/full") else { return };
    let ran = Ran::from(program(&["completions", "bash"]).stdout(full).output().unwrap()).expect(1);
    assert!(ran.err.starts_with("rapport: cannot write the result: No space left"), "{ran:?}");
}

#[test]
fn wrong_settings_are_all_reported_at_once() {
    let serve = |arguments: &[&str], settings: &[(&str, &str)]| {
        let mut command = program(&[&["serve"], arguments].concat());
        Ran::from(command.envs(settings.iter().copied()).output().unwrap()).expect(1).err
    };
    let faults = serve(
        &[],
        &[
            ("DATABASE_URL", "mysql://a:secret@b/c"),
            ("RAPPORT_LISTEN", "nowhere"),
            ("RAPPORT_INSECURE", "perhaps"),
            ("RAPPORT_MAX_CONNECTIONS", "1"),
            ("RAPPORT_FUTURE_LIMIT_SECONDS", "-1"),
            ("RAPPORT_DRAIN_LIMIT_SECONDS", "soon"),
        ],
    );
    let named: Vec<&str> =
        faults.trim_start_matches("rapport: ").lines().filter_map(|line| line.split(' ').next()).collect();
    let expected = [
        "RAPPORT_LISTEN",
        "RAPPORT_INSECURE",
        "RAPPORT_FUTURE_LIMIT_SECONDS",
        "RAPPORT_DRAIN_LIMIT_SECONDS",
        "DATABASE_URL",
        "RAPPORT_MAX_CONNECTIONS",
    ];
    assert_eq!(named, expected, "{faults}");
    assert!(!faults.contains("secret"));
    assert!(serve(&["--listen", "x"], &[]).starts_with("rapport: --listen must be an IP address with a port"));
    assert!(serve(&["--listen", "0.0.0.0:0"], &[]).contains("--insecure or RAPPORT_INSECURE=true allows anybody to"));
    assert!(serve(&[], &[("RAPPORT_LOG", ",,=")]).starts_with("rapport: RAPPORT_LOG must be a log filter such as"));
    assert!(
        serve(&[], &[("RAPPORT_LOG_FORMAT", "xml")]).starts_with("rapport: RAPPORT_LOG_FORMAT must be pretty or json")
    );
    for files in [&["--access-file", "a"][..], &["--tls-certificate", "c", "--tls-key", "k"]] {
        assert!(serve(&[&["--sample"], files].concat(), &[]).starts_with("rapport: --sample is for trying out"));
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let url = ("DATABASE_URL", "postgresql://127.0.0.1:1/none");
    let sentence = serve(&["--listen", &taken], &[url]);
    assert!(sentence.starts_with(&format!("rapport: cannot listen on {taken}: Address already in use")), "{sentence}");
    assert!(sentence.ends_with("; --listen names another address\n"), "{sentence}");
    for flag in ["--health-listen", "--metrics-listen"] {
        let sentence = serve(&["--listen", "127.0.0.1:0", flag, &taken], &[url]);
        assert!(sentence.ends_with(&format!("; {flag} names another address\n")), "{sentence}");
    }
}

#[tokio::test]
async fn the_ledger_is_the_truth_that_rebuild_goes_by() {
    let url = database(false).await;
    let command = |arguments: &[&str]| {
        let mut command = program(arguments);
        command.env("DATABASE_URL", &url).stderr(Stdio::piped());
        command
    };
    let on_database = |arguments: &[&str]| Ran::from(command(arguments).output().unwrap());
    let early = on_database(&["rebuild", "--check"]).expect(1);
    assert!(
        early.err.contains("the database schema has version 0") && early.err.contains("rapport migrate"),
        "{early:?}"
    );
    for _ in 0..2 {
        assert_eq!(on_database(&["migrate"]).expect(0).out, "The schema is up to date.\n");
    }
    let (_server, address) = Running::serve(command(&["serve", "--listen", "127.0.0.1:0"]));
    crate::harness::ready(address).await;
    let mut client = client_of(address, "t");
    for number in 0..5 {
        record(&mut client, act(Kind::Help, "bob", "ada", day(number))).await;
    }
    let before = rank(&mut client, "ada", day(40)).await;
    let well = on_database(&["rebuild", "--check"]).expect(0).out;
    assert_eq!(well, "1 ties and 2 rhythms derived from the ledger.\nNo difference.\n");
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("UPDATE tie SET evidence[1] = 99; DELETE FROM rhythm").execute(&mut connection).await.unwrap();
    for _ in 0..2 {
        let found = on_database(&["rebuild", "--check"]).expect(3).out;
        assert!(found.contains("1 in table tie: wrong\n2 in table rhythm: missing\nNothing was changed.\n"), "{found}");
    }
    assert!(on_database(&["rebuild"]).expect(3).out.ends_with("All put right.\n"));
    assert!(on_database(&["rebuild"]).expect(0).out.ends_with("No difference.\n"));
    assert_eq!(rank(&mut client, "ada", day(40)).await, before);
    let mut unreachable = program(&["migrate"]);
    unreachable.env("DATABASE_URL", "postgresql://a:secret@127.0.0.1:1/none");
    let ran = Ran::from(unreachable.output().unwrap()).expect(1);
    let place = "rapport: cannot reach the database none at 127.0.0.1:1 as role a: Connection refused";
    assert!(ran.err.starts_with(place) && ran.err.contains("; see that PostgreSQL runs there"), "{ran:?}");
    assert!(!ran.err.contains("secret"));
    let ran = on_database(&["migrate", "--grant-to", "no_such_role"]).expect(1);
    assert_eq!(ran.err, "rapport: the database has no role no_such_role; CREATE ROLE makes one\n");
}
