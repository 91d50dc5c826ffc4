//! Running PostgreSQL's tools, pip and the like to their end, bounded in time and never outliving us.
//!
//! The server itself, which runs on, is in `server`.

use std::ffi::OsStr;
use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use super::account::RunAs;
use super::guard::Guard;

pub(super) const TAIL_LINES: usize = 8;
/// Variables by which a user's shell would change what PostgreSQL's programs do.
const MEDDLING: [&str; 7] =
    ["PGDATA", "PGPORT", "PGOPTIONS", "PGDATESTYLE", "PGTZ", "PGCLIENTENCODING", "PG_OOM_ADJUST_FILE"];

/// A command for one of PostgreSQL's programs: as the given user, speaking English, in a folder all may enter.
pub(super) fn postgres_command(program: impl AsRef<OsStr>, run_as: &RunAs) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").env("LC_ALL", "C").stdin(Stdio::null());
    for name in MEDDLING {
        command.env_remove(name);
    }
    run_as.apply(&mut command);
    command
}

/// Runs `command` to its end, feeding it `input`, and returns what it wrote. It and its children are
/// killed when `limit` passes, when the future is dropped, and when we are killed.
pub(super) async fn run(mut command: Command, run_as: &RunAs, input: &[u8], limit: Duration) -> io::Result<Output> {
    command.process_group(0).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn()?;
    let guard = child.id().map(|pid| Guard::of_group(pid, run_as)).transpose()?;
    let output = tokio::time::timeout(limit, feed_and_wait(child, input)).await.map_err(|_| too_late(limit))??;
    if let Some(guard) = guard {
        guard.dismiss();
    }
    Ok(output)
}

async fn feed_and_wait(mut child: Child, input: &[u8]) -> io::Result<Output> {
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ended early does not read; its status says why.
        drop(stdin.write_all(input).await);
    }
    child.wait_with_output().await
}

fn too_late(limit: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("it was not done within {} s", limit.as_secs()))
}

/// The last lines of what a failed program wrote (its errors, else its output), as one line.
pub(super) fn last_words(output: &Output) -> String {
    let errors = tail(&output.stderr, TAIL_LINES);
    let words = if errors.is_empty() { tail(&output.stdout, TAIL_LINES) } else { errors };
    if words.is_empty() { output.status.to_string() } else { words }
}

/// The last `count` lines of `text` that hold anything, joined into one.
pub(super) fn tail(text: &[u8], count: usize) -> String {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let start = lines.len().saturating_sub(count);
    lines.get(start..).unwrap_or_default().join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn input_is_fed_and_output_returned() {
        let limit = Duration::from_secs(5);
        let output = run(shell("cat; echo no >&2; exit 3"), &RunAs::ourselves(), b"yes", limit).await.unwrap();
        assert_eq!(output.stdout, b"yes");
        assert_eq!(last_words(&output), "no");
        assert_eq!(output.status.code(), Some(3));
    }

    #[tokio::test]
    async fn a_slow_program_and_its_children_are_killed() {
        let folder = tempfile::tempdir().unwrap();
        let trace = folder.path().join("trace");
        let script = format!("(sleep 1; touch {}) & wait", trace.display());
        let error = run(shell(&script), &RunAs::ourselves(), b"", Duration::from_millis(200)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(!trace.exists());
    }

    #[test]
    fn the_tail_is_one_line() {
        assert_eq!(tail(b"zero\none\n\n two\n", 2), "one | two");
        assert_eq!(tail(b"", 2), "");
    }
}
