//! The network between a server and its database, to be cut, silenced, or lost at the worst moment.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use sqlx::postgres::PgConnectOptions;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use crate::process::free_address;

/// What a simple query for a commit looks like on the wire.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";
/// What is said in the statement that records and commits by itself, and in no other.
const RECORDING: &[u8] = b"INSERT INTO unfolded";
/// How the names of prepared statements begin.
const NAME: &[u8] = b"sqlx_s_";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Forward,
    Cut,
    Silent,
}

/// What becomes of connections.
#[derive(Clone, Copy)]
struct State {
    mode: Mode,
    /// How often all connections were cut, so that none outlives a cut that is over before it was noticed.
    cuts: u32,
}

/// How many commits of what is recorded are still to be lost, and on which way; and whether all is to fall silent at a commit.
#[derive(Default)]
struct Losses {
    requests: AtomicU32,
    answers: AtomicU32,
    silent: AtomicU32,
}

impl Losses {
    fn take(count: &AtomicU32) -> bool {
        count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}

/// A port that leads to a PostgreSQL's socket.
pub struct Proxy {
    address: SocketAddr,
    options: PgConnectOptions,
    state: watch::Sender<State>,
    losses: Arc<Losses>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A way to the database at `url`.
    pub async fn start(url: &str) -> Self {
        let (state, _) = watch::channel(State { mode: Mode::Forward, cuts: 0 });
        let proxy = Self {
            address: free_address(),
            options: url.parse().unwrap(),
            state,
            losses: Arc::default(),
            accepting: tokio::spawn(async {}),
        };
        proxy.forwarding().await
    }

    /// The database's URL by this way.
    pub fn url(&self) -> String {
        let (user, database) = (self.options.get_username(), self.options.get_database().unwrap());
        format!("postgresql://{user}@{}/{database}?sslmode=disable", self.address)
    }

    /// Forwards from now on, on new connections.
    pub async fn forwarding(mut self) -> Self {
        let listener = {
            self.accepting.abort();
            // Wait until it lets go of the port.
            let _ = (&mut self.accepting).await;
            TcpListener::bind(self.address).await.unwrap()
        };
        self.resume();
        let socket = self.options.get_socket().unwrap().join(".s.PGSQL.5432");
        self.accepting = tokio::spawn(accept(listener, socket, self.state.clone(), Arc::clone(&self.losses)));
        self
    }

    /// Cuts all connections and refuses others.
    pub fn refuse(&self) {
        self.accepting.abort();
        self.cut();
    }

    /// Cuts all connections, and others as soon as they are made.
    pub fn cut(&self) {
        self.state.send_modify(|state| *state = State { mode: Mode::Cut, cuts: state.cuts + 1 });
    }

    /// Lets new connections through again.
    pub fn resume(&self) {
        self.state.send_modify(|state| state.mode = Mode::Forward);
    }

    /// Cuts the connections of the next commits of what is recorded: before PostgreSQL hears of them, then after it has obeyed.
    pub fn lose_commits(&self, requests: u32, answers: u32) {
        self.losses.requests.store(requests, Ordering::SeqCst);
        self.losses.answers.store(answers, Ordering::SeqCst);
    }

    /// Lets nothing through any more from the next commit on, and tells nobody. Connections that were silenced stay so.
    pub fn silence_at_commit(&self) {
        self.losses.silent.store(1, Ordering::SeqCst);
    }

    /// How many commits are still to be lost.
    pub fn commits_to_lose(&self) -> u32 {
        let Losses { requests, answers, silent } = &*self.losses;
        [requests, answers, silent].into_iter().map(|count| count.load(Ordering::SeqCst)).sum()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, socket: PathBuf, state: watch::Sender<State>, losses: Arc<Losses>) {
    let mut connections = JoinSet::new();
    loop {
        let (near, _) = listener.accept().await.unwrap();
        connections.spawn(carry(near, socket.clone(), state.clone(), Arc::clone(&losses)));
    }
}

async fn carry(
    mut near: TcpStream,
    socket: PathBuf,
    states: watch::Sender<State>,
    losses: Arc<Losses>,
) -> io::Result<()> {
    let mut state = states.subscribe();
    let cuts = state.borrow().cuts;
    let mut far = UnixStream::connect(socket).await?;
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    // How the statement that records is called on this connection, once it is prepared.
    let mut recording = None;
    loop {
        let now = *state.borrow_and_update();
        match now.mode {
            Mode::Forward if now.cuts == cuts => {}
            Mode::Forward | Mode::Cut => return Ok(()),
            Mode::Silent => return std::future::pending().await,
        }
        tokio::select! {
            _ = state.changed() => {}
            length = near.read(&mut up) => {
                let bytes = some(&up, length?)?;
                let records = recording.as_deref().is_some_and(|name| find(bytes, name).is_some());
                if let Some(text) = find(bytes, RECORDING) {
                    recording = Some(bound(&bytes[..text]));
                }
                if records && Losses::take(&losses.requests) {
                    return Ok(());
                }
                if (records || find(bytes, COMMIT).is_some()) && Losses::take(&losses.silent) {
                    states.send_modify(|state| state.mode = Mode::Silent);
                    continue;
                }
                far.write_all(bytes).await?;
                if records && Losses::take(&losses.answers) {
                    // Its answer tells that PostgreSQL has committed.
                    let length = far.read(&mut down).await?;
                    return some(&down, length).map(|_| ());
                }
            }
            length = far.read(&mut down) => near.write_all(some(&down, length?)?).await?,
        }
    }
}

/// What a request to run the statement holds whose preparation begins with these bytes: no portal, then its name.
fn bound(preparation: &[u8]) -> Vec<u8> {
    let begin = (0..preparation.len()).rev().find(|begin| preparation[*begin..].starts_with(NAME)).unwrap();
    let name = preparation[begin..].split(|byte| *byte == 0).next().unwrap();
    [b"\0", name, b"\0"].concat()
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn some(buffer: &[u8], length: usize) -> io::Result<&[u8]> {
    if length == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(&buffer[..length]) }
}
