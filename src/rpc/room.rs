//! Room for connections: how many there are at once, which of them are in use, and which one goes when another needs its place.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

/// How often a connection that finds no place looks again for one that can be taken.
const LOOK: Duration = Duration::from_millis(100);

/// The places of connections.
pub(super) struct Room {
    places: Arc<Semaphore>,
    seats: Mutex<HashMap<u64, Arc<Seat>>>,
    taken: AtomicU64,
}

/// The place of one connection, until it is dropped.
pub(super) struct Place {
    room: Arc<Room>,
    number: u64,
    seat: Arc<Seat>,
    _permit: OwnedSemaphorePermit,
}

/// How one connection is used. Calls change it without a lock.
pub(super) struct Seat {
    began: Instant,
    has_called: AtomicBool,
    /// Calls under way.
    calls: AtomicUsize,
    /// When a call last began or ended, in milliseconds after `began`.
    used_ms: AtomicU64,
    leave: CancellationToken,
}

/// A call under way, until it is dropped.
pub(super) struct Use(Arc<Seat>);

impl Room {
    pub(super) fn new(most: usize) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(most));
        Arc::new(Self { places, seats: Mutex::default(), taken: AtomicU64::new(0) })
    }

    /// A place for a connection. While there is none, the oldest connection without a call yet leaves, or else the one that
    /// has been idle for longest; connections with calls under way stay.
    pub(super) async fn place(self: &Arc<Self>) -> Place {
        let permit = loop {
            if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
                break permit;
            }
            self.send_one_away();
            if let Ok(Ok(permit)) = timeout(LOOK, Arc::clone(&self.places).acquire_owned()).await {
                break permit;
            }
        };
        let (number, seat) = (self.taken.fetch_add(1, Ordering::Relaxed), Arc::new(Seat::new()));
        self.seats.lock().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::clone(&seat));
        Place { room: Arc::clone(self), number, seat, _permit: permit }
    }

    fn send_one_away(&self) {
        let seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = seats.values().filter(|seat| !seat.leave.is_cancelled() && !seat.is_busy());
        if let Some(seat) = idle.min_by_key(|seat| (seat.has_called(), seat.used())) {
            seat.leave.cancel();
        }
    }
}

impl Place {
    pub(super) fn seat(&self) -> &Arc<Seat> {
        &self.seat
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.seats.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

impl Seat {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            has_called: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            used_ms: AtomicU64::new(0),
            leave: CancellationToken::new(),
        }
    }

    /// A call begins that keeps the connection until it has ended.
    pub(super) fn begin(self: &Arc<Self>) -> Use {
        self.calls.fetch_add(1, Ordering::AcqRel);
        self.touch();
        Use(Arc::clone(self))
    }

    /// The connection is used at this moment.
    pub(super) fn touch(&self) {
        let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.used_ms.store(elapsed, Ordering::Release);
        if !self.has_called() {
            self.has_called.store(true, Ordering::Release);
        }
    }

    /// Waits until another connection needs the place.
    pub(super) async fn left(&self) {
        self.leave.cancelled().await;
    }

    /// Waits until the connection has had no call under way for as long as `idle`.
    pub(super) async fn unused(&self, idle: Duration) {
        loop {
            let until = self.used() + idle;
            if self.is_busy() {
                sleep(idle).await;
            } else if until <= Instant::now() {
                return;
            } else {
                sleep_until(until).await;
            }
        }
    }

    /// Whether calls are under way.
    pub(super) fn is_busy(&self) -> bool {
        self.calls.load(Ordering::Acquire) > 0
    }

    fn has_called(&self) -> bool {
        self.has_called.load(Ordering::Acquire)
    }

    fn used(&self) -> Instant {
        self.began + Duration::from_millis(self.used_ms.load(Ordering::Acquire))
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        self.0.touch();
        self.0.calls.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether each of these has been told to leave.
    fn told<const N: usize>(places: [&Place; N]) -> [bool; N] {
        places.map(|place| place.seat.leave.is_cancelled())
    }

    #[tokio::test(start_paused = true)]
    async fn silent_connections_leave_first_then_idle_ones_and_busy_ones_stay() {
        let room = Room::new(4);
        let busy = room.place().await;
        let under_way = busy.seat().begin();
        let idle = room.place().await;
        drop(idle.seat().begin());
        sleep(Duration::from_secs(1)).await;
        let silent = room.place().await;
        sleep(Duration::from_secs(1)).await;
        let recent = room.place().await;
        drop(recent.seat().begin());
        room.send_one_away();
        assert_eq!(told([&busy, &idle, &silent, &recent]), [false, false, true, false]);
        drop(silent);
        room.send_one_away();
        assert_eq!(told([&busy, &idle, &recent]), [false, true, false]);
        room.send_one_away();
        assert_eq!(told([&busy, &idle, &recent]), [false, true, true]);
        room.send_one_away();
        assert_eq!(told([&busy]), [false]);
        drop(under_way);
        room.send_one_away();
        assert_eq!(told([&busy]), [true]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_unused_without_a_call_or_after_its_last() {
        const IDLE: Duration = Duration::from_mins(5);
        let seat = Arc::new(Seat::new());
        seat.unused(IDLE).await;
        assert_eq!(seat.began.elapsed(), IDLE);
        let seat = Arc::new(Seat::new());
        let call = seat.begin();
        tokio::spawn(async move {
            sleep(IDLE * 3 + Duration::from_secs(7)).await;
            drop(call);
        });
        seat.unused(IDLE).await;
        assert_eq!(seat.began.elapsed(), IDLE * 4 + Duration::from_secs(7));
    }
}
