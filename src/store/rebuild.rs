//! Deriving ties, commitments and rhythms from the ledger again, online: a few at a time, under the same locks that
//! recording takes, so that what is compared is complete and stays so.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx::{Connection as _, PgConnection};

use crate::{
    domain::{PersonId, TenantId, Timestamp},
    scoring::{Act, Commitment, Policy, Rhythm, Tie, fold_pair, fold_rhythm},
};

use super::{
    Store, StoreError,
    absorb::Absorbed,
    changes, commitment,
    conclude::conclude,
    fold::Ahead,
    history, rhythm,
    rows::{CommitmentRowKey, KeyColumns, RhythmKey, TieKey, word},
    tie,
};

/// How many ties, or rhythms, are derived in one transaction.
const CHUNK: i64 = 200;
/// How often a chunk is tried when recording gets in its way.
const ATTEMPTS: u32 = 5;

/// A table derived from the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// The ties.
    Tie,
    /// The commitments.
    Commitment,
    /// The rhythms.
    Rhythm,
}

/// How a kept row differs from what the ledger says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// The row is not there.
    Missing,
    /// The row says something else.
    Wrong,
    /// The ledger knows nothing of it.
    Extra,
}

/// What was compared so far.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// How many ties were derived.
    pub ties: u64,
    /// How many rhythms were derived.
    pub rhythms: u64,
    /// How many rows differed, and how.
    pub differences: BTreeMap<(Table, Difference), u64>,
}

impl Progress {
    fn note(&mut self, table: Table, difference: Difference, count: usize) {
        if count > 0 {
            *self.differences.entry((table, difference)).or_default() += u64::try_from(count).unwrap_or(u64::MAX);
        }
    }

    fn note_all<K, V>(&mut self, table: Table, found: &Differences<K, V>) {
        self.note(table, Difference::Missing, found.missing.len());
        self.note(table, Difference::Wrong, found.wrong.len());
        self.note(table, Difference::Extra, found.extra.len());
    }

    fn add(&mut self, other: &Self) {
        self.ties += other.ties;
        self.rhythms += other.rhythms;
        for (key, count) in &other.differences {
            *self.differences.entry(*key).or_default() += count;
        }
    }
}

/// How kept rows differ from derived ones.
struct Differences<K, V> {
    missing: BTreeMap<K, V>,
    wrong: BTreeMap<K, V>,
    extra: Vec<K>,
}

impl<K: Ord, V> Differences<K, V> {
    fn keys(&self) -> impl Iterator<Item = &K> {
        self.missing.keys().chain(self.wrong.keys()).chain(&self.extra)
    }
}

fn differences<K: Ord + std::hash::Hash + Clone, V: Clone>(
    kept: &HashMap<K, V>,
    derived: &BTreeMap<K, V>,
    agree: impl Fn(&V, &V) -> bool,
) -> Differences<K, V> {
    let (mut missing, mut wrong) = (BTreeMap::new(), BTreeMap::new());
    for (key, value) in derived {
        match kept.get(key) {
            None => drop(missing.insert(key.clone(), value.clone())),
            Some(found) if !agree(found, value) => drop(wrong.insert(key.clone(), value.clone())),
            Some(_) => {}
        }
    }
    let extra = kept.keys().filter(|key| !derived.contains_key(key)).cloned().collect();
    Differences { missing, wrong, extra }
}

impl Store {
    /// Derives everything again, tells how it goes after each step, and puts right what differs when asked to `repair`.
    pub async fn rebuild(&self, repair: bool, mut on_step: impl FnMut(&Progress)) -> Result<Progress, StoreError> {
        let mut connection = self.pool.acquire().await?;
        if let Some((_, error)) = self.fold(&mut connection, &Ahead::default()).await?.pop() {
            return Err(error);
        }
        let mut total = Progress::default();
        let mut last = None;
        while let Some(keys) = next_ties(&mut connection, last.as_ref()).await? {
            for keys in keys.chunk_by(|one, next| one.tenant == next.tenant) {
                total.add(&retried(&mut connection, Chunk::Ties(keys), repair, self.policy).await?);
            }
            last = keys.last().cloned();
            on_step(&total);
        }
        let mut last = None;
        while let Some(keys) = next_persons(&mut connection, last.as_ref()).await? {
            for keys in keys.chunk_by(|one, next| one.0 == next.0) {
                total.add(&retried(&mut connection, Chunk::Rhythms(keys), repair, self.policy).await?);
            }
            last = keys.last().cloned();
            on_step(&total);
        }
        Ok(total)
    }
}

