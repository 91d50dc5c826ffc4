//! Turns of the folds of a server: those that concern the same two persons go one after the other. Side by side they would wait
//! for each other's locks, and who begins a tie second would have to fold all of it again. What other servers fold is not known
//! here; with them it is so.

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, PoisonError},
};

use tokio_util::sync::CancellationToken;

use super::rows::TieKey;

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

    fn pair(&self, tie: &TieKey) -> u64 {
        let (one, other) = (&tie.actor, &tie.recipient);
        self.hashing.hash_one((&tie.tenant, one.min(other), one.max(other)))
    }
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
