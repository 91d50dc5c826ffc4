//! The arrow `cli, app → rpc → service → store → scoring → domain`, beside it the client, and who may touch what, kept by
//! reading the sources.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, and may be asked to write"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use rapport::config::{Form, Otherwise, SETTINGS, Setting, Source};

/// All sources below a folder or file of `src`, by path, without comments and without the tests at their end.
fn sources(place: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(place), &mut found);
    assert!(!found.is_empty(), "src/{place} is gone; this test has to follow it");
    found
}

fn collect(path: &Path, found: &mut Vec<(PathBuf, String)>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            collect(&entry.unwrap().path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let code: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        found.push((path.to_owned(), code.join("\n")));
    }
}

/// Fails for every source of `place` that mentions one of `words`.
fn nowhere(place: &str, words: &[&str]) {
    for (path, code) in sources(place) {
        for word in words {
            assert!(!code.contains(word), "{} must not mention {word}", path.display());
        }
    }
}

/// Fails for every source of `place` that imports from one of these rooms.
fn imports_none(place: &str, rooms: &[&str]) {
    let paths: Vec<String> = rooms.iter().map(|room| format!("crate::{room}")).collect();
    nowhere(place, &paths.iter().map(String::as_str).collect::<Vec<_>>());
    for grouped in rooms {
        for (path, code) in sources(place) {
            let imports = code.split("use crate::{").skip(1).filter_map(|rest| rest.split("};").next());
            let names =
                |import: &str| import.lines().any(|line| line.trim_start().starts_with(&format!("{grouped}::")));
            assert!(!imports.into_iter().any(names), "{} must not import {grouped}", path.display());
        }
    }
}

#[test]
fn rooms_know_only_the_rooms_below_them() {
    let rooms = ["domain", "scoring", "evaluation", "store", "service", "access", "rpc", "app", "cli"];
    for (height, room) in rooms.iter().enumerate() {
        let place = if *room == "app" { "app.rs" } else { room };
        // The wiring knows the rooms below it, and commands know the wiring.
        imports_none(place, &rooms[height + 1..]);
    }
}

#[test]
fn the_client_knows_the_wire_and_the_nouns_and_nobody_but_commands_knows_it() {
    let others = ["cli", "app", "config", "embedded", "evaluation", "scoring", "service", "store", "telemetry"];
    imports_none("client", &others);
    for place in ["domain", "scoring", "evaluation", "store", "service", "rpc", "app.rs", "config.rs", "embedded"] {
        imports_none(place, &["client"]);
    }
}

#[test]
fn the_core_neither_waits_nor_talks() {
    for place in ["domain", "scoring", "evaluation"] {
        nowhere(place, &["async ", ".await", "tokio", "sqlx", "tonic", "prost", "std::fs", "std::net", "std::env"]);
    }
}

#[test]
fn who_may_do_what_is_decided_without_the_wire_and_the_database() {
    nowhere("access", &["sqlx", "tonic", "prost", "http::", "std::env", "crate::store", "crate::service"]);
    nowhere("store", &["crate::access"]);
    nowhere("service", &["crate::access"]);
}

#[test]
fn serving_does_not_depend_on_measuring() {
    for place in ["store", "service", "rpc", "app.rs"] {
        nowhere(place, &["crate::evaluation", "evaluation::"]);
    }
}

#[test]
fn sql_lives_in_the_store() {
    for place in [
        "domain",
        "scoring",
        "evaluation",
        "service",
        "rpc",
        "client",
        "cli",
        "app.rs",
        "config.rs",
        "embedded",
        "telemetry",
    ] {
        nowhere(place, &["sqlx::", "SELECT ", "INSERT INTO", "DELETE FROM"]);
    }
    nowhere("store", &[" now()", "CURRENT_TIMESTAMP", "tonic", "prost", "pb::"]);
}

#[test]
fn the_wire_lives_in_rpc_and_in_the_commands_that_are_clients() {
    for place in ["domain", "scoring", "evaluation", "store", "service", "config.rs", "embedded"] {
        nowhere(place, &["pb::", "tonic", "prost"]);
    }
    // The exporter of spans and metrics is a client of somebody else's service.
    nowhere("telemetry", &["pb::", "tonic::", "prost"]);
    for (path, code) in sources("rpc") {
        if !path.ends_with("status.rs") {
            assert!(
                !code.contains("Code::")
                    || path.ends_with("layers.rs") && !code.replace("Code::Ok", "").contains("Code::"),
                "{} must not name status codes",
                path.display()
            );
        }
    }
}

