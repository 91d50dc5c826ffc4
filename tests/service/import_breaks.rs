//! `rapport import` when it is broken off, when its server is, and how it tells that it gets on.

use std::{fmt::Write as _, fs, io::Write as _, process::Stdio, time::Duration};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    harness::{database, unique},
    import::totals,
    program::{Ran, Running, ask, asking, folder, program, until_file},
};

const LINES: u64 = 6000;

/// A large file, in which every hundredth line is bad and another hundredth is toward oneself.
fn large() -> String {
    let mut content = "actor\trecipient\ttime\tkind\n".to_owned();
    for number in 0..LINES {
        let (actor, recipient) = (number % 17, number % 19);
        let _ = match number % 100 {
            0 => writeln!(content, "bad"),
            1 => writeln!(content, "p1\tp1\t{number}\tHELP"),
            2 => writeln!(content, "\tp1\t{number}\tHELP"),
            _ => writeln!(content, "p{actor}\tq{recipient}\t{}\tMESSAGE", 1_700_000_000 + number * 60),
        };
    }
    content
}

fn line_of(resume: &str) -> i64 {
    serde_json::from_str::<Value>(resume).ok().and_then(|place| place["line"].as_i64()).unwrap_or_default()
}

#[tokio::test]
async fn an_import_that_was_killed_goes_on_where_it_was() {
    let (place, tenant) = (folder(), unique());
    let [file, rejects, resume] = ["large.tsv", "rejects", "resume"].map(|name| place.path().join(name));
    fs::write(&file, large()).unwrap();
    let arguments = ["import", file.to_str().unwrap(), "--rejects", rejects.to_str().unwrap()];
    let resuming = [&arguments[..], &["--resume", resume.to_str().unwrap()]].concat();
    let mut reached = 0;
    for _ in 0..2 {
        let running = Running::start(asking(&tenant, &resuming));
        until_file(&resume, |text| line_of(text) > reached + 500).await;
        drop(running);
        reached = line_of(&fs::read_to_string(&resume).unwrap());
    }
    // Nobody may go on with something else.
    let ran = ask(&tenant, &["import", rejects.to_str().unwrap(), "--resume", resume.to_str().unwrap()]).expect(1);
    assert!(ran.err.contains("resume is about importing large.tsv, not rejects"), "{ran:?}");
    let [recorded, replayed, toward_self, rejected] = totals(&ask(&tenant, &resuming).expect(3).out);
    let hundredth = LINES / 100;
    assert_eq!((recorded + replayed, toward_self, rejected), (LINES - 3 * hundredth, hundredth, 2 * hundredth));
    assert!(recorded > 0 && !resume.exists());
    let rejected = fs::read_to_string(&rejects).unwrap();
    let numbers: Vec<u64> = rejected.lines().map(|line| line_of(line).cast_unsigned()).collect();
    let expected: Vec<u64> =
        (0..LINES).filter(|number| matches!(number % 100, 0 | 2)).map(|number| number + 2).collect();
    assert_eq!(numbers, expected);
    let again = ask(&tenant, &arguments).expect(3);
    assert_eq!(totals(&again.out), [0, LINES - 3 * hundredth, hundredth, 2 * hundredth]);
}

#[tokio::test]
async fn an_import_survives_a_restart_of_the_server() {
    let (place, url) = (folder(), database(false).await);
    let [file, rejects, resume] = ["large.tsv", "rejects", "resume"].map(|name| place.path().join(name));
    fs::write(&file, large()).unwrap();
    let on_database = |arguments: &[&str]| {
        let mut command = program(arguments);
        command.env("DATABASE_URL", &url).stderr(Stdio::null());
        command
    };
    for _ in 0..2 {
        let migrated = Ran::from(on_database(&["migrate"]).output().unwrap()).expect(0);
        assert_eq!(migrated.out, "The schema is up to date.\n");
    }
    let (server, address) = Running::serve(on_database(&["serve", "--listen", "127.0.0.1:0"]));
    let server_url = format!("http://{address}");
    let mut import = program(&["import", file.to_str().unwrap(), "--server", &server_url]);
    import.arg("--rejects").arg(&rejects).arg("--resume").arg(&resume);
    let importing = Running::start(import);
    until_file(&resume, |text| line_of(text) > 1000).await;
    // Killed, while the import goes on.
    drop(server);
    assert!(resume.exists());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (server, _) = Running::serve(on_database(&["serve", "--listen", &address.to_string()]));
    let (code, said) = importing.end();
    let hundredth = LINES / 100;
    let [recorded, replayed, toward_self, rejected] = totals(&said);
    assert_eq!(code, Some(3));
    assert_eq!((recorded + replayed, toward_self, rejected), (LINES - 3 * hundredth, hundredth, 2 * hundredth));
    let checked = Ran::from(on_database(&["rebuild", "--check"]).output().unwrap()).expect(0);
    assert!(checked.out.ends_with("No difference.\n"), "{checked:?}");
    server.signal(Signal::TERM);
    assert_eq!(server.end().0, Some(0));
    // A server that was there and stays away is given up at last; one that never was is not waited for.
    let mut import = program(&["import", file.to_str().unwrap(), "--server", &server_url]);
    let ran = Ran::from(import.current_dir(place.path()).output().unwrap()).expect(1);
    assert!(ran.err.contains("no Rapport server"), "{ran:?}");
}

#[tokio::test]
async fn progress_is_plain_lines_where_there_is_no_terminal() {
    let mut command = asking(&unique(), &["import", "-", "--format", "tsv"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"actor\trecipient\ttime\tkind\na\tb\t1\tHELP\n").unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    stdin.write_all(b"a\tb\t2\tHELP\n").unwrap();
    drop(stdin);
    let ran = Ran::from(child.wait_with_output().unwrap()).expect(0);
    // Where the machine is busy, the first line may be of the first act alone.
    let lines: Vec<&str> = ran.err.lines().collect();
    assert!(!lines.is_empty() && lines.iter().all(|line| line.contains(" recorded, 0 had been before")), "{ran:?}");
    assert!(ran.out.starts_with("2 recorded, 0 had been before") && ran.err.ends_with(" a second\n"), "{ran:?}");
    assert!(!ran.err.contains('\u{1b}') && !ran.out.contains('\u{1b}'), "{ran:?}");
}

#[tokio::test]
async fn progress_is_a_bar_with_rate_and_time_left_on_a_terminal() {
    let util_linux = std::process::Command::new("script").arg("--version").output();
    if !util_linux.is_ok_and(|output| output.status.success()) {
        println!("skipped: there is no script of util-linux to make a terminal with");
        return;
    }
    let place = folder();
    fs::write(place.path().join("large.tsv"), large()).unwrap();
    let import = asking(&unique(), &["import", "large.tsv"]);
    let program = import.get_program().to_str().unwrap();
    let mut command = std::process::Command::new("script");
    command.args(["-qec", &format!("stty cols 80; '{program}' import large.tsv"), "/dev/null"]);
    command.envs(import.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("TERM", "xterm");
    let ran = Ran::from(command.current_dir(place.path()).stdin(Stdio::null()).output().unwrap()).expect(3);
    let shown: Vec<&str> = ran.out.split('\r').filter(|line| line.contains('█')).collect();
    let is_whole = |line: &&&str| line.contains('%') && line.contains(" left, ") && line.contains(" rejected");
    let bar = shown.iter().rev().find(is_whole).unwrap_or_else(|| panic!("no bar: {:?}", ran.out));
    assert!(bar.contains(" a second, ") && bar.contains(" lines, "), "{bar:?}");
}
