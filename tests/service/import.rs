//! `rapport import`: every format, every sort of bad line.

use std::{fs, io::Write as _, process::Command};

use flate2::{Compression, write::GzEncoder};
use rapport::{domain::Kind, rpc::pb};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    harness::{act, address, client_of, connection, record, unique},
    program::{Ran, ask, asking, fed, folder},
};

/// A folder to import from, and a tenant to import into.
struct Place {
    folder: TempDir,
    tenant: String,
}

impl Place {
    fn new() -> Self {
        Self { folder: folder(), tenant: unique() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = asking(&self.tenant, &[&["import"], arguments].concat());
        command.current_dir(self.folder.path());
        command
    }

    /// Imports a file of that content.
    fn import(&self, name: &str, content: impl AsRef<[u8]>, arguments: &[&str]) -> Ran {
        fs::write(self.folder.path().join(name), content).unwrap();
        self.command(&[&[name], arguments].concat()).output().unwrap().into()
    }

    /// What was rejected: line number, reason and text.
    fn rejects(&self, name: &str) -> Vec<(i64, String, String)> {
        let text = fs::read_to_string(self.folder.path().join(name)).unwrap();
        let text_of = |value: &Value, name: &str| value[name].as_str().unwrap().to_owned();
        let row = |value: Value| (value["line"].as_i64().unwrap(), text_of(&value, "reason"), text_of(&value, "text"));
        text.lines().map(|line| row(serde_json::from_str(line).unwrap())).collect()
    }

    /// Whether exactly this is recorded: recording it again is a replay, where any other content is a conflict.
    async fn holds(&self, interaction: pb::Interaction) {
        assert!(record(&mut client_of(address(), &self.tenant), interaction).await.replayed);
    }
}

/// How many lines were recorded, had been before, were toward oneself, and were rejected.
pub fn totals(out: &str) -> [u64; 4] {
    let numbers: Vec<u64> = out.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    numbers[..4].try_into().unwrap()
}

fn gzip(content: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// An interaction that is the same whichever way it is written.
fn full() -> pb::Interaction {
    pb::Interaction {
        interaction_id: "full".to_owned(),
        recipients: vec!["cleo".to_owned(), "dan, jr".to_owned()],
        effort: Some(prost_types::Duration { seconds: 5400, nanos: 0 }),
        audience_count: 7,
        channel: "email".to_owned(),
        topics: vec!["a".to_owned(), "b".to_owned()],
        goal: "learn \"rust\"".to_owned(),
        unprompted: true,
        due_time: Some(prost_types::Timestamp { seconds: 1_520_960_000, nanos: 0 }),
        refers_to: "other".to_owned(),
        ..act(Kind::Promise, "bob", "", prost_types::Timestamp { seconds: 1_520_874_886, nanos: 500_000_000 })
    }
}

const TSV: &str = "id\tactor\trecipients\ttime\tkind\teffort_minutes\taudience_count\tchannel\ttopics\tgoal\tunprompted\t\
                   due_time\trefers_to\textra\n\
                   full\tbob\tcleo;dan, jr\t1520874886.5\tPROMISE\t90\t7\temail\ta;b\tlearn \"rust\"\ttrue\t1520960000\t\
                   other\tx\n";
const CSV: &str = "\u{feff}id,actor,recipients,time,kind,effort_minutes,audience_count,channel,topics,goal,unprompted,\
                   due_time,refers_to,extra\r\n\r\n\
                   full,\"bob\",\"cleo;dan, jr\",2018-03-12T17:14:46.5Z,promise,90,7,email,a;b,\"learn \"\"rust\"\"\",True,\
                   2018-03-13T16:53:20Z,other,\"several\r\nlines\"\r\n";
const OWN_JSON: &str = r#"{"id":"full","actor":"bob","recipients":["dan, jr","cleo"],"time":1520874886.5,"kind":"PROMISE",
"effort_minutes":90,"audience_count":7,"channel":"email","topics":["b","a"],"goal":"learn \"rust\"","unprompted":true,
"due_time":1520960000,"refers_to":"other","extra":{}}"#;
const API_JSON: &str = r#"{"interactionId":"full","actor":"bob","recipients":["cleo","dan, jr"],
"interactionTime":"2018-03-12T18:14:46.5+01:00","kind":"INTERACTION_KIND_PROMISE","effort":"5400s","audienceCount":"7",
"channel":"email","topics":["a","b"],"goal":"learn \"rust\"","unprompted":true,"dueTime":"2018-03-13T16:53:20Z",
"refersTo":"other"}"#;

