//! One run of the server: its settings, start, readiness and orderly end.
//!
//! Starting it again when it dies is in `supervise`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::RangeInclusive;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::account::RunAs;
use super::error::{EmbeddedError, cannot, cannot_run};
use super::guard::Guard;
use super::leftover;
use super::program::{TAIL_LINES, postgres_command, tail};
use super::socket::{PORT, SocketFolder};

const READY_LIMIT: Duration = Duration::from_mins(1);
const POLL_PAUSE: Duration = Duration::from_millis(20);
/// Together 10 s: for the children of a killed server to end.
const TRIES: u32 = 40;
const TRY_PAUSE: Duration = Duration::from_millis(250);
const STOP_STEPS: [(Signal, Duration); 3] = [
    (Signal::INT, Duration::from_secs(15)),
    (Signal::QUIT, Duration::from_secs(5)),
    (Signal::KILL, Duration::from_secs(5)),
];
/// The user's own settings come after these and win. What makes data durable keeps its defaults.
///
/// Under load that lasts, a checkpoint every few seconds would have nearly every page written to the log again as a whole. Files
/// of the log that are kept need not be made anew, which holds up everybody who commits. Reports are terse, as the detail of one
/// about a duplicate key is ids; hints are lost with it.
const DEFAULTS: [(&str, &str); 6] = [
    ("max_connections", "100"),
    ("max_wal_size", "4GB"),
    ("min_wal_size", "1GB"),
    ("log_error_verbosity", "terse"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
];
/// Between which bounds the memory for pages lies, in mebibytes. It is taken as it is needed.
const SHARED_BUFFERS: RangeInclusive<u64> = 128..=1024;

/// All it takes to start the server, again and again.
#[derive(Debug)]
pub(super) struct ServerPlan {
    pub(super) postgres: PathBuf,
    pub(super) cluster: PathBuf,
    pub(super) log: PathBuf,
    pub(super) socket: SocketFolder,
    pub(super) run_as: RunAs,
    pub(super) extra_settings: Vec<(String, String)>,
}

/// A running server, and the guard that ends it when we vanish.
#[derive(Debug)]
pub(super) struct Server {
    process: Child,
    pid: u32,
    guard: Guard,
}

/// The memory of the machine, in mebibytes; where it is not easily told, what any has that PostgreSQL is tried out on.
fn memory() -> u64 {
    #[cfg(target_os = "linux")]
    {
        let system = rustix::system::sysinfo();
        system.totalram.saturating_mul(system.mem_unit.into()) >> 20
    }
    #[cfg(not(target_os = "linux"))]
    2048
}

/// A quarter of the machine's memory, as PostgreSQL's manual advises, within bounds.
fn shared_buffers(memory: u64) -> u64 {
    (memory / 4).clamp(*SHARED_BUFFERS.start(), *SHARED_BUFFERS.end())
}

impl ServerPlan {
    /// Starts the server and waits until it accepts connections. What an earlier run left behind may
    /// make the first tries fail; any other failure is final at once.
    pub(super) async fn start(&self) -> Result<Server, EmbeddedError> {
        let mut tries_left = TRIES;
        loop {
            leftover::settle(&self.cluster).await?;
            let had_traces = leftover::has_traces(&self.cluster);
            let log_mark = self.log_length();
            let mut server = self.spawn()?;
            match timeout(READY_LIMIT, server.ready(&self.cluster)).await {
                Ok(Ok(())) => return Ok(server),
                Ok(Err(_)) if tries_left > 0 && (had_traces || leftover::has_traces(&self.cluster)) => server.bury(),
                Ok(Err(status)) => {
                    server.bury();
                    return Err(EmbeddedError::NotStarted {
                        log: self.log.clone(),
                        lines: self.log_since(log_mark, &status),
                    });
                }
                Err(_) => {
                    server.shut_down().await;
                    let (seconds, lines) = (READY_LIMIT.as_secs(), self.log_since(log_mark, "nothing"));
                    return Err(EmbeddedError::NotReady { seconds, log: self.log.clone(), lines });
                }
            }
            tries_left -= 1;
            sleep(TRY_PAUSE).await;
        }
    }

    /// Starts the server without waiting for anything.
    pub(super) fn spawn(&self) -> Result<Server, EmbeddedError> {
        let mut process = self.command()?.spawn().map_err(cannot_run(&self.postgres))?;
        let gone = || cannot_run(&self.postgres)(io::ErrorKind::NotFound.into());
        let pid = process.id().ok_or_else(gone)?;
        let guard = Guard::of_server(pid, &self.run_as).map_err(|error| {
            drop(process.start_kill());
            cannot_run(Path::new("sh"))(error)
        })?;
        Ok(Server { process, pid, guard })
    }

    /// In a process group of its own, so that Ctrl-C reaches us alone and we stop it in good order.
    fn command(&self) -> Result<Command, EmbeddedError> {
        let log = self.open_log().map_err(cannot("open", &self.log))?;
        let errors = log.try_clone().map_err(cannot("open", &self.log))?;
        let mut command = postgres_command(&self.postgres, &self.run_as);
        command.process_group(0).stdout(log).stderr(errors).arg("-D").arg(&self.cluster);
        for setting in self.settings() {
            command.arg("-c").arg(setting);
        }
        Ok(command)
    }

    /// Of two for one name the later wins: nobody moves the server off its socket.
    fn settings(&self) -> Vec<String> {
        let directories = self.socket.setting();
        let fixed = [
            ("listen_addresses", ""),
            ("unix_socket_directories", &directories),
            ("unix_socket_permissions", "0700"),
            ("port", PORT),
        ];
        let extra = self.extra_settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let buffers = format!("{}MB", shared_buffers(memory()));
        let defaults = DEFAULTS.into_iter().chain([("shared_buffers", &*buffers)]);
        defaults.chain(extra).chain(fixed).map(|(name, value)| format!("{name}={value}")).collect()
    }

    fn open_log(&self) -> io::Result<File> {
        OpenOptions::new().append(true).create(true).mode(0o600).open(&self.log)
    }

    fn log_length(&self) -> u64 {
        fs::metadata(&self.log).map_or(0, |metadata| metadata.len())
    }

    fn log_since(&self, mark: u64, otherwise: &str) -> String {
        let mut text = Vec::new();
        let read = File::open(&self.log).and_then(|mut log| {
            log.seek(SeekFrom::Start(mark))?;
            log.read_to_end(&mut text)
        });
        match read {
            Ok(length) if length > 0 => tail(&text, TAIL_LINES),
            _ => otherwise.to_owned(),
        }
    }
}

impl Server {
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until the server accepts connections; its status if it ends before.
    pub(super) async fn ready(&mut self, cluster: &Path) -> Result<(), String> {
        let pid = self.pid;
        let until_ready = async {
            while !leftover::is_ready(cluster, pid) {
                sleep(POLL_PAUSE).await;
            }
        };
        tokio::select! {
            status = self.ended() => Err(status),
            () = until_ready => Ok(()),
        }
    }

    /// Waits until the server ends, and says how it did.
    pub(super) async fn ended(&mut self) -> String {
        match self.process.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Lets go of a server that has ended.
    pub(super) fn bury(self) {
        self.guard.dismiss();
    }

    /// Fast shutdown, then immediate shutdown, then the kill no process withstands.
    pub(super) async fn shut_down(mut self) {
        for (signal, limit) in STOP_STEPS {
            // Not by the id alone: a server that was reaped meanwhile has none any more.
            if let Some(pid) = self.process.id() {
                leftover::send(pid, signal);
            }
            if timeout(limit, self.process.wait()).await.is_ok() {
                return self.bury();
            }
            tracing::warn!(pid = self.pid, ?signal, "PostgreSQL did not stop within {} s", limit.as_secs());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_get_a_quarter_of_the_memory_within_bounds() {
        assert_eq!([256, 2048, 65_536].map(shared_buffers), [128, 512, 1024]);
    }
}
