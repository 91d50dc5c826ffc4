//! The audit log: who was refused, and who did what only a few may do. Lines have the target `audit`, so that they can be
//! kept apart from others; they name principals and tenants, never persons.

use crate::{
    access::{Access, Admitted, Credentials, Refusal, Right},
    domain::Timestamp,
};

/// What lines of the audit log have as their target.
const TARGET: &str = "audit";

/// Notes what an operator may be asked about later.
pub(super) fn note(
    access: &Access,
    shown: &Credentials<'_>,
    now: Timestamp,
    right: Right,
    admitted: Result<&Admitted, &Refusal>,
) {
    match admitted {
        Ok(admitted) if right == Right::Admin => {
            let principal = admitted.principal.as_deref().unwrap_or("anybody");
            tracing::info!(target: TARGET, principal, tenant = admitted.tenant.as_str(), ?right, "admitted");
        }
        Ok(_) => {}
        Err(refusal) => {
            let principal = access.principal(shown, now);
            tracing::warn!(target: TARGET, principal = principal.as_deref().unwrap_or("unknown"), ?right, ?refusal, "refused");
        }
    }
}