#[derive(Clone, Copy)]
enum Chunk<'a> {
    Ties(&'a [TieKey]),
    Rhythms(&'a [RhythmKey]),
}

async fn retried(
    connection: &mut PgConnection,
    chunk: Chunk<'_>,
    repair: bool,
    policy: &Policy,
) -> Result<Progress, StoreError> {
    let mut attempt = 1;
    loop {
        let mut transaction = connection.begin().await?;
        let result = match chunk {
            Chunk::Ties(keys) => derive_ties(&mut transaction, keys, repair, policy).await,
            Chunk::Rhythms(keys) => derive_rhythms(&mut transaction, keys, repair, policy).await,
        };
        match result {
            Ok(progress) => {
                transaction.commit().await?;
                return Ok(progress);
            }
            Err(error) if error.is_passing() && attempt < ATTEMPTS => transaction.rollback().await?,
            Err(error) => return Err(error),
        }
        attempt += 1;
    }
}

/// The ties after `last` that the ledger, the kept ties or the kept commitments know of.
async fn next_ties(connection: &mut PgConnection, last: Option<&TieKey>) -> Result<Option<Vec<TieKey>>, StoreError> {
    let [tenant, actor, recipient] =
        last.map_or([""; 3], |key| [key.tenant.as_str(), key.actor.as_str(), key.recipient.as_str()]);
    let rows = sqlx::query!(
        r#"SELECT tenant AS "tenant!", actor AS "actor!", recipient AS "recipient!" FROM (
               (SELECT DISTINCT tenant, actor, recipient FROM ledger
                WHERE (tenant, actor, recipient) > ($1, $2, $3) ORDER BY tenant, actor, recipient LIMIT $4)
               UNION
               (SELECT tenant, actor, recipient FROM tie
                WHERE (tenant, actor, recipient) > ($1, $2, $3) ORDER BY tenant, actor, recipient LIMIT $4)
               UNION
               (SELECT DISTINCT tenant, committed, counterpart FROM commitment
                WHERE (tenant, committed, counterpart) > ($1, $2, $3) ORDER BY tenant, committed, counterpart LIMIT $4)
           ) AS known
           ORDER BY tenant, actor, recipient LIMIT $4"#,
        tenant,
        actor,
        recipient,
        CHUNK,
    )
    .fetch_all(connection)
    .await?;
    let keys: Result<Vec<_>, _> =
        rows.iter().map(|row| TieKey::from_row("ledger", [&row.tenant, &row.actor, &row.recipient])).collect();
    Ok(Some(keys?).filter(|keys| !keys.is_empty()))
}

/// Both ties of each pair, locked, with all that the ledger and the kept commitments say of the pair.
struct Locked {
    ties: HashMap<TieKey, Tie>,
    acts: HashMap<TieKey, Vec<Act>>,
    commitments: HashMap<CommitmentRowKey, Commitment>,
}

/// A tie that is not there cannot be locked, and recording may begin it at any moment. Then what was read may be of two
/// moments, so all of it is read again under the lock of the new tie too.
async fn lock_pairs(connection: &mut PgConnection, both: &BTreeSet<TieKey>) -> Result<Locked, StoreError> {
    let columns: KeyColumns<'_> = both.iter().collect();
    loop {
        let ties = tie::lock(connection, &columns).await?;
        let acts = history::acts_until(connection, &columns, Timestamp::MAX, true, usize::MAX).await?;
        let commitments = commitment::of_ties(connection, &columns, usize::MAX).await?;
        if tie::get(connection, &columns).await?.len() == ties.len() {
            return Ok(Locked { ties, acts, commitments });
        }
    }
}

async fn derive_ties(
    connection: &mut PgConnection,
    keys: &[TieKey],
    repair: bool,
    policy: &Policy,
) -> Result<Progress, StoreError> {
    let both: BTreeSet<TieKey> = keys.iter().flat_map(|key| [key.clone(), key.reversed()]).collect();
    let mut kept = lock_pairs(connection, &both).await?;
    let compared = compared(keys, &both, &kept);
    let (ties, commitments) = derived(&compared, &kept.acts, policy);
    kept.ties.retain(|key, _| compared.contains(key));
    kept.commitments.retain(|(key, _), _| compared.contains(key));
    let wrong_ties = differences(&kept.ties, &ties, Tie::agrees_with);
    let wrong_commitments = differences(&kept.commitments, &commitments, Commitment::eq);
    if repair {
        tie::delete(connection, &wrong_ties.extra).await?;
        commitment::insert(connection, &wrong_commitments.missing).await?;
        commitment::update(connection, &wrong_commitments.wrong).await?;
        commitment::delete(connection, &wrong_commitments.extra).await?;
        let touched = wrong_ties.keys().chain(wrong_commitments.keys().map(|(tie, _)| tie));
        let ties =
            Absorbed { begun: wrong_ties.missing.clone(), changed: wrong_ties.wrong.clone(), ..Absorbed::default() };
        conclude(connection, &ties, policy).await?;
        changes::note(connection, touched.flat_map(TieKey::persons)).await?;
    }
    let mut progress = Progress { ties: u64::try_from(ties.len()).unwrap_or(u64::MAX), ..Progress::default() };
    progress.note_all(Table::Tie, &wrong_ties);
    progress.note_all(Table::Commitment, &wrong_commitments);
    Ok(progress)
}

