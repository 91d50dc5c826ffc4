//! What is recorded and not folded yet, taken in for one reader: what folding it would make of ties, commitments and rhythms,
//! laid over the rows that are kept. So an answer shows all that was recorded before it, and waits for nobody, up to a limit.

use std::collections::{BTreeSet, HashMap, HashSet};

use sqlx::PgConnection;

use crate::{
    domain::{PersonId, TenantId},
    scoring::{Policy, Rhythm, Tie},
};

use super::{
    StoreError,
    absorb::{Absorbed, absorbed},
    changes::PersonMark,
    commitment::Commitments,
    history,
    moment::Moment,
    rows::{ActRow, RhythmKey, TieKey},
};

/// The most acts that are not folded yet that a reader takes in by itself; more would take too much memory.
const MAX_UNFOLDED: usize = 50_000;

/// What is not folded yet of a tenant, in the moment that a transaction sees.
#[derive(Default)]
pub(super) struct Overlay(Absorbed);

impl Overlay {
    /// Reads it, in a snapshot: all of it, or what concerns these persons. More than `most` acts, or [`MAX_UNFOLDED`], are an
    /// error.
    pub(super) async fn read(
        connection: &mut PgConnection,
        tenant: &TenantId,
        moment: &Moment,
        persons: Option<&BTreeSet<PersonId>>,
        most: usize,
        policy: &Policy,
    ) -> Result<Self, StoreError> {
        if moment.is_folded {
            return Ok(Self::default());
        }
        let most = most.min(MAX_UNFOLDED);
        let marks: Option<Vec<i64>> =
            persons.map(|persons| persons.iter().map(|person| PersonMark::of(person).0).collect());
        let mut rows = sqlx::query_as!(
            ActRow,
            r#"SELECT tenant, UNNEST(actors) AS "actor!", UNNEST(recipients) AS "recipient!",
                   UNNEST(interaction_ids) AS "interaction_id!", UNNEST(times) AS "interaction_time!",
                   UNNEST(kinds) AS "kind!", UNNEST(group_sizes) AS "group_size!", UNNEST(efforts_micros) AS effort_micros,
                   UNNEST(unprompted) AS "unprompted!", UNNEST(serve_goals) AS "serves_goal!",
                   UNNEST(due_times) AS due_time, UNNEST(refer_to) AS refers_to
               FROM unfolded WHERE tenant = $1 AND ($2::bigint[] IS NULL OR persons && $2)
               LIMIT $3"#,
            tenant.as_str(),
            marks.as_deref(),
            super::one_more_than(most),
        )
        .fetch_all(&mut *connection)
        .await?;
        if rows.len() > most {
            return Err(StoreError::Lagging);
        }
        if let Some(persons) = persons {
            let persons: HashSet<&str> = persons.iter().map(PersonId::as_str).collect();
            rows.retain(|act| persons.contains(&*act.actor) || persons.contains(&*act.recipient));
        }
        if rows.is_empty() {
            return Ok(Self::default());
        }
        Ok(Self(absorbed(connection, history::by_tie(rows)?, policy).await?))
    }

    /// A kept tie, as it is by now.
    pub(super) fn tie(&self, key: &TieKey, kept: Tie) -> Tie {
        self.0.changed.get(key).cloned().unwrap_or(kept)
    }

    /// The ties that are not kept yet.
    pub(super) fn begun(&self) -> impl Iterator<Item = (&TieKey, &Tie)> {
        self.0.begun.iter()
    }

    /// Brings kept ties up to now, and adds those that are not kept yet, as far as they are wanted.
    pub(super) fn add_ties(&self, kept: &mut HashMap<TieKey, Tie>, is_wanted: impl Fn(&TieKey) -> bool) {
        let by_now = self.0.begun.iter().chain(&self.0.changed).filter(|(tie, _)| is_wanted(tie));
        kept.extend(by_now.map(|(key, tie)| (key.clone(), tie.clone())));
    }

    /// Brings kept commitments up to now, and adds those that are not kept yet, of the ties that are wanted.
    pub(super) fn add_commitments(&self, kept: &mut Commitments, is_wanted: impl Fn(&TieKey) -> bool) {
        let by_now = self.0.made.iter().chain(&self.0.settled).filter(|((tie, _), _)| is_wanted(tie));
        kept.extend(by_now.map(|(key, commitment)| (key.clone(), commitment.clone())));
    }

    /// Brings the rhythms of these persons up to now.
    pub(super) fn add_rhythms<'a>(
        &self,
        kept: &mut HashMap<RhythmKey, Rhythm>,
        persons: impl IntoIterator<Item = &'a RhythmKey>,
        policy: &Policy,
    ) {
        for person in persons {
            if let Some(gained) = self.0.gained.get(person) {
                let add = |rhythm: &mut Rhythm| rhythm.add(gained, policy);
                kept.entry(person.clone()).and_modify(add).or_insert_with(|| gained.clone());
            }
        }
    }
}
