//! `rapport serve` in a process of its own, to be killed or told to stop.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{eventually, ready};

/// A server's process. Dropping it kills it.
pub struct Process(Child);

impl Process {
    /// Starts a server on a database, and waits until it is ready.
    pub async fn on_database(url: &str, address: SocketAddr) -> Self {
        Self::start(address, |command| command.env("DATABASE_URL", url)).await
    }

    /// Starts a server with a private PostgreSQL, and waits until it is ready.
    pub async fn on_folder(folder: &Path, address: SocketAddr) -> Self {
        let bin = std::env::var_os("RAPPORT_TEST_POSTGRES_BIN");
        Self::start(address, |command| {
            if let Some(bin) = bin {
                command.arg("--postgres-bin").arg(bin);
            }
            command.arg("--data-dir").arg(folder)
        })
        .await
    }

    async fn start(address: SocketAddr, place: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rapport"));
        command.args(["serve", "--listen", &address.to_string()]).env("RAPPORT_DRAIN_LIMIT_SECONDS", "10");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Self(place(&mut command).spawn().unwrap());
        ready(address).await;
        process
    }

    /// Ends it without a chance to do anything about it.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        send(self.0.id(), Signal::TERM);
    }

    /// Waits until it has stopped.
    pub async fn stopped(mut self) -> ExitStatus {
        eventually("the process has stopped", async || self.0.try_wait().unwrap().is_some()).await;
        self.0.wait().unwrap()
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}

/// A number below a bound.
pub fn random(bound: u64) -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    u64::from_ne_bytes(bytes) % bound
}

/// Milliseconds below a bound.
pub fn random_pause(bound: u64) -> Duration {
    Duration::from_millis(random(bound))
}

/// An address where nobody listens, outside the range that outgoing connections are given their ports from.
pub fn free_address() -> SocketAddr {
    let candidates = std::iter::repeat_with(|| SocketAddr::from(([127, 0, 0, 1], 20_000 + random(10_000) as u16)));
    candidates.take(100).find(|address| TcpListener::bind(address).is_ok()).unwrap()
}
