//! Whether to try again, when, and how often altogether. The rules are those of gRPC's own retries (proposal A6), with what
//! the server says about when to come back.

use std::{
    error::Error as _,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// The first pause is at most this long, and each is at most twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// No pause of one's own choice is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How many tokens there are at most; a failure takes one.
const TOKENS: u32 = 100;
/// Tokens are counted in parts of this many.
const PARTS: u32 = 10;

/// How long to wait before trying again after a failure; `None` when that would not help.
pub(super) fn pause_after(status: &Status, attempts: u32) -> Option<Duration> {
    let advised = status.get_error_details().retry_info().and_then(|info| info.retry_delay);
    let helps = match status.code() {
        // ABORTED ends a stream that was not used.
        Code::Unavailable | Code::Aborted => true,
        Code::ResourceExhausted => advised.is_some(),
        // No answer was in time, and none will be.
        Code::DeadlineExceeded => false,
        // A connection was lost, or something between here and the server speaks: the server would say why.
        Code::Unknown | Code::Cancelled => status.details().is_empty(),
        _ => status.source().is_some(),
    };
    // Callers who failed together do not come back together.
    helps.then(|| advised.unwrap_or_default() + pause(attempts, chance()))
}

/// A pause that grows with the attempts, and is drawn from all up to that long (*full jitter*: Brooker, 2015).
fn pause(attempts: u32, chance: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1)));
    doubled.min(LONGEST_PAUSE).mul_f64(chance)
}

/// From 0 up to and without 1.
fn chance() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness all wait as long as they may.
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / 4_294_967_296.0,
        Err(_) => 1.0,
    }
}

/// What all calls of a client may spend on trying again: when more than a few of many fail, trying again only adds to the
/// load. Trying again is allowed while more than half of the tokens are there; ten successes bring back one.
#[derive(Debug)]
pub(super) struct Budget(AtomicU32);

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicU32::new(TOKENS * PARTS))
    }
}

impl Budget {
    pub(super) fn succeeded(&self) {
        self.change(|parts| (parts + 1).min(TOKENS * PARTS));
    }

    /// Notes a failure after which trying again can help, and tells whether there is a token left for that.
    pub(super) fn failed(&self) -> bool {
        self.change(|parts| parts.saturating_sub(PARTS)) > TOKENS * PARTS / 2
    }

    fn change(&self, change: impl Fn(u32) -> u32) -> u32 {
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |parts| Some(change(parts)));
        change(before.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    fn advised(code: Code, delay: Option<Duration>) -> Status {
        Status::with_error_details(code, "no", ErrorDetails::with_retry_info(delay))
    }

    #[test]
    fn tries_again_only_where_that_helps() {
        let second = Some(Duration::from_secs(1));
        assert!(pause_after(&Status::unavailable("gone"), 1) < Some(FIRST_PAUSE));
        assert!(pause_after(&advised(Code::Unavailable, second), 1) >= second);
        assert!(pause_after(&advised(Code::ResourceExhausted, second), 1) >= second);
        assert!(pause_after(&Status::cancelled("stream reset"), 1).is_some());
        assert!(pause_after(&Status::aborted("the stream was idle"), 1).is_some());
        let transport = Status::from_error(Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionReset)));
        assert!(pause_after(&transport, 1).is_some());
        let explained = Status::with_details(Code::Unknown, "why", vec![1].into());
        for final_one in [
            Status::resource_exhausted("too much history"),
            Status::deadline_exceeded("late"),
            Status::invalid_argument("no"),
            Status::already_exists("other content"),
            Status::internal("defect"),
            explained,
        ] {
            assert_eq!(pause_after(&final_one, 1), None, "{final_one:?}");
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let longest = |attempts| pause(attempts, 1.0).as_millis();
        assert_eq!([1, 2, 3, 7, 60, u32::MAX].map(longest), [100, 200, 400, 5000, 5000, 5000]);
        assert_eq!(pause(7, 0.0), Duration::ZERO);
    }

    #[test]
    fn a_budget_is_spent_and_earned_back() {
        let budget = Budget::default();
        let allowed = (0..200).filter(|_| budget.failed()).count();
        assert_eq!(allowed, 49, "until half of it is spent");
        for _ in 0..510 {
            budget.succeeded();
        }
        assert!(!budget.failed(), "51 tokens are one too few after a failure");
        for _ in 0..20 {
            budget.succeeded();
        }
        assert!(budget.failed());
        (0..5000).for_each(|_| budget.succeeded());
        assert_eq!(budget.0.load(Ordering::Relaxed), TOKENS * PARTS);
    }
}