#[tokio::test]
async fn every_format_says_the_same() {
    let one_line = |json: &str| json.replace('\n', "") + "\n";
    let files = [
        ("a.tsv", "tsv", TSV.to_owned()),
        ("a.csv", "csv", CSV.to_owned()),
        ("own.jsonl", "jsonl", one_line(OWN_JSON)),
        ("api.ndjson", "jsonl", one_line(API_JSON)),
    ];
    for (name, format, content) in files {
        let place = Place::new();
        let ran = place.import(name, &content, &[]).expect(0);
        assert_eq!(totals(&ran.out), [1, 0, 0, 0], "{name}: {ran:?}");
        place.holds(full()).await;
        let ran = place.import(&format!("{name}.gz"), gzip(&content), &[]).expect(0);
        assert_eq!(totals(&ran.out), [0, 1, 0, 0], "{name}: {ran:?}");
        let ran = fed(place.command(&["-", "--format", format]), &gzip(&content)).expect(0);
        assert_eq!(totals(&ran.out), [0, 1, 0, 0], "{name}: {ran:?}");
        let ran = fed(place.command(&["-", "--format", format]), content.as_bytes()).expect(0);
        assert_eq!(totals(&ran.out), [0, 1, 0, 0], "{name}: {ran:?}");
    }
}

#[tokio::test]
async fn columns_kinds_and_defaults_are_mapped() {
    let place = Place::new();
    let content = "nr\tsrc\tid\tts_unix\twhat\nx\tbob\tada\t1520874886\tanswer\nx\tbob\tada\t1520874887\t\n";
    let columns = ["--columns", "actor=src,recipients=id,time=ts_unix,kind=what"];
    let arguments = [&columns[..], &["--kinds", "answer=HELP", "--kind", "message", "--channel", "forum"]].concat();
    let ran = place.import("a.tsv", content, &arguments).expect(0);
    assert_eq!(totals(&ran.out), [2, 0, 0, 0]);
    let later = prost_types::Timestamp { seconds: 1_520_960_000, nanos: 0 };
    let mut client = client_of(address(), &place.tenant);
    let kinds = connection(&mut client, "ada", "bob", later).await.their_interaction_counts;
    assert_eq!(kinds.iter().map(|count| (count.kind, count.count)).collect::<Vec<_>>(), [(2, 1), (6, 1)]);
    let ranked = ask(&place.tenant, &["rank", "ada", "--as-of", "1520960000", "--channel", "forum"]);
    assert!(ranked.expect(0).out.contains("bob"));
}

#[tokio::test]
async fn an_effort_is_a_number_of_minutes_or_a_duration() {
    for (column, effort, seconds) in
        [("effort", "2700s", 2700), ("effort", "45m", 2700), ("effort", "1h30m", 5400), ("effort_minutes", "45", 2700)]
    {
        let place = Place::new();
        let content = format!("id,actor,recipient,time,kind,{column}\nhelp,bob,ada,2018-03-12,HELP,{effort}\n");
        assert_eq!(totals(&place.import("a.csv", content, &[]).expect(0).out), [1, 0, 0, 0]);
        // The start of that day.
        let time = prost_types::Timestamp { seconds: 1_520_812_800, nanos: 0 };
        let effort = Some(prost_types::Duration { seconds, nanos: 0 });
        let help = act(Kind::Help, "bob", "ada", time);
        place.holds(pb::Interaction { interaction_id: "help".to_owned(), effort, ..help }).await;
    }
}

#[test]
fn a_file_without_interactions_is_a_finding() {
    let place = Place::new();
    for (name, content) in [("a.csv", ""), ("a.csv", "actor,recipient,time,kind\n"), ("a.jsonl", "\n\n")] {
        let ran = place.import(name, content, &[]).expect(3);
        let expected = format!("{name} holds no interactions: it is empty, or has nothing below its heading.\n");
        assert_eq!((ran.out, ran.err), (expected, String::new()));
    }
    let ran = fed(place.command(&["-", "--format", "jsonl"]), b"").expect(3);
    assert!(ran.out.starts_with("stdin holds no interactions"), "{ran:?}");
}