type Derived = (BTreeMap<TieKey, Tie>, BTreeMap<CommitmentRowKey, Commitment>);

/// The keys of this step, and those of whom only the other side's acts could tell: somebody was asked who has never acted
/// toward the one who asks, and the commitment that this makes is missing.
fn compared(keys: &[TieKey], both: &BTreeSet<TieKey>, kept: &Locked) -> BTreeSet<TieKey> {
    let committed: BTreeSet<&TieKey> = kept.commitments.keys().map(|(key, _)| key).collect();
    let comes_up = |key: &TieKey| kept.acts.contains_key(key) || kept.ties.contains_key(key) || committed.contains(key);
    both.iter().filter(|key| keys.binary_search(key).is_ok() || !comes_up(key)).cloned().collect()
}

fn derived(keys: &BTreeSet<TieKey>, acts: &HashMap<TieKey, Vec<Act>>, policy: &Policy) -> Derived {
    let of = |key: &TieKey| acts.get(key).map_or(&[][..], Vec::as_slice);
    let (mut ties, mut commitments) = (BTreeMap::new(), BTreeMap::new());
    for key in keys {
        let folded = fold_pair([of(key), of(&key.reversed())], policy);
        let ([tie, _], [committed, _]) = (folded.ties, folded.commitments);
        ties.extend(tie.map(|tie| (key.clone(), tie)));
        commitments.extend(committed.into_iter().map(|(id, commitment)| ((key.clone(), id), commitment)));
    }
    (ties, commitments)
}

/// The persons after `last` that acted by the ledger, toward whom a kept tie leads, or that have a kept rhythm.
async fn next_persons(
    connection: &mut PgConnection,
    last: Option<&RhythmKey>,
) -> Result<Option<Vec<RhythmKey>>, StoreError> {
    let (tenant, person) = last.map_or(("", ""), |(tenant, person)| (tenant.as_str(), person.as_str()));
    let rows = sqlx::query!(
        r#"SELECT tenant AS "tenant!", person AS "person!" FROM (
               (SELECT DISTINCT tenant, actor AS person FROM ledger
                WHERE (tenant, actor) > ($1, $2) ORDER BY tenant, actor LIMIT $3)
               UNION
               (SELECT DISTINCT tenant, recipient FROM tie
                WHERE (tenant, recipient) > ($1, $2) ORDER BY tenant, recipient LIMIT $3)
               UNION
               (SELECT tenant, person FROM rhythm WHERE (tenant, person) > ($1, $2) ORDER BY tenant, person LIMIT $3)
           ) AS known
           ORDER BY tenant, person LIMIT $3"#,
        tenant,
        person,
        CHUNK,
    )
    .fetch_all(connection)
    .await?;
    let keys: Result<Vec<RhythmKey>, StoreError> = rows
        .iter()
        .map(|row| {
            Ok((word("ledger", TenantId::recorded(&row.tenant))?, word("ledger", PersonId::recorded(&row.person))?))
        })
        .collect();
    Ok(Some(keys?).filter(|keys| !keys.is_empty()))
}

async fn derive_rhythms(
    connection: &mut PgConnection,
    keys: &[RhythmKey],
    repair: bool,
    policy: &Policy,
) -> Result<Progress, StoreError> {
    let kept = rhythm::lock(connection, keys).await?;
    let days = history::days_until(connection, keys, Timestamp::MAX, None, usize::MAX, policy).await?;
    let derived: BTreeMap<RhythmKey, Rhythm> =
        days.into_iter().filter_map(|(key, days)| Some((key, fold_rhythm(days, policy)?))).collect();
    let wrong = differences(&kept, &derived, Rhythm::agrees_with);
    if repair {
        rhythm::write(connection, &wrong.missing, &wrong.wrong).await?;
        rhythm::delete(connection, &wrong.extra).await?;
        let touched = wrong.keys().map(|(tenant, person)| (tenant, person));
        changes::note(connection, touched).await?;
    }
    let mut progress = Progress { rhythms: u64::try_from(keys.len()).unwrap_or(u64::MAX), ..Progress::default() };
    progress.note_all(Table::Rhythm, &wrong);
    Ok(progress)
}
