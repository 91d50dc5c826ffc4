//! The guard: a small shell that ends a process when we vanish, kill -9 included.
//!
//! It holds the far end of a pipe that only we keep open. Orderly stops do not live here.

use std::process::Stdio;

use tokio::process::{Child, ChildStdin, Command};

use super::account::RunAs;

/// Fast shutdown, then immediate shutdown after 30 s. Nothing is ever written into the pipe,
/// so `read` returns when the last holder of its other end is gone.
const STOP_SERVER: &str = r#"trap '' HUP INT TERM; read -r nothing; kill -INT "$0" || exit 0
tries=30; while [ $tries -gt 0 ]; do sleep 1; kill -0 "$0" || exit 0; tries=$((tries - 1)); done; kill -QUIT "$0""#;
const KILL_GROUP: &str = r#"trap '' HUP INT TERM; read -r nothing; kill -KILL "-$0""#;

/// Dropping it sets it off; [`Guard::dismiss`] does not.
#[derive(Debug)]
pub(super) struct Guard {
    shell: Child,
    _pipe: Option<ChildStdin>,
}

impl Guard {
    /// Stops the postmaster `pid` in an orderly way when we vanish.
    pub(super) fn of_server(pid: u32, run_as: &RunAs) -> std::io::Result<Self> {
        Self::spawn(STOP_SERVER, pid, run_as)
    }

    /// Kills the process group led by `pid` when we vanish.
    pub(super) fn of_group(pid: u32, run_as: &RunAs) -> std::io::Result<Self> {
        Self::spawn(KILL_GROUP, pid, run_as)
    }

    fn spawn(script: &str, pid: u32, run_as: &RunAs) -> std::io::Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", script, &pid.to_string()]).current_dir("/").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        run_as.apply(&mut command);
        let mut shell = command.spawn()?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, _pipe: pipe })
    }

    /// Ends the guard without setting it off. To be called once its process has been reaped,
    /// lest it signals a stranger who was given the same id.
    pub(super) fn dismiss(mut self) {
        if let Err(error) = self.shell.start_kill() {
            tracing::debug!(%error, "the guard of PostgreSQL was gone already");
        }
    }
}
