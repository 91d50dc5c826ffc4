//! The audit log: who was refused, and who did what only a few may do. Lines have the target `audit`, so that they can be
//! kept apart from others; they name principals and tenants, never persons. Whoever is refused over and over cannot fill it:
//! of refusals of one kind only some a second are written, and the next line says how many were left out.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::access::{Admitted, Refusal, Right};

/// What lines of the audit log have as their target.
const TARGET: &str = "audit";
/// How many refusals of one principal, and of all who are not known, are written in [`WINDOW`].
const MAX_LINES: u32 = 10;
/// For how long they are counted.
const WINDOW: Duration = Duration::from_secs(1);

/// Writes the audit log. Cloning is cheap; all clones count together.
#[derive(Clone, Default)]
pub(super) struct Audit(Arc<Mutex<HashMap<Option<Arc<str>>, Count>>>);

/// The refusals of one principal, or of all who are not known.
struct Count {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl Audit {
    /// Notes what an operator may be asked about later.
    pub(super) fn note(&self, right: Right, admitted: &Result<Admitted, Refusal>) {
        match admitted {
            Ok(Admitted { principal, tenant }) if right == Right::Admin => {
                let principal = principal.as_deref().unwrap_or("anybody");
                tracing::info!(target: TARGET, principal, tenant = tenant.as_str(), ?right, "admitted");
            }
            Ok(_) => {}
            Err(Refusal::Denied(principal)) => {
                if let Some(left_out) = self.turn(Some(principal)) {
                    tracing::warn!(target: TARGET, principal = &**principal, ?right, left_out, "denied");
                }
            }
            Err(Refusal::Unknown) => {
                if let Some(left_out) = self.turn(None) {
                    tracing::warn!(target: TARGET, ?right, left_out, "refused: nobody known");
                }
            }
        }
    }

    /// Whether a refusal is to be written, and how many before it were not. Principals are as many as the access file names.
    fn turn(&self, principal: Option<&Arc<str>>) -> Option<u64> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Count { since: Instant::now(), lines: 0, left_out: 0 };
        let count = counts.entry(principal.cloned()).or_insert_with(fresh);
        if count.since.elapsed() >= WINDOW {
            (count.since, count.lines) = (Instant::now(), 0);
        }
        if count.lines == MAX_LINES {
            count.left_out += 1;
            return None;
        }
        count.lines += 1;
        Some(std::mem::take(&mut count.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn refusals_are_written_some_a_second_and_counted_beyond() {
        let (audit, noisy, quiet) = (Audit::default(), Arc::from("noisy"), Arc::from("quiet"));
        let written = |who: Option<&Arc<str>>| (0..1000).filter_map(|_| audit.turn(who)).collect::<Vec<_>>();
        assert_eq!(written(Some(&noisy)), [0; 10]);
        assert_eq!(written(None), [0; 10]);
        assert_eq!(audit.turn(Some(&quiet)), Some(0), "one principal does not hide another");
        tokio::time::advance(WINDOW).await;
        assert_eq!(written(Some(&noisy))[..2], [990, 0]);
        tokio::time::advance(WINDOW).await;
        assert_eq!(audit.turn(None), Some(990));
    }
}
