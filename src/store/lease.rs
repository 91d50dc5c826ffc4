//! Connections on loan from the pool, each for one piece of work of bounded length. One whose work was cut off half-way, by
//! the clock or because nobody waits for it any more, is closed and never used again; so is one that leads to a server which
//! ends or only reads, such as a primary of before.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{PgConnection, PgPool, Postgres, pool::PoolConnection};
use tokio::time::timeout;

use crate::telemetry::{
    Metrics,
    names::{DatabaseRole, Operation},
};

use super::StoreError;

/// How long a piece of work may take, all its statements together; longer than PostgreSQL lets any one of them run.
const WORK_LIMIT: Duration = Duration::from_secs(35);
/// How long a connection may take to prove that it can be used again.
const RETURN_LIMIT: Duration = Duration::from_secs(5);

/// How many pieces of work the database has done.
pub(super) type Answers = Arc<AtomicU64>;

/// A connection on loan.
pub(super) struct Lease {
    connection: PoolConnection<Postgres>,
    answers: Answers,
    is_whole: bool,
    operation: Operation,
    metrics: Metrics,
}

/// What work came to, `None` when it took too long; and how long it took.
pub(super) struct Worked<T>(Option<Result<T, StoreError>>, Duration);

/// Does a piece of work on a lease, within the limit.
pub(super) async fn within<T>(work: impl Future<Output = Result<T, StoreError>>) -> Worked<T> {
    let begun = Instant::now();
    let done = timeout(WORK_LIMIT, work).await.ok();
    Worked(done, begun.elapsed())
}

impl Lease {
    /// Waits for a connection. When none comes, all are busy; unless the database has answered nobody meanwhile.
    pub(super) async fn take(
        (pool, role): (&PgPool, DatabaseRole),
        answers: &Answers,
        operation: Operation,
        metrics: &Metrics,
    ) -> Result<Self, StoreError> {
        let before = answers.load(Ordering::Relaxed);
        let waiting = metrics.connection_awaited(role);
        let acquired = pool.acquire().await;
        drop(waiting);
        if matches!(acquired, Err(sqlx::Error::PoolTimedOut)) {
            metrics.connection_timed_out(role);
        }
        match acquired {
            Ok(connection) => Ok(Self {
                connection,
                answers: Arc::clone(answers),
                is_whole: false,
                operation,
                metrics: metrics.clone(),
            }),
            Err(sqlx::Error::PoolTimedOut) if answers.load(Ordering::Relaxed) == before => Err(StoreError::Silent),
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps the connection for more work like it, when this went well; else gives it back.
    pub(super) fn go_on<T>(self, worked: Worked<T>) -> Result<(Self, T), StoreError> {
        match worked {
            Worked(Some(Ok(value)), took) => {
                self.answers.fetch_add(1, Ordering::Relaxed);
                self.metrics.operation(self.operation, None, took);
                Ok((self, value))
            }
            Worked(failed, took) => Err(self.end(Worked(failed, took)).err().unwrap_or(StoreError::Silent)),
        }
    }

    /// Gives the connection back, unless the work on it was cut off or showed that it leads nowhere.
    pub(super) fn end<T>(mut self, worked: Worked<T>) -> Result<T, StoreError> {
        let result = worked.0.unwrap_or(Err(StoreError::Silent));
        self.is_whole = result.as_ref().err().is_none_or(StoreError::leaves_session);
        if result.is_ok() {
            self.answers.fetch_add(1, Ordering::Relaxed);
        }
        self.metrics.operation(self.operation, result.as_ref().err().map(StoreError::name), worked.1);
        result
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.is_whole {
            // The pool makes sure that the database still answers. Dropped by itself, the connection would wait for that
            // without end, and keep its place in the pool.
            tokio::spawn(timeout(RETURN_LIMIT, self.connection.return_to_pool()));
        } else {
            self.connection.close_on_drop();
        }
    }
}

impl Deref for Lease {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}
