//! Turns of folds. Of those of a server that concern the same two persons, one goes after the other: side by side they would wait
//! for each other's locks, and whichever begins a tie second would have to be done again. What other servers fold is not known
//! here, so a fold that has none of its server beside it takes turns with such folds of theirs, for whole tenants. That saves
//! work, and what is folded does not depend on it: folds that meet all the same are kept apart by the rows they lock.

use std::{
    collections::{BTreeSet, HashSet},
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, PoisonError},
};

use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use super::{StoreError, rows::TieKey};

/// The folds that go on.
#[derive(Debug, Default)]
pub(super) struct Turns {
    underway: Mutex<Vec<Arc<Fold>>>,
    hashing: RandomState,
}

/// What a fold concerns, and whether it has ended.
#[derive(Debug)]
struct Fold {
    /// What stands for its pairs. Two pairs may share one: then the folds of both take turns.
    pairs: HashSet<u64>,
    ended: CancellationToken,
}

/// A fold's turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    fold: Arc<Fold>,
}

impl Turns {
    /// Waits for the folds that began before and concern a pair of these ties.
    pub(super) async fn next<'a>(&self, ties: impl Iterator<Item = &'a TieKey>) -> Turn<'_> {
        let pairs = ties.map(|tie| self.pair(tie)).collect();
        let fold = Arc::new(Fold { pairs, ended: CancellationToken::new() });
        let before: Vec<Arc<Fold>> = {
            let mut underway = self.underway.lock().unwrap_or_else(PoisonError::into_inner);
            let before = underway.iter().filter(|other| !other.pairs.is_disjoint(&fold.pairs)).cloned().collect();
            underway.push(Arc::clone(&fold));
            before
        };
        // From here on it is taken back when nobody waits for it any more.
        let turn = Turn { turns: self, fold };
        for other in before {
            other.ended.cancelled().await;
        }
        turn
    }

    /// Whether only one goes on that has something to fold.
    fn is_one(&self) -> bool {
        let underway = self.underway.lock().unwrap_or_else(PoisonError::into_inner);
        underway.iter().filter(|fold| !fold.pairs.is_empty()).count() == 1
    }

    fn pair(&self, tie: &TieKey) -> u64 {
        let (one, other) = (&tie.actor, &tie.recipient);
        self.hashing.hash_one((&tie.tenant, one.min(other), one.max(other)))
    }
}

impl Turn<'_> {
    /// Waits for folds of other servers that took turns at these tenants, unless this server folds more beside; others then wait
    /// until the transaction ends. A server that stands still meanwhile keeps them for five seconds: then PostgreSQL ends it.
    pub(super) async fn among_servers<'a>(
        &self,
        connection: &mut PgConnection,
        tenants: impl Iterator<Item = &'a str>,
    ) -> Result<(), StoreError> {
        // In the same order everywhere: no two wait for each other.
        let locks: BTreeSet<i64> = tenants.map(lock).collect();
        if locks.is_empty() || !self.turns.is_one() {
            return Ok(());
        }
        let locks: Vec<i64> = locks.into_iter().collect();
        sqlx::query!(
            "SELECT pg_advisory_xact_lock(turn.lock), set_config('idle_in_transaction_session_timeout', '5s', true)
             FROM UNNEST($1::bigint[]) AS turn (lock)",
            &locks,
        )
        .fetch_all(connection)
        .await?;
        Ok(())
    }
}

/// What stands for folding a tenant among the advisory locks of a database.
fn lock(tenant: &str) -> i64 {
    let hash = blake3::Hasher::new().update(b"folding of ").update(tenant.as_bytes()).finalize();
    let (first, _) = hash.as_bytes().split_first_chunk().unwrap_or((&[0; 8], &[]));
    i64::from_le_bytes(*first)
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut underway = self.turns.underway.lock().unwrap_or_else(PoisonError::into_inner);
        underway.retain(|other| !Arc::ptr_eq(other, &self.fold));
        self.fold.ended.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn tie(actor: &str, recipient: &str) -> TieKey {
        TieKey::from_row("tie", ["tenant", actor, recipient]).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn folds_of_the_same_pair_take_turns_and_others_do_not_wait() {
        let turns = Turns::default();
        let next = async |ties: &[TieKey]| timeout(Duration::from_secs(1), turns.next(ties.iter())).await.ok();
        let first = next(&[tie("ada", "bob"), tie("ada", "cleo")]).await.unwrap();
        let beside = next(&[tie("bob", "cleo")]).await.unwrap();
        assert!(next(&[tie("dan", "eve"), tie("bob", "ada")]).await.is_none());
        // One that was given up keeps nobody waiting.
        drop(next(&[tie("dan", "eve")]).await.unwrap());
        assert!(next(&[tie("cleo", "bob")]).await.is_none());
        drop((first, beside));
        next(&[tie("bob", "ada"), tie("cleo", "bob")]).await.unwrap();
    }
}
