//! What earlier runs left in the cluster: a server still running, or a `postmaster.pid` of none.
//!
//! Our own servers are in `server`.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use super::account::RunAs;
use super::error::{EmbeddedError, cannot};
use super::program::run;

const PID_FILE: &str = "postmaster.pid";
/// As a server says it, and as a standby does.
const READY: [&str; 2] = ["ready", "standby"];
const FAST_LIMIT: Duration = Duration::from_secs(20);
const IMMEDIATE_LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);
const ASKING_LIMIT: Duration = Duration::from_secs(10);

/// Who has the process id that `postmaster.pid` names.
#[derive(Debug, PartialEq, Eq)]
enum Holder {
    Nobody,
    /// A PostgreSQL server on this very cluster.
    Server,
    Stranger,
    /// There is a process, but the system does not say what it is.
    Unknown,
}

/// Whether some server has run here without removing its `postmaster.pid` since.
pub(super) fn has_traces(cluster: &Path) -> bool {
    cluster.join(PID_FILE).exists()
}

/// Whether the server `pid` says in `postmaster.pid` that it accepts connections.
pub(super) fn is_ready(cluster: &Path, pid: u32) -> bool {
    let Ok(text) = fs::read_to_string(cluster.join(PID_FILE)) else { return false };
    parse_pid(&text) == Some(pid) && text.lines().nth(7).is_some_and(|status| READY.contains(&status.trim()))
}

/// Makes way for a new server: stops one that has lost its owner, removes a file that misleads.
///
/// The file of a dead server stays: PostgreSQL removes it itself after it has checked, by what the
/// file says, that no child of the dead server is still at work on the data.
pub(super) async fn settle(cluster: &Path) -> Result<(), EmbeddedError> {
    let path = cluster.join(PID_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(cannot("read", &path)(error)),
    };
    let holder = match parse_pid(&text) {
        Some(pid) => (pid, holder(pid, cluster).await),
        None => (0, Holder::Stranger),
    };
    match holder {
        (pid, Holder::Server) => stop(pid, cluster).await,
        (pid, Holder::Stranger) => {
            tracing::info!(pid, "removing a stale {PID_FILE}");
            fs::remove_file(&path).map_err(cannot("remove", &path))
        }
        (_, Holder::Nobody | Holder::Unknown) => Ok(()),
    }
}

async fn stop(pid: u32, cluster: &Path) -> Result<(), EmbeddedError> {
    tracing::info!(pid, "stopping a PostgreSQL left over by an earlier rapport");
    for (signal, limit) in [(Signal::INT, FAST_LIMIT), (Signal::QUIT, IMMEDIATE_LIMIT)] {
        send(pid, signal);
        if timeout(limit, gone(pid, cluster)).await.is_ok() {
            return Ok(());
        }
    }
    Err(EmbeddedError::LeftoverStays { pid, cluster: cluster.to_owned() })
}

/// Asking what the process is, not only whether it exists, also tells a dead one nobody has reaped.
async fn gone(pid: u32, cluster: &Path) {
    while holder(pid, cluster).await == Holder::Server {
        sleep(PAUSE).await;
    }
}

async fn holder(pid: u32, cluster: &Path) -> Holder {
    if parse_process(pid).is_none_or(|pid| test_kill_process(pid) == Err(rustix::io::Errno::SRCH)) {
        return Holder::Nobody;
    }
    match command_line(pid).await {
        Some(line) if is_server_on(&line, cluster) => Holder::Server,
        Some(_) => Holder::Stranger,
        None => Holder::Unknown,
    }
}

/// Signals the process; one that is gone has got what was wanted.
pub(super) fn send(pid: u32, signal: Signal) {
    let sent = parse_process(pid).map_or(Err(rustix::io::Errno::SRCH), |pid| kill_process(pid, signal));
    if let Err(error) = sent {
        tracing::debug!(pid, %error, "a signal did not arrive");
    }
}

fn parse_pid(text: &str) -> Option<u32> {
    text.lines().next()?.trim().parse().ok()
}

fn parse_process(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// The words of the process separated by spaces; empty for one that is dead but not reaped.
async fn command_line(pid: u32) -> Option<String> {
    if Path::new("/proc/self/cmdline").exists() {
        let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        return Some(String::from_utf8_lossy(&words).replace('\0', " "));
    }
    let mut command = Command::new("ps");
    command.args(["-ww", "-o", "command=", "-p", &pid.to_string()]);
    let output = run(command, &RunAs::ourselves(), b"", ASKING_LIMIT).await.ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// We start every server with its folder as the first argument.
fn is_server_on(command_line: &str, cluster: &Path) -> bool {
    let Some((program, rest)) = command_line.split_once(" -D ") else { return false };
    let is_postgres = Path::new(program).file_name().is_some_and(|name| name == "postgres");
    let after = rest.strip_prefix(&*cluster.to_string_lossy());
    is_postgres && after.is_some_and(|after| after.is_empty() || after.starts_with(char::is_whitespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_known_by_its_program_and_its_folder() {
        let cluster = Path::new("/my data/cluster");
        assert!(is_server_on("/usr/bin/postgres -D /my data/cluster -c port=5432 ", cluster));
        assert!(!is_server_on("/usr/bin/postgres -D /my data/cluster.partial -c port=5432", cluster));
        assert!(!is_server_on("/usr/bin/less -D /my data/cluster", cluster));
        assert!(!is_server_on("postgres: checkpointer", cluster));
        assert!(!is_server_on("", cluster));
    }

    #[tokio::test]
    async fn a_file_that_names_a_stranger_is_removed() {
        let cluster = tempfile::tempdir().unwrap();
        for text in [std::process::id().to_string(), String::new(), "nonsense".into()] {
            let path = cluster.path().join(PID_FILE);
            fs::write(&path, format!("{text}\n/data\n")).unwrap();
            settle(cluster.path()).await.unwrap();
            assert!(!path.exists(), "{text:?}");
        }
    }

    #[test]
    fn readiness_is_that_of_the_very_server() {
        let cluster = tempfile::tempdir().unwrap();
        let text = "77\n/data\n1\n5432\n/socket\n\n  5 6\nready   \n";
        fs::write(cluster.path().join(PID_FILE), text).unwrap();
        assert!(is_ready(cluster.path(), 77));
        assert!(!is_ready(cluster.path(), 78));
        fs::write(cluster.path().join(PID_FILE), text.replace("ready   ", "starting")).unwrap();
        assert!(!is_ready(cluster.path(), 77));
    }
}
