//! Who has to come back later: more calls at once than a server takes on, more of one tenant than leave room for others, or
//! more in a second than a tenant may make. What is refused here has cost nothing yet. Health and policies keep their lane.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{
    domain::TenantId,
    service::{ServiceError, TenantLimit},
};

use super::unread::{SMALL_ANSWER_BYTES, Unread, Waiting};

/// How many tenants are remembered before those are forgotten that are at rest.
const MANY_TENANTS: usize = 1024;

/// How many bytes of answers may be unread in all.
const MAX_UNREAD_BYTES: usize = 128 * 1024 * 1024;
/// How many of them may be of one tenant.
const MAX_TENANT_UNREAD_BYTES: usize = MAX_UNREAD_BYTES / 4;

/// How much is taken on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// The most calls at once; a stream counts as one.
    pub calls: usize,
    /// The most of one tenant.
    pub tenant_calls: usize,
    /// The most streams of one tenant. All streams together take at most half of `calls`, and those of one tenant at most half
    /// of `tenant_calls`: single calls always find room beside them.
    pub tenant_streams: usize,
    /// The most calls and items of streams of one tenant in a second, saved up for at most a second; 0 for any number.
    pub tenant_rate: u32,
}

impl AdmissionLimits {
    /// The most streams at once.
    fn streams(&self) -> usize {
        (self.calls / 2).max(1)
    }

    /// The most streams of one tenant at once.
    fn streams_of_tenant(&self) -> usize {
        self.tenant_streams.min(self.tenant_calls / 2).max(1)
    }
}

/// What a call is to admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Request and answer.
    Single,
    /// Open for as long as the caller likes.
    Stream,
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
    streams: usize,
    unread_bytes: usize,
    tenants: HashMap<TenantId, Tenant>,
}

#[derive(Debug)]
struct Tenant {
    calls: usize,
    streams: usize,
    unread_bytes: usize,
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
    /// There are too many streams at once.
    #[error("too many streams are open")]
    Streams,
    /// Too much of the answers is unread.
    #[error("too many bytes of answers are not read yet")]
    Answers,
    /// Too much of the answers on one connection is unread.
    #[error("too many bytes of answers on one connection are not read yet")]
    Connection,
    /// The tenant has reached a limit of its own.
    #[error("the tenant has reached a limit")]
    Tenant(#[from] TenantLimit),
}

impl From<Crowded> for ServiceError {
    fn from(crowded: Crowded) -> Self {
        match crowded {
            Crowded::Tenant(limit) => Self::TenantLimited(limit),
            crowded => Self::Overloaded(crowded.into()),
        }
    }
}

/// A call that was let in, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    admission: Admission,
    tenant: TenantId,
    shape: Shape,
    connection: Unread,
    /// Bytes of its answer.
    unread_bytes: AtomicUsize,
}

impl Admission {
    pub(super) fn new(limits: AdmissionLimits) -> Self {
        Self { limits, counts: Arc::default() }
    }

    /// Lets a call in, or not.
    pub(super) fn enter(&self, tenant: &TenantId, shape: Shape, connection: Unread) -> Result<Turn, Crowded> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let (limits, is_stream) = (&self.limits, shape == Shape::Stream);
        if counts.calls >= limits.calls {
            return Err(Crowded::Calls);
        }
        if is_stream && counts.streams >= limits.streams() {
            return Err(Crowded::Streams);
        }
        if counts.tenants.len() >= MANY_TENANTS {
            counts.tenants.retain(|_, tenant| tenant.calls > 0 || !tenant.is_rested());
        }
        let rate = f64::from(limits.tenant_rate);
        let fresh = || Tenant { calls: 0, streams: 0, unread_bytes: 0, saved: rate, as_of: Instant::now() };
        let of_tenant = counts.tenants.entry(tenant.clone()).or_insert_with(fresh);
        if of_tenant.calls >= limits.tenant_calls {
            return Err(TenantLimit::Calls(limits.tenant_calls).into());
        }
        if is_stream && of_tenant.streams >= limits.streams_of_tenant() {
            return Err(TenantLimit::Streams(limits.streams_of_tenant()).into());
        }
        of_tenant.spend(rate).map_err(|_| TenantLimit::CallsPerSecond(limits.tenant_rate))?;
        of_tenant.calls += 1;
        of_tenant.streams += usize::from(is_stream);
        counts.calls += 1;
        counts.streams += usize::from(is_stream);
        let unread_bytes = AtomicUsize::new(0);
        Ok(Turn { admission: self.clone(), tenant: tenant.clone(), shape, connection, unread_bytes })
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

    /// Lets the answer wait for its caller, who has it once the turn is dropped, or not.
    pub(super) fn answer(&self, bytes: usize) -> Result<Waiting, Crowded> {
        let waiting = self.connection.wait(bytes)?;
        let mut counts = self.admission.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let in_all = counts.unread_bytes + bytes;
        let of_tenant = counts.tenants.get(&self.tenant).map_or(0, |tenant| tenant.unread_bytes) + bytes;
        if bytes > SMALL_ANSWER_BYTES && of_tenant > MAX_TENANT_UNREAD_BYTES {
            return Err(TenantLimit::AnswerBytes(MAX_TENANT_UNREAD_BYTES).into());
        }
        if bytes > SMALL_ANSWER_BYTES && in_all > MAX_UNREAD_BYTES {
            return Err(Crowded::Answers);
        }
        counts.unread_bytes = in_all;
        if let Some(tenant) = counts.tenants.get_mut(&self.tenant) {
            tenant.unread_bytes = of_tenant;
        }
        self.unread_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(waiting)
    }