#[tokio::test]
async fn importing_again_records_nothing_twice() {
    let place = Place::new();
    // Equal lines are different acts.
    let content = "actor,recipient,time,kind\nbob,ada,1520874886,HELP\nbob,ada,1520874886,HELP\n";
    assert_eq!(totals(&place.import("a.csv", content, &[]).expect(0).out), [2, 0, 0, 0]);
    let again = place.import("a.csv", content, &[]).expect(0);
    assert_eq!(totals(&again.out), [0, 2, 0, 0]);
    assert!(again.out.starts_with("0 recorded, 2 had been before"), "{again:?}");
    assert_eq!(totals(&place.import("a.csv.gz", gzip(content), &[]).expect(0).out), [0, 2, 0, 0]);
    assert_eq!(totals(&place.import("b.csv", content, &["--id-prefix", "a.csv"]).expect(0).out), [0, 2, 0, 0]);
    assert_eq!(totals(&place.import("b.csv", content, &[]).expect(0).out), [2, 0, 0, 0]);
}

#[tokio::test]
async fn a_time_is_the_same_to_the_microsecond_as_a_number_and_as_a_text() {
    let place = Place::new();
    // As other programs write a floating-point number: with as many digits as it takes.
    let times: Vec<String> =
        (0..1000).map(|number| (1_520_874_886.0 + f64::from(number) * 0.000_487_3).to_string()).collect();
    let lines = |line: &dyn Fn(usize, &str) -> String| -> String {
        times.iter().enumerate().map(|(number, time)| line(number, time) + "\n").collect()
    };
    let json = lines(&|id, time| format!(r#"{{"id":{id},"actor":"a","recipients":"b","time":{time},"kind":"HELP"}}"#));
    let csv = "id,actor,recipient,time,kind\n".to_owned() + &lines(&|id, time| format!("{id},a,b,{time},HELP"));
    assert_eq!(totals(&place.import("a.jsonl", json, &[]).expect(0).out), [1000, 0, 0, 0]);
    assert_eq!(totals(&place.import("a.csv", csv, &[]).expect(0).out), [0, 1000, 0, 0]);
}

#[tokio::test]
async fn bad_lines_are_kept_aside_with_the_reason_and_all_others_are_recorded() {
    let place = Place::new();
    let long = "x".repeat(129);
    let too_long = "x".repeat((1 << 20) + 1);
    let too_large = format!("i7,a,b,1,HELP,{}", "x".repeat((1 << 20) - 20));
    let lines = [
        ("i1,a,b,1,HELP,", None),
        ("i2,a,b,1,HELP", Some("the line has 5 columns, and the heading 6")),
        ("i3,a,b,1,NOPE,", Some("kind is not known")),
        ("i4,a,b,soon,HELP,", Some("time: a time is written as")),
        ("i5,a,a,1,HELP,", None),
        (&*too_long, Some("the line is longer than 1 MiB")),
        (&*too_large, Some("the interaction is larger than the server takes in")),
        (&*format!("{long},a,b,1,HELP,"), Some("interaction.interaction_id must be at most 128 bytes long")),
        ("i1,a,c,1,HELP,", Some("this interaction_id was recorded before with other content")),
        ("i8,,b,1,HELP,", Some("interaction.actor must not be empty")),
        ("i9,a,,1,HELP,", Some("interaction.recipients must name 1 to 100 persons")),
        ("i10,a,b,,HELP,", Some("interaction.interaction_time must be a time")),
        ("i11,a,b,1,,", Some("the line names no kind")),
        ("i12,a,b;a,1,HELP,", Some("interaction.recipients[1] must not be the actor")),
        ("", None),
        ("i13,a,b,1,HELP,", None),
        ("i14,a,b,1,HELP,\"open", Some("a quoted field has no end")),
    ];
    let mut content = "id,actor,recipient,time,kind,topics\n".to_owned().into_bytes();
    content.extend(lines.map(|(line, _)| line).join("\n").into_bytes());
    let ran = place.import("a.csv", content, &[]).expect(3);
    assert_eq!(totals(&ran.out), [2, 0, 1, 13], "{ran:?}");
    assert!(ran.out.contains("13 rejected into a.csv.rejects.jsonl"), "{ran:?}");
    let first = "the first line that was rejected is line 3: the line has 5 columns, and the heading 6\n";
    assert!(ran.err.ends_with(first), "{ran:?}");
    let expected: Vec<_> =
        (2..).zip(lines).filter_map(|(number, (line, reason))| Some((number, line, reason?))).collect();
    let rejects = place.rejects("a.csv.rejects.jsonl");
    assert_eq!(rejects.len(), expected.len());
    for ((number, reason, text), (line_number, line, expected)) in rejects.iter().zip(expected) {
        assert_eq!(*number, line_number);
        assert!(reason.contains(expected), "{number}: {reason}");
        // Of a line that is too long, as much is kept as is read.
        assert!(line.starts_with(text) && text.len() >= line.len().min(1 << 20), "{number}");
    }
}

#[tokio::test]
async fn bad_json_and_bad_text_are_kept_aside() {
    let place = Place::new();
    let sound = r#"{"actor":1,"recipients":[2,3],"time":1,"kind":"HELP"}"#;
    let lines = [
        ("{", "the line is not a JSON object"),
        ("[1]", "the line is not a JSON object"),
        (r#"{"actor":["a","b"],"recipients":"c","time":1,"kind":"HELP"}"#, "actor must be one value"),
        (r#"{"actor":{},"recipients":"c","time":1,"kind":"HELP"}"#, "actor must be a text"),
        // As a floating-point number this would be somebody else.
        (
            r#"{"actor":12345678901234567890123,"recipients":"c","time":1,"kind":"HELP"}"#,
            "actor must be a text, or a whole",
        ),
        (r#"{"actor":"a","recipients":"c","time":-1,"kind":"HELP"}"#, "time: a time is written as"),
        (r#"{"actor":"a","recipients":"c","time":1,"kind":"HELP","effort":"1d"}"#, "effort must be a duration such as"),
        (r#"{"actor":"a","recipients":"c","time":1,"kind":"HELP","unprompted":2}"#, "unprompted must be true or false"),
    ];
    let mut content = lines.map(|(line, _)| line).join("\n").into_bytes();
    content.extend(b"\n\xff{}\n");
    content.extend(sound.as_bytes());
    let ran = place.import("a.jsonl", content, &["--rejects", "bad.jsonl"]).expect(3);
    assert_eq!(totals(&ran.out), [1, 0, 0, 9], "{ran:?}");
    let rejects = place.rejects("bad.jsonl");
    for ((number, reason, text), (line, expected)) in rejects.iter().zip(lines) {
        assert!(reason.contains(expected) && text == line, "{number}: {reason}");
    }
    assert_eq!((rejects[8].0, &*rejects[8].1, &*rejects[8].2), (9, "the line is not UTF-8", "\u{fffd}{}"));
    let ranked = ask(&place.tenant, &["rank", "1", "--as-of", "2", "--json"]).expect(0);
    assert!(ranked.out.contains(r#""peer": "2""#) && ranked.out.contains(r#""peer": "3""#));
}

#[tokio::test]
async fn ids_are_cleaned_of_what_the_server_refuses() {
    let place = Place::new();
    let content = "id,actor,recipient,time,kind,topics\n\
                   i\u{200b}1,bob\u{200d},\u{202e}zoe\u{308},1520874886,HELP,❤\u{fe0f};rust\n\
                   i2,bob, ada\u{a0}lovelace ,1520874886,HELP,\n\
                   i3,bob,bob\u{200b},1520874886,HELP,\n\
                   i4,\u{3164},ada,1520874886,HELP,\n\
                   \u{200b},bob,ada,1520874886,HELP,\n";
    let ran = place.import("a.csv", content, &[]).expect(3);
    assert_eq!(totals(&ran.out), [2, 0, 1, 2], "{ran:?}");
    let cleaned = "Characters that the server refuses were taken out, or normalized, in 6 ids and words.\n";
    assert!(ran.out.ends_with(cleaned), "{ran:?}");
    let time = prost_types::Timestamp { seconds: 1_520_874_886, nanos: 0 };
    let (first, second) = (act(Kind::Help, "bob", "zoë", time), act(Kind::Help, "bob", "ada lovelace", time));
    let topics = vec!["❤".to_owned(), "rust".to_owned()];
    place.holds(pb::Interaction { interaction_id: "i1".to_owned(), topics, ..first }).await;
    place.holds(pb::Interaction { interaction_id: "i2".to_owned(), ..second }).await;
    let reasons: Vec<_> = place.rejects("a.csv.rejects.jsonl").into_iter().map(|(_, reason, _)| reason).collect();
    let nothing = "holds nothing but white space and characters that show nothing";
    assert_eq!(reasons, [format!("actor {nothing}"), format!("id {nothing}")]);
}

#[test]
fn the_input_is_not_written_over() {
    let place = Place::new();
    let content = "actor,recipient,time,kind\nbob,ada,soon,HELP\n";
    let path = place.folder.path().join("a.csv");
    fs::create_dir(place.folder.path().join("sub")).unwrap();
    std::os::unix::fs::symlink("../a.csv", place.folder.path().join("sub/link")).unwrap();
    let whole = path.to_str().unwrap();
    for (flag, same) in [
        ("--rejects", "a.csv"),
        ("--rejects", "sub/../a.csv"),
        ("--rejects", "sub/link"),
        ("--rejects", whole),
        ("--resume", whole),
    ] {
        let ran = place.import("a.csv", content, &[flag, same]).expect(1);
        assert_eq!(ran.err, format!("rapport: {flag}: {same} is the same file as the input; name another file\n"));
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
    let mut command = place.command(&["-", "--format", "csv", "--rejects", "a.csv"]);
    let ran = Ran::from(command.stdin(fs::File::open(&path).unwrap()).output().unwrap()).expect(1);
    assert!(ran.err.contains("--rejects: a.csv is the same file as the input"), "{ran:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), content);
}

#[test]
fn a_password_in_an_address_is_not_repeated() {
    let place = Place::new();
    for address in ["https://user:secret@localhost:1", "http://user:sec/ret@localhost", "user:secret@localhost"] {
        let ran = place.import("a.csv", CSV, &["--server", address]).expect(1);
        assert!(ran.err.contains("--server (RAPPORT_SERVER) must not hold a name or a password"), "{ran:?}");
        assert!(!ran.err.contains("sec") && !ran.out.contains("sec"), "{ran:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_imported_at_all_is_said_clearly() {
    let place = Place::new();
    let fails = |name: &str, content: &[u8], arguments: &[&str], sentence: &str| {
        let ran = place.import(name, content, arguments).expect(1);
        assert!(ran.err.contains(sentence), "{ran:?}");
    };
    let missing = "no column holds recipients; --columns recipients=COLUMN names one of actor, to, time, kind";
    fails("a.csv", b"actor,to,time,kind\na,b,1,HELP\n", &[], missing);
    fails("a.csv", b"actor,recipients,time\na,b,1\n", &[], "time, or --kind says what every line is\n");
    let several = "no column holds actor, recipients; --columns actor=COLUMN,recipients=COLUMN names one of time, kind";
    fails("a.csv", b"time,kind\n1,HELP\n", &[], several);
    fails("a.csv", b"recipient,actor,recipients,time,kind\n", &[], "more than one column holds recipients");
    fails("a.csv", b"actor,recipients,time,kind\n", &["--columns", "topics=tags"], "no column holds topics");
    fails("a.csv", b"\xff\xfea\0c\0t\0o\0r\0", &[], "the heading is of no use: the line is not UTF-8");
    fails("a.csv.gz", &gzip(&CSV.repeat(100))[..50], &[], "the input cannot be read");
    fs::write(place.folder.path().join("b.csv"), CSV).unwrap();
    fails("a.csv", CSV.as_bytes(), &["--resume", "b.csv"], "b.csv does not say how far an import came");
    let nowhere = "cannot write none/bad.jsonl: No such file or directory (os error 2); --rejects names another file";
    fails("a.csv", b"actor,recipient,time,kind\na,b,soon,HELP\n", &["--rejects", "none/bad.jsonl"], nowhere);
    let ran = Ran::from(place.command(&["nowhere.csv"]).output().unwrap()).expect(1);
    assert!(ran.err.contains("cannot read nowhere.csv: No such file"), "{ran:?}");
    let ran = Ran::from(place.command(&["."]).output().unwrap()).expect(1);
    assert!(ran.err.contains("cannot read .:"), "{ran:?}");
    let ran = place.import("a.csv", CSV, &["--server", "http://127.0.0.1:1"]).expect(1);
    assert_eq!(ran.err, "rapport: no Rapport server answers at http://127.0.0.1:1; `rapport serve` starts one\n");
    let wrong = [
        ("--columns", "actor"),
        ("--columns", "nothing=a"),
        ("--kinds", "a=b"),
        ("--kind", "nope"),
        ("--format", "xml"),
        ("--nope", "1"),
    ];
    for (flag, value) in wrong {
        place.import("a.csv", CSV, &[flag, value]).expect(2);
    }
}
