//! The audit log: who was refused, and who did what only a few may do. Lines have the target `audit`, so that they can be
//! kept apart from others; they name principals and tenants, never persons.

use crate::access::{Admitted, Refusal, Right};

/// What lines of the audit log have as their target.
const TARGET: &str = "audit";

/// Notes what an operator may be asked about later.
pub(super) fn note(right: Right, admitted: &Result<Admitted, Refusal>) {
    match admitted {
        Ok(Admitted { principal, tenant }) if right == Right::Admin => {
            let principal = principal.as_deref().unwrap_or("anybody");
            tracing::info!(target: TARGET, principal, tenant = tenant.as_str(), ?right, "admitted");
        }
        Ok(_) => {}
        Err(Refusal::Denied(principal)) => tracing::warn!(target: TARGET, principal = &**principal, ?right, "denied"),
        Err(Refusal::Unknown) => tracing::warn!(target: TARGET, ?right, "refused: nobody known"),
    }
}
