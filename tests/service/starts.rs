//! What a server tells its operator when it cannot start, or not serve yet: what was refused, where that is, and what helps.

use std::{
    fs::{self, File},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
};

use rustix::process::Signal;

use crate::{
    harness::{database, unique},
    program::{Ran, Running, folder, program, until_file},
};

/// Starts a server on a database until its log has said something, which it returns.
async fn log_with(url: &str, words: &str) -> String {
    let place = folder();
    let log = place.path().join("log");
    let mut command = program(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("DATABASE_URL", url).stderr(File::create(&log).unwrap());
    let (_server, _) = Running::serve(command);
    until_file(&log, |text| text.contains(words)).await;
    fs::read_to_string(&log).unwrap()
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_told_with_its_place_and_the_cause() {
    let log = log_with("postgresql://ro:secret@127.0.0.1:1/people", "cannot reach").await;
    let place =
        "the database is not ready: cannot reach the database people at 127.0.0.1:1 as role ro: Connection refused";
    assert!(log.contains(place) && log.contains("; see that PostgreSQL runs there"), "{log}");
    assert!(!log.contains("secret"), "{log}");
    let url = database(false).await;
    let name = unique();
    let wrong = url.replacen("/test_", &format!("/{name}_"), 1).replacen('?', "?password=secret&", 1);
    let log = log_with(&wrong, "cannot reach").await;
    assert!(log.contains(&format!("cannot reach the database {name}_")), "{log}");
    assert!(
        log.contains("/.s.PGSQL.5432 as role rapport: database \"") && log.contains("\" does not exist; create"),
        "{log}"
    );
    assert!(!log.contains("secret"), "{log}");
    // The database is there, and its schema is not.
    let log = log_with(&url, "is not ready").await;
    assert!(
        log.contains("the database schema has version 0") && log.contains("run `rapport migrate` (database test_"),
        "{log}"
    );
}

#[tokio::test]
async fn starting_again_tells_nothing_of_what_is_there_already() {
    let place = folder();
    let (data, log) = (place.path().join("data"), place.path().join("log"));
    for _ in 0..2 {
        let mut command = program(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()]);
        command.stderr(File::create(&log).unwrap());
        let (server, _) = Running::serve(command);
        server.signal(Signal::TERM);
        assert_eq!(server.end().0, Some(0));
    }
    let told = fs::read_to_string(&log).unwrap();
    assert!(told.contains("is ready") && !told.contains("already exists") && !told.contains("WARN"), "{told}");
}

/// The program as nobody runs it, who may run it from there.
fn as_nobody(place: &Path, arguments: &[&str]) -> Command {
    let copy = place.join("rapport");
    if !copy.exists() {
        fs::copy(env!("CARGO_BIN_EXE_rapport"), &copy).unwrap();
    }
    let mut command = Command::new(copy);
    command.args(arguments).current_dir("/").uid(65534).gid(65534).env_clear().env("PATH", "/usr/bin:/bin");
    command
}

#[test]
fn a_data_folder_that_is_somebody_elses_is_told_with_its_owner() {
    let place = folder();
    let data = place.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(place.path().join("file"), "").unwrap();
    let end = "choose another folder with --data-dir";
    let refused = |data: &Path| -> String {
        let ran = program(&["migrate", "--data-dir", data.to_str().unwrap()]).output().unwrap();
        Ran::from(ran).expect(1).err
    };
    let file = refused(&place.path().join("file"));
    assert!(file.contains(&format!("; there is a file in its place: {end}")), "{file}");
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can be somebody else");
        return;
    }
    let commands = [
        (&["serve", "--listen", "127.0.0.1:0"][..], data.clone()),
        (&["migrate"], data.clone()),
        (&["rebuild"], data.join("deeper")),
    ];
    for (command, folder) in commands {
        let arguments = [command, &["--data-dir", folder.to_str().unwrap()]].concat();
        let ran = as_nobody(place.path(), &arguments).output().unwrap();
        let told = Ran::from(ran).expect(1).err;
        let owner = format!("{} belongs to root (user id 0): run rapport as that user, or {end}\n", data.display());
        assert!(told.contains("Permission denied") && told.ends_with(&owner), "{command:?}: {told}");
    }
    let doctor = as_nobody(place.path(), &["doctor", "--data-dir", data.to_str().unwrap()]).output().unwrap();
    let told = Ran::from(doctor).expect(3).out;
    assert!(told.contains("belongs to root (user id 0)") && told.contains("serve` would not start"), "{told}");
}

#[test]
fn files_that_a_server_cannot_follow_are_named_with_the_place_in_them() {
    let place = folder();
    let file = place.path().join("access.json");
    fs::write(&file, "{\"principals\": [\n  {\"name\": \"crm\", \"grants\": [{\"tenants\": [\"crm\"], \"rights\": [\"rank\", \"reed\"]}]}]}").unwrap();
    let serve = |arguments: &[&str]| {
        let mut command = program(&[&["serve", "--listen", "127.0.0.1:0"], arguments].concat());
        command.env("DATABASE_URL", "postgresql://127.0.0.1:1/none").current_dir(place.path());
        Ran::from(command.output().unwrap()).expect(1).err
    };
    let told = serve(&["--access-file", "access.json"]);
    let expected =
        "line 2, column 70: principals[0].grants[0].rights[1] is \"reed\", and must be record, rank or admin";
    assert_eq!(told, format!("rapport: the access file access.json cannot be followed: {expected}\n"));
    let told = serve(&["--access-file", "none.json"]);
    assert!(told.starts_with("rapport: the access file none.json cannot be read: No such file"), "{told}");
    let told = serve(&["--tls-certificate", "none.crt", "--tls-key", "access.json"]);
    assert!(told.starts_with("rapport: the TLS certificate none.crt cannot be read: No such file"), "{told}");
    let told = serve(&["--tls-certificate", "access.json", "--tls-key", "access.json"]);
    assert_eq!(told, "rapport: the TLS certificate access.json holds nothing of that kind in PEM\n");
}

#[test]
fn files_without_an_end_and_pipes_without_a_writer_are_refused() {
    let folder = folder();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let endless = folder.path().join("endless");
    std::os::unix::fs::symlink("/dev/zero", &endless).unwrap();
    for file in [pipe.to_str().unwrap(), endless.to_str().unwrap()] {
        let commands: [&[&str]; 6] = [
            &["serve", "--settings", file],
            &["serve", "--access-file", file],
            &["serve", "--tls-certificate", file, "--tls-key", file],
            &["rank", "ada", "--key-file", file],
            &["rank", "ada", "--server-authorities", file],
            &["rank", "ada", "--server", "https://localhost:1", "--client-certificate", file, "--client-key", file],
        ];
        for arguments in commands {
            let ran = Ran::from(program(arguments).output().unwrap());
            assert!(ran.err.contains("it is no regular file"), "{arguments:?}: {ran:?}");
        }
    }
}
