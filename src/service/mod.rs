//! The use cases and all their control flow: what is read before what is decided before what is written. Nothing here
//! knows of the wire or of SQL. The clock is read here and nowhere else.

mod answers;
mod clock;
mod error;
mod policy;
mod rank;
mod record;
mod replica;
mod views;

use std::{future::Future, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{
    domain::Timestamp,
    store::{Store, Writer},
    telemetry::Metrics,
};

pub use crate::store::PolicyEntry;

use answers::Answers;
use views::Views;

pub use clock::Clock;
pub use error::{ServiceError, TenantLimit};
pub use policy::{MAX_DOCUMENT_BYTES, MAX_POLICY_PAGE, PolicyDraft, PolicyPage};
pub use rank::{
    ConnectionQuery, ConnectionView, MAX_EXPLAINED_PAGE, MAX_FILTER_WORDS, MAX_PAGE, RankPage, RankQuery, Reason,
    Shown, Whose,
};
pub use record::{Accepted, Recorded};
pub use replica::Replica;

/// What is recorded, and what is kept in memory.
#[derive(Clone, Copy, Debug)]
pub struct ServiceLimits {
    /// How far in the future an interaction may lie.
    pub future: Duration,
    /// About how many bytes answers may take that are kept to be given again.
    pub answer_bytes: u64,
    /// About how many bytes the connections may take that are kept to make rankings of.
    pub view_bytes: u64,
}

/// For how many items a cache is laid out: so few that it is not divided, and one large item may take nearly all of it.
const LAID_OUT_FOR: usize = 32;

/// What is kept in memory. Clones share it.
#[derive(Clone, Debug)]
struct Kept {
    answers: Answers,
    views: Views,
}

/// The use cases of Rapport. Cloning is cheap.
#[derive(Clone)]
pub struct Service {
    store: Store,
    writer: Writer,
    clock: Clock,
    future_limit_micros: i64,
    kept: Kept,
    replica: Option<Replica>,
}

impl Service {
    /// The use cases on a store and its writer.
    pub fn new(store: Store, writer: Writer, clock: Clock, limits: ServiceLimits) -> Self {
        let kept = Kept { answers: Answers::new(limits.answer_bytes), views: Views::new(limits.view_bytes) };
        let future_limit_micros = i64::try_from(limits.future.as_micros()).unwrap_or(i64::MAX);
        Self { store, writer, clock, future_limit_micros, kept, replica: None }
    }

    /// The same use cases, which may read from a replica for whoever says what they have to see.
    #[must_use]
    pub fn with_replica(self, replica: Replica) -> Self {
        Self { replica: Some(replica), ..self }
    }

    /// The time by the clock of these use cases.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// What measures the use cases.
    pub fn metrics(&self) -> &Metrics {
        self.store.metrics()
    }

    fn latest_interaction_time(&self) -> Timestamp {
        self.clock.now().saturating_add_micros(self.future_limit_micros)
    }

    /// Runs database work in a task of its own: a caller who hangs up drops only the waiting, never a connection half-way
    /// through a transaction. What has not begun by then does not begin any more.
    async fn detached<T: Send + 'static, W>(&self, work: impl FnOnce(Store) -> W) -> Result<T, ServiceError>
    where
        W: Future<Output = Result<T, ServiceError>> + Send + 'static,
    {
        let hung_up = CancellationToken::new();
        let _hangs_up = hung_up.clone().drop_guard();
        let done = tokio::spawn(work(self.store.until(hung_up)).in_current_span()).await;
        done.map_err(|error| ServiceError::Internal(Box::new(error)))?
    }
}