    fn spend(&self, rate: f64) -> Result<(), Duration> {
        let mut counts = self.admission.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.tenants.get_mut(&self.tenant).map_or(Ok(()), |tenant| tenant.spend(rate))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut counts = self.admission.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let streams = usize::from(self.shape == Shape::Stream);
        let unread_bytes = self.unread_bytes.load(Ordering::Relaxed);
        counts.calls = counts.calls.saturating_sub(1);
        counts.streams = counts.streams.saturating_sub(streams);
        counts.unread_bytes = counts.unread_bytes.saturating_sub(unread_bytes);
        if let Some(tenant) = counts.tenants.get_mut(&self.tenant) {
            tenant.calls = tenant.calls.saturating_sub(1);
            tenant.streams = tenant.streams.saturating_sub(streams);
            tenant.unread_bytes = tenant.unread_bytes.saturating_sub(unread_bytes);
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

    fn limits(calls: usize, tenant_calls: usize, tenant_rate: u32) -> AdmissionLimits {
        AdmissionLimits { calls, tenant_calls, tenant_streams: 256, tenant_rate }
    }

    #[tokio::test]
    async fn streams_leave_room_for_single_calls() {
        let admission = Admission::new(AdmissionLimits { tenant_streams: 3, ..limits(10, 8, 0) });
        let stream = |name| admission.enter(&tenant(name), Shape::Stream, Unread::default());
        let mut open: Vec<_> = (0..3).map(|_| stream("a").unwrap()).collect();
        assert_eq!(stream("a").unwrap_err(), TenantLimit::Streams(3).into());
        open.extend((0..2).map(|_| stream("b").unwrap()));
        assert_eq!(stream("b").unwrap_err(), Crowded::Streams, "half of all calls");
        let _single: Vec<_> =
            (0..5).map(|_| admission.enter(&tenant("a"), Shape::Single, Unread::default()).unwrap()).collect();
        assert_eq!(admission.enter(&tenant("b"), Shape::Single, Unread::default()).unwrap_err(), Crowded::Calls);
        open.pop();
        stream("b").unwrap();
        let admission = Admission::new(limits(10, 4, 0));
        let _open: Vec<_> =
            (0..2).map(|_| admission.enter(&tenant("a"), Shape::Stream, Unread::default()).unwrap()).collect();
        let refused = admission.enter(&tenant("a"), Shape::Stream, Unread::default()).unwrap_err();
        assert_eq!(refused, TenantLimit::Streams(2).into(), "half of the tenant's calls");
    }

    #[tokio::test]
    async fn unread_answers_of_one_tenant_leave_room_for_those_of_others() {
        const LARGE: usize = MAX_TENANT_UNREAD_BYTES / 4;
        let admission = Admission::new(limits(1000, 1000, 0));
        let answered = |name: &str, bytes| {
            let turn = admission.enter(&tenant(name), Shape::Single, Unread::default()).unwrap();
            turn.answer(bytes).map(|_| turn)
        };
        let mut unread: Vec<_> = (0..4).map(|_| answered("a", LARGE).unwrap()).collect();
        let limit = TenantLimit::AnswerBytes(MAX_TENANT_UNREAD_BYTES);
        assert_eq!(answered("a", SMALL_ANSWER_BYTES + 1).unwrap_err(), limit.into());
        unread.push(answered("a", SMALL_ANSWER_BYTES).unwrap());
        unread.extend(["b", "c", "d"].iter().flat_map(|name| (0..4).filter_map(|_| answered(name, LARGE).ok())));
        assert_eq!(unread.len(), 16, "one has no room, as the small one is counted");
        assert_eq!(answered("e", LARGE).unwrap_err(), Crowded::Answers);
        unread.clear();
        answered("e", LARGE).unwrap();
        assert_eq!(admission.counts.lock().unwrap().unread_bytes, 0);
    }

    #[tokio::test]
    async fn one_tenant_leaves_room_for_others() {
        let admission = Admission::new(limits(3, 2, 0));
        let first = admission.enter(&tenant("a"), Shape::Single, Unread::default()).unwrap();
        let _second = admission.enter(&tenant("a"), Shape::Single, Unread::default()).unwrap();
        assert_eq!(
            admission.enter(&tenant("a"), Shape::Single, Unread::default()).unwrap_err(),
            TenantLimit::Calls(2).into()
        );
        let _third = admission.enter(&tenant("b"), Shape::Single, Unread::default()).unwrap();
        assert_eq!(admission.enter(&tenant("b"), Shape::Single, Unread::default()).unwrap_err(), Crowded::Calls);
        drop(first);
        admission.enter(&tenant("a"), Shape::Single, Unread::default()).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_saves_up_a_second_at_most() {
        let admission = Admission::new(limits(100, 100, 10));
        let calls =
            || (0..50).map_while(|_| admission.enter(&tenant("a"), Shape::Single, Unread::default()).ok()).count();
        assert_eq!(calls(), 10);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(calls(), 5);
        tokio::time::advance(Duration::from_hours(1)).await;
        assert_eq!(calls(), 10);
        assert_eq!(
            admission.enter(&tenant("a"), Shape::Single, Unread::default()).unwrap_err(),
            TenantLimit::CallsPerSecond(10).into()
        );
        admission.enter(&tenant("b"), Shape::Single, Unread::default()).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn items_of_a_stream_wait_for_their_turn() {
        let admission = Admission::new(limits(100, 100, 10));
        let turn = admission.enter(&tenant("a"), Shape::Single, Unread::default()).unwrap();
        let begun = Instant::now();
        for _ in 0..19 {
            turn.next().await;
        }
        assert!((0.9..1.1).contains(&begun.elapsed().as_secs_f64()), "{:?}", begun.elapsed());
    }
}
