//! Reading from a replica: for callers who say what they have to see, when it has come that far. Whatever else, the primary
//! answers, and nobody notices but by the time it takes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{sleep, timeout};

use crate::{
    store::{Store, StoreError},
    telemetry::names::{DatabaseRole, Fallback},
};

use super::{Service, ServiceError};

/// How long a replica may take to answer before the primary is asked instead.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// How often a replica is looked at, and how long that may take. One that failed is left alone until the next look.
const LOOK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(2));

/// A replica of the database. Cloning is cheap, and clones share what is known of it.
#[derive(Clone, Debug)]
pub struct Replica {
    store: Store,
    is_ready: Arc<AtomicBool>,
}

impl Replica {
    /// A replica, which is not read from before it has been looked at.
    pub fn new(store: Store) -> Self {
        store.metrics().set_replica_ready(false);
        Self { store, is_ready: Arc::default() }
    }

    /// Looks without end whether it can be read from instead of `primary`.
    pub async fn follow(self, primary: Store) {
        let (mut key, mut was_told) = (None, false);
        loop {
            let looked = timeout(LOOK.1, self.look(&primary, &mut key)).await.unwrap_or(Err(StoreError::Silent));
            let was_ready = self.is_ready.load(Ordering::Relaxed);
            match looked {
                Ok(()) if !was_ready => {
                    tracing::info!("the replica can be read from");
                    was_told = false;
                    self.set_ready(true);
                }
                Err(error) if was_ready || !was_told => {
                    was_told = true;
                    self.set_ready(false);
                    tracing::warn!("the replica is not read from: {}", self.store.why(&error, LOOK.0).await);
                }
                _ => {}
            }
            sleep(LOOK.0).await;
        }
    }

    async fn look(&self, primary: &Store, key: &mut Option<Vec<u8>>) -> Result<(), StoreError> {
        let key = match key {
            Some(key) => key,
            None => key.insert(primary.page_token_key().await?),
        };
        self.store.check_copy(key).await
    }

    fn set_ready(&self, ready: bool) {
        self.is_ready.store(ready, Ordering::Relaxed);
        self.store.metrics().set_replica_ready(ready);
    }

    /// What it answers, or why it does not.
    async fn answer<T>(
        &self,
        work: impl Future<Output = Result<T, ServiceError>>,
    ) -> Result<Result<T, ServiceError>, Fallback> {
        if !self.is_ready.load(Ordering::Relaxed) {
            return Err(Fallback::NotReady);
        }
        // What takes long may wait for its turn here; whether the replica is silent, looks tell sooner.
        let Ok(answer) = timeout(READ_LIMIT, work).await else { return Err(Fallback::Failed) };
        match answer.as_ref().err().and_then(|error| fallback(error).map(|reason| (error, reason))) {
            None => Ok(answer),
            Some((_, Fallback::Behind)) => Err(Fallback::Behind),
            Some((error, reason)) => {
                // Of many who fail at once, one tells.
                if self.is_ready.swap(false, Ordering::Relaxed) {
                    self.store.metrics().set_replica_ready(false);
                    tracing::warn!(cause = cause(error), "the replica did not answer, and is left alone for now");
                }
                Err(reason)
            }
        }
    }
}

/// Why the primary has to answer after this error; `None` when it would say the same, or nobody listens.
fn fallback(error: &ServiceError) -> Option<Fallback> {
    let (ServiceError::Unavailable(source) | ServiceError::Overloaded(source) | ServiceError::Internal(source)) = error
    else {
        return None;
    };
    match source.downcast_ref() {
        Some(StoreError::Behind | StoreError::Lagging) => Some(Fallback::Behind),
        Some(StoreError::Unwanted) => None,
        _ => Some(Fallback::Failed),
    }
}

fn cause(error: &ServiceError) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

impl Service {
    /// Reads from the replica, for somebody who has to see `at_least` a revision and when it shows that, else from the primary,
    /// which shows everything that was acknowledged.
    pub(super) async fn read<T, W>(
        &self,
        at_least: Option<i64>,
        work: impl Fn(Store) -> W + Send + 'static,
    ) -> Result<T, ServiceError>
    where
        T: Send + 'static,
        W: Future<Output = Result<T, ServiceError>> + Send + 'static,
    {
        let asked = self.replica.clone().zip(at_least);
        self.detached(move |primary| async move {
            let metrics = primary.metrics().clone();
            if let Some((replica, revision)) = asked {
                let store = replica.store.until(primary.unwanted()).at_least(revision);
                match replica.answer(work(store)).await {
                    Ok(answer) => {
                        metrics.read(DatabaseRole::Replica);
                        return answer;
                    }
                    Err(reason) => metrics.fell_back(reason),
                }
            }
            let answer = work(primary).await;
            metrics.read(DatabaseRole::Primary);
            answer
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_stays_in_use_for_what_it_will_catch_up_with_or_nobody_waits_for() {
        let reason = |error: StoreError| fallback(&error.into());
        for error in [StoreError::Behind, StoreError::Lagging] {
            assert!(matches!(reason(error), Some(Fallback::Behind)));
        }
        assert!(matches!(reason(StoreError::Silent), Some(Fallback::Failed)));
        for error in [StoreError::TooLarge(1), StoreError::Unwanted] {
            assert!(reason(error).is_none());
        }
    }
}