#[test]
fn one_reader_of_the_environment_and_one_of_the_clock() {
    for place in [
        "domain",
        "scoring",
        "evaluation",
        "store",
        "service",
        "rpc",
        "client",
        "cli",
        "app.rs",
        "embedded",
        "telemetry",
        "main.rs",
    ] {
        nowhere(place, &["env::var", "env::args"]);
    }
    for (path, code) in sources("") {
        if !path.ends_with("service/clock.rs") {
            assert!(!code.contains("SystemTime::now"), "{} must not read the clock", path.display());
        }
    }
}

#[test]
fn files_stay_short_enough_to_hold_one_thing() {
    for place in ["src", "tests", "build.rs"] {
        let mut found = Vec::new();
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join(place), &mut found);
        for (path, _) in found {
            let lines = fs::read_to_string(&path).unwrap().lines().count();
            assert!(lines <= 400, "{} has {lines} lines", path.display());
        }
    }
}

#[test]
fn the_job_that_migrates_is_named_by_the_version_of_the_schema() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let migrations = fs::read_dir(root.join("src/store/migrations")).unwrap();
    let version = |name: &str| name.split('_').next().and_then(|digits| digits.parse::<u32>().ok());
    let newest = migrations.filter_map(|file| version(file.unwrap().file_name().to_str()?)).max().unwrap();
    let job = fs::read_to_string(root.join("deploy/kubernetes/base/migrate.yaml")).unwrap();
    assert!(job.contains(&format!("name: rapport-migrate-{newest}\n")) && job.contains(&format!("version {newest}.")));
}

#[test]
fn every_module_says_what_lives_in_it() {
    for (path, _) in sources("") {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} must open with what lives in it", path.display());
    }
}

/// Servers of the version before run on while a migration does, so one that takes something away says who is still served.
#[test]
fn a_migration_that_takes_something_away_says_since_when_programs_are_served() {
    // Before version 6, servers were not ready on a newer schema, whatever it said.
    const SAID_SINCE: u32 = 6;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/migrations");
    let takes_away = ["DROP ", "RENAME", "TRUNCATE", "REVOKE", "SET NOT NULL", "DELETE FROM", " TYPE "];
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let version = path.file_name().unwrap().to_str().unwrap().split('_').next().unwrap().parse::<u32>().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let code: Vec<&str> = text.lines().map(|line| line.split("--").next().unwrap()).collect();
        // No program names an index.
        let code = code.join("\n").to_uppercase().replace("DROP INDEX", "");
        let contracts = takes_away.iter().any(|words| code.contains(words));
        assert!(version < SAID_SINCE || !contracts || text.contains("'serves-since'"), "{}", path.display());
    }
}

/// A setting as a row of the table in `deploy/configuration.md`.
fn row(setting: &Setting) -> String {
    let flag = if setting.is_from(Source::Flag) { format!("`{}`", setting.flag()) } else { String::new() };
    let default = match setting.otherwise {
        Otherwise::Value(value) => format!("`{value}`"),
        Otherwise::Words(words) => words.to_owned(),
    };
    let range = match setting.form {
        Form::Number(from, to) => format!(" ({from} to {to})"),
        _ => String::new(),
    };
    format!("| {flag} | `{}` | {default} | {}{range} |\n", setting.variable(), setting.about)
}

/// `RAPPORT_TEST_WRITE=settings cargo test --test architecture settings` writes the table again.
#[test]
fn the_guide_lists_all_settings_as_they_are_declared() {
    let mut table = "| flag | variable | default | meaning |\n|---|---|---|---|\n".to_owned();
    for settings in SETTINGS.chunk_by(|one, next| one.group == next.group) {
        let heading = format!("| **{}** | | | |\n", settings[0].group.heading());
        table.push_str(&heading);
        table.extend(settings.iter().map(row));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/configuration.md");
    let guide = fs::read_to_string(&path).unwrap();
    let (before, rest) = guide.split_once("<!-- settings: made by tests/architecture.rs -->\n").unwrap();
    let (written, after) = rest.split_once("<!-- end of settings -->").unwrap();
    if std::env::var("RAPPORT_TEST_WRITE").is_ok_and(|what| what == "settings") {
        let made = guide.replacen(written, &table, 1);
        assert!(made.starts_with(before) && made.ends_with(after));
        fs::write(&path, made).unwrap();
    } else {
        assert_eq!(written, table, "RAPPORT_TEST_WRITE=settings cargo test --test architecture settings writes it");
    }
}
