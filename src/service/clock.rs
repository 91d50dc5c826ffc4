//! The one place that reads a clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use crate::domain::Timestamp;

/// Tells the time. Cloning is cheap, and clones share what was stamped last.
#[derive(Clone)]
pub struct Clock {
    read: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    last_stamp: Arc<AtomicI64>,
}

impl Clock {
    /// The clock of this machine.
    pub fn system() -> Self {
        Self::from_fn(|| {
            #[expect(clippy::disallowed_methods, reason = "this is the clock")]
            let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(elapsed.as_micros()).ok().and_then(Timestamp::from_micros).unwrap_or(Timestamp::MAX)
        })
    }

    /// A clock that tells what `read` says.
    pub fn from_fn(read: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self { read: Arc::new(read), last_stamp: Arc::new(AtomicI64::new(0)) }
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        (self.read)()
    }

    /// The time, moved on by as little as it takes to be later than every stamp before: each is unique in this process,
    /// also when the clock stands still or goes back.
    pub fn stamp(&self) -> Timestamp {
        let now = self.now().micros();
        let next = |last: i64| now.max(last.saturating_add(1));
        let last = self.last_stamp.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
        Timestamp::from_micros(last.map_or(now, next)).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_unique_when_the_clock_stands_still() {
        let clock = Clock::from_fn(|| Timestamp::from_micros(7).unwrap());
        assert_eq!([clock.stamp(), clock.stamp(), clock.stamp()].map(Timestamp::micros), [7, 8, 9]);
    }
}
