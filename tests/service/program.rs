//! The program as its users start it: the real binary, with no setting but those that a test gives it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::SocketAddr,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Child, ChildStdout, Command, Output, Stdio},
    time::Duration,
};

use rapport::config::SETTINGS;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::harness::{address, eventually};

/// What became of a run: its exit code, and what it said.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Ran {
    /// What it said, when it ended with that exit code.
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }
}

/// The program with these arguments, reading nothing.
pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rapport"));
    for setting in SETTINGS {
        command.env_remove(setting.variable());
    }
    if let Some(folder) = std::env::var_os("RAPPORT_TEST_POSTGRES_BIN") {
        command.env("RAPPORT_POSTGRES_BIN", folder);
    }
    // As it is called where it is installed.
    command.arg0("rapport").args(arguments).stdin(Stdio::null());
    command
}

/// Runs the program to its end.
pub fn run(arguments: &[&str]) -> Ran {
    program(arguments).output().unwrap().into()
}

/// Runs the program to its end as a client of the shared server.
pub fn ask(tenant: &str, arguments: &[&str]) -> Ran {
    asking(tenant, arguments).output().unwrap().into()
}

/// The program as a client of the shared server.
pub fn asking(tenant: &str, arguments: &[&str]) -> Command {
    let mut command = program(arguments);
    command.env("RAPPORT_SERVER", format!("http://{}", address())).env("RAPPORT_TENANT", tenant);
    command
}

/// Runs a command that reads `input`.
pub fn fed(mut command: Command, input: &[u8]) -> Ran {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap().into()
}

/// A folder that another user may enter, as PostgreSQL runs as one when the tests run as root.
pub fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// A started program, killed when it is dropped.
pub struct Running {
    pub child: Child,
    out: Option<BufReader<ChildStdout>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let out = child.stdout.take().map(BufReader::new);
        Self { child, out }
    }

    /// Starts a server, and waits until it listens.
    pub fn serve(command: Command) -> (Self, SocketAddr) {
        let mut running = Self::start(command);
        let said = running.line_with("Rapport listens on ");
        let address = said.trim().rsplit(' ').next().unwrap().parse().unwrap();
        (running, address)
    }

    /// Reads what it says up to a line with that text.
    pub fn line_with(&mut self, text: &str) -> String {
        let lines = self.out.as_mut().unwrap().lines().map(Result::unwrap);
        let found = lines.into_iter().find(|line| line.contains(text));
        found.unwrap_or_else(|| panic!("it ended without saying {text:?}"))
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end, and tells its exit code (none when a signal ended it) and what it still said.
    pub fn end(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        self.out.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

/// The process id of the private PostgreSQL of a folder.
pub fn postmaster(data: &Path) -> Option<u32> {
    fs::read_to_string(data.join("cluster/postmaster.pid")).ok()?.lines().next()?.parse().ok()
}

/// Waits until no process has the folder's path in its command line.
pub async fn nothing_runs_in(data: &Path) {
    let data = data.to_str().unwrap().to_owned();
    eventually("no process is left", async || {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
        !lines.map(|line| String::from_utf8_lossy(&line).into_owned()).any(|line| line.contains(&data))
    })
    .await;
}

/// Waits until a file satisfies a condition.
pub async fn until_file(path: &Path, holds: impl Fn(&str) -> bool) {
    let wait = async {
        while !fs::read_to_string(path).is_ok_and(|text| holds(&text)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap();
}
