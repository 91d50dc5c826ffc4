//! Who has to come back later: more calls at once than a server takes on, more of one tenant than leave room for others, or
//! more in a second than a tenant may make. What is refused here has cost nothing yet. Health and policies keep their lane.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{domain::TenantId, service::TenantLimit};

/// How many tenants are remembered before those are forgotten that are at rest.
const MANY_TENANTS: usize = 1024;

/// How much is taken on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// The most calls at once; a stream counts as one.
    pub calls: usize,
    /// The most of one tenant.
    pub tenant_calls: usize,
    /// The most calls and items of streams of one tenant in a second, saved up for at most a second; 0 for any number.
    pub tenant_rate: u32,
}

/// Lets calls in. Cloning is cheap; all clones count together.
#[derive(Clone, Debug)]
pub(super) struct Admission {
    limits: AdmissionLimits,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    calls: usize,
    tenants: HashMap<TenantId, Tenant>,
}

#[derive(Debug)]
struct Tenant {
    calls: usize,
    /// How much may be done at once, as of a time.
    saved: f64,
    as_of: Instant,
}

/// Why a call is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Crowded {
    /// There are too many at once.
    #[error("too many calls are under way")]
    Calls,
    /// The tenant has reached a limit of its own.
    #[error("the tenant has reached a limit")]
    Tenant(#[from] TenantLimit),
}

/// A call that was let in, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    admission: Admission,
    tenant: TenantId,
}

impl Admission {
    pub(super) fn new(limits: AdmissionLimits) -> Self {
        Self { limits, counts: Arc::default() }
    }

    /// Lets a call in, or not.
    pub(super) fn enter(&self, tenant: &TenantId) -> Result<Turn, Crowded> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.calls >= self.limits.calls {
            return Err(Crowded::Calls);
        }
        if counts.tenants.len() >= MANY_TENANTS {
            counts.tenants.retain(|_, tenant| tenant.calls > 0 || !tenant.is_rested());
        }
        let rate = f64::from(self.limits.tenant_rate);
        let fresh = || Tenant { calls: 0, saved: rate, as_of: Instant::now() };
        let of_tenant = counts.tenants.entry(tenant.clone()).or_insert_with(fresh);
        if of_tenant.calls >= self.limits.tenant_calls {
            return Err(TenantLimit::Calls(self.limits.tenant_calls).into());
        }
        of_tenant.spend(rate).map_err(|_| TenantLimit::CallsPerSecond(self.limits.tenant_rate))?;
        of_tenant.calls += 1;
        counts.calls += 1;
        Ok(Turn { admission: self.clone(), tenant: tenant.clone() })
    }
}

impl Turn {
    /// Waits until the tenant may do one thing more.
    pub(super) async fn next(&self) {
        let rate = f64::from(self.admission.limits.tenant_rate);
        while rate > 0.0
            && let Err(wait) = self.spend(rate)
        {
            sleep(wait).await;
        }
    }

    fn spend(&self, rate: f64) -> Result<(), Duration> {
        let mut counts = self.admission.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.tenants.get_mut(&self.tenant).map_or(Ok(()), |tenant| tenant.spend(rate))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut counts = self.admission.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.calls = counts.calls.saturating_sub(1);
        if let Some(tenant) = counts.tenants.get_mut(&self.tenant) {
            tenant.calls = tenant.calls.saturating_sub(1);
        }
    }
}

impl Tenant {
    /// Spends what one thing costs, or tells how long to save for it.
    fn spend(&mut self, rate: f64) -> Result<(), Duration> {
        if rate <= 0.0 {
            return Ok(());
        }
        let now = Instant::now();
        self.saved = (self.saved + (now - self.as_of).as_secs_f64() * rate).min(rate);
        self.as_of = now;
        if self.saved < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.saved) / rate));
        }
        self.saved -= 1.0;
        Ok(())
    }

    fn is_rested(&self) -> bool {
        self.as_of.elapsed() >= Duration::from_secs(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).unwrap()
    }

    #[tokio::test]
    async fn one_tenant_leaves_room_for_others() {
        let admission = Admission::new(AdmissionLimits { calls: 3, tenant_calls: 2, tenant_rate: 0 });
        let first = admission.enter(&tenant("a")).unwrap();
        let _second = admission.enter(&tenant("a")).unwrap();
        assert_eq!(admission.enter(&tenant("a")).unwrap_err(), TenantLimit::Calls(2).into());
        let _third = admission.enter(&tenant("b")).unwrap();
        assert_eq!(admission.enter(&tenant("b")).unwrap_err(), Crowded::Calls);
        drop(first);
        admission.enter(&tenant("a")).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_saves_up_a_second_at_most() {
        let admission = Admission::new(AdmissionLimits { calls: 100, tenant_calls: 100, tenant_rate: 10 });
        let calls = || (0..50).map_while(|_| admission.enter(&tenant("a")).ok()).count();
        assert_eq!(calls(), 10);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(calls(), 5);
        tokio::time::advance(Duration::from_hours(1)).await;
        assert_eq!(calls(), 10);
        assert_eq!(admission.enter(&tenant("a")).unwrap_err(), TenantLimit::CallsPerSecond(10).into());
        admission.enter(&tenant("b")).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn items_of_a_stream_wait_for_their_turn() {
        let admission = Admission::new(AdmissionLimits { calls: 100, tenant_calls: 100, tenant_rate: 10 });
        let turn = admission.enter(&tenant("a")).unwrap();
        let begun = Instant::now();
        for _ in 0..19 {
            turn.next().await;
        }
        assert!((0.9..1.1).contains(&begun.elapsed().as_secs_f64()), "{:?}", begun.elapsed());
    }
}
