//! The kept promises and asks: reading them, locking them, writing them back.

use std::collections::{BTreeMap, HashMap};

use sqlx::{PgConnection, types::time::OffsetDateTime};

use crate::{
    domain::{PersonId, TenantId},
    scoring::Commitment,
};

use super::{
    StoreError,
    rows::{CommitmentRow, CommitmentRowKey, KeyColumns, TieKey, only, to_sql},
};

/// Commitments, by their keys.
pub(super) type Commitments = HashMap<CommitmentRowKey, Commitment>;

/// All commitments of a person, either way; an error when there are more than `most`.
pub(super) async fn of_person(
    connection: &mut PgConnection,
    tenant: &TenantId,
    person: &PersonId,
    most: usize,
) -> Result<Commitments, StoreError> {
    let rows = sqlx::query_as!(
        CommitmentRow,
        r#"SELECT tenant AS "tenant!", committed AS "committed!", counterpart AS "counterpart!",
               commitment_id AS "commitment_id!", made_time, due_time, group_size AS "group_size!", outcome_time,
               outcome_id, released_time
           FROM commitment WHERE tenant = $1 AND committed = $2
           UNION ALL
           SELECT tenant, committed, counterpart, commitment_id, made_time, due_time, group_size, outcome_time,
               outcome_id, released_time
           FROM commitment WHERE tenant = $1 AND counterpart = $2
           LIMIT $3"#,
        tenant.as_str(),
        person.as_str(),
        super::one_more_than(most),
    )
    .fetch_all(connection)
    .await?;
    if rows.len() > most {
        return Err(StoreError::TooLarge(most));
    }
    rows.into_iter().map(TryInto::try_into).collect()
}

/// All commitments from the actors of these ties toward their recipients; an error when there are more than `most`.
pub(super) async fn of_ties(
    connection: &mut PgConnection,
    ties: &KeyColumns<'_>,
    most: usize,
) -> Result<Commitments, StoreError> {
    let rows = sqlx::query_as!(
        CommitmentRow,
        "SELECT commitment.tenant, commitment.committed, commitment.counterpart, commitment_id, made_time, due_time,
             group_size, outcome_time, outcome_id, released_time
         FROM UNNEST($1::text[], $2::text[], $3::text[]) AS key (tenant, committed, counterpart)
         JOIN commitment USING (tenant, committed, counterpart)
         LIMIT $4",
        &ties.tenants as _,
        &ties.actors as _,
        &ties.recipients as _,
        super::one_more_than(most),
    )
    .fetch_all(connection)
    .await?;
    if rows.len() > most {
        return Err(StoreError::TooLarge(most));
    }
    rows.into_iter().map(TryInto::try_into).collect()
}

/// These commitments, as far as they exist.
pub(super) async fn get(connection: &mut PgConnection, keys: &[CommitmentRowKey]) -> Result<Commitments, StoreError> {
    let ties: KeyColumns<'_> = keys.iter().map(|(tie, _)| tie).collect();
    let ids: Vec<_> = keys.iter().map(|(_, id)| id.as_str()).collect();
    let rows = sqlx::query_as!(
        CommitmentRow,
        "SELECT commitment.tenant, commitment.committed, commitment.counterpart, commitment.commitment_id, made_time,
             due_time, group_size, outcome_time, outcome_id, released_time
         FROM UNNEST($1::text[], $2::text[], $3::text[], $4::text[]) AS key (tenant, committed, counterpart, commitment_id)
         JOIN commitment USING (tenant, committed, counterpart, commitment_id)",
        &ties.tenants as _,
        &ties.actors as _,
        &ties.recipients as _,
        &ids as _,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// These commitments, as far as they exist, locked in the order of their keys until the transaction ends.
pub(super) async fn lock(connection: &mut PgConnection, keys: &[CommitmentRowKey]) -> Result<Commitments, StoreError> {
    let ties: KeyColumns<'_> = keys.iter().map(|(tie, _)| tie).collect();
    let ids: Vec<_> = keys.iter().map(|(_, id)| id.as_str()).collect();
    let rows = sqlx::query_as!(
        CommitmentRow,
        "SELECT commitment.tenant, commitment.committed, commitment.counterpart, commitment.commitment_id, made_time,
             due_time, group_size, outcome_time, outcome_id, released_time
         FROM UNNEST($1::text[], $2::text[], $3::text[], $4::text[]) AS key (tenant, committed, counterpart, commitment_id)
         JOIN commitment USING (tenant, committed, counterpart, commitment_id)
         WHERE $5::text IS NULL OR commitment.tenant = $5
         ORDER BY commitment.tenant, commitment.committed, commitment.counterpart, commitment.commitment_id
         FOR UPDATE OF commitment",
        &ties.tenants as _,
        &ties.actors as _,
        &ties.recipients as _,
        &ids as _,
        only(&ties.tenants),
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

struct Columns<'a> {
    ties: KeyColumns<'a>,
    ids: Vec<&'a str>,
    made_times: Vec<Option<OffsetDateTime>>,
    due_times: Vec<Option<OffsetDateTime>>,
    group_sizes: Vec<i32>,
    outcome_times: Vec<Option<OffsetDateTime>>,
    outcome_ids: Vec<Option<&'a str>>,
    released_times: Vec<Option<OffsetDateTime>>,
}

impl<'a> Columns<'a> {
    fn new(commitments: &'a BTreeMap<CommitmentRowKey, Commitment>) -> Self {
        let outcomes = || commitments.values().map(|commitment| commitment.outcome.as_ref());
        let times = |time: fn(&Commitment) -> Option<crate::domain::Timestamp>| {
            commitments.values().map(|commitment| time(commitment).map(to_sql)).collect()
        };
        Self {
            ties: commitments.keys().map(|(tie, _)| tie).collect(),
            ids: commitments.keys().map(|(_, id)| id.as_str()).collect(),
            made_times: times(|commitment| commitment.made_time),
            due_times: times(|commitment| commitment.due_time),
            group_sizes: commitments
                .values()
                .map(|commitment| i32::try_from(commitment.group_size).unwrap_or(i32::MAX))
                .collect(),
            outcome_times: outcomes().map(|outcome| outcome.map(|outcome| to_sql(outcome.time))).collect(),
            outcome_ids: outcomes().map(|outcome| outcome.map(|outcome| outcome.id.as_str())).collect(),
            released_times: times(|commitment| commitment.released_time),
        }
    }
}

/// Adds commitments that were not there when they were locked.
pub(super) async fn insert(
    connection: &mut PgConnection,
    commitments: &BTreeMap<CommitmentRowKey, Commitment>,
) -> Result<(), StoreError> {
    if commitments.is_empty() {
        return Ok(());
    }
    let columns = Columns::new(commitments);
    let inserted = sqlx::query!(
        "INSERT INTO commitment (tenant, committed, counterpart, commitment_id, made_time, due_time, group_size,
             outcome_time, outcome_id, released_time)
         SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[],
             $7::integer[], $8::timestamptz[], $9::text[], $10::timestamptz[])
         ON CONFLICT (tenant, committed, counterpart, commitment_id) DO NOTHING",
        &columns.ties.tenants as _,
        &columns.ties.actors as _,
        &columns.ties.recipients as _,
        &columns.ids as _,
        &columns.made_times as _,
        &columns.due_times as _,
        &columns.group_sizes,
        &columns.outcome_times as _,
        &columns.outcome_ids as _,
        &columns.released_times as _,
    )
    .execute(connection)
    .await?;
    super::all_written(inserted.rows_affected(), commitments.len()).ok_or(StoreError::Raced)
}

/// Writes back commitments that are locked.
pub(super) async fn update(
    connection: &mut PgConnection,
    commitments: &BTreeMap<CommitmentRowKey, Commitment>,
) -> Result<(), StoreError> {
    if commitments.is_empty() {
        return Ok(());
    }
    let columns = Columns::new(commitments);
    let updated = sqlx::query!(
        "UPDATE commitment SET made_time = new.made_time, due_time = new.due_time, group_size = new.group_size,
             outcome_time = new.outcome_time, outcome_id = new.outcome_id, released_time = new.released_time
         FROM UNNEST($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[],
             $7::integer[], $8::timestamptz[], $9::text[], $10::timestamptz[])
             AS new (tenant, committed, counterpart, commitment_id, made_time, due_time, group_size, outcome_time,
                 outcome_id, released_time)
         WHERE commitment.tenant = new.tenant AND commitment.committed = new.committed
             AND commitment.counterpart = new.counterpart AND commitment.commitment_id = new.commitment_id
             AND ($11::text IS NULL OR commitment.tenant = $11)",
        &columns.ties.tenants as _,
        &columns.ties.actors as _,
        &columns.ties.recipients as _,
        &columns.ids as _,
        &columns.made_times as _,
        &columns.due_times as _,
        &columns.group_sizes,
        &columns.outcome_times as _,
        &columns.outcome_ids as _,
        &columns.released_times as _,
        only(&columns.ties.tenants),
    )
    .execute(connection)
    .await?;
    let vanished = StoreError::Inconsistent { table: "commitment", what: "a locked row vanished" };
    super::all_written(updated.rows_affected(), commitments.len()).ok_or(vanished)
}

/// Removes commitments for which the ledger has no act.
pub(super) async fn delete(connection: &mut PgConnection, keys: &[CommitmentRowKey]) -> Result<(), StoreError> {
    let ties: KeyColumns<'_> = keys.iter().map(|(tie, _)| tie).collect();
    let ids: Vec<_> = keys.iter().map(|(_, id)| id.as_str()).collect();
    sqlx::query!(
        "DELETE FROM commitment USING UNNEST($1::text[], $2::text[], $3::text[], $4::text[])
             AS old (tenant, committed, counterpart, commitment_id)
         WHERE commitment.tenant = old.tenant AND commitment.committed = old.committed
             AND commitment.counterpart = old.counterpart AND commitment.commitment_id = old.commitment_id
             AND ($5::text IS NULL OR commitment.tenant = $5)",
        &ties.tenants as _,
        &ties.actors as _,
        &ties.recipients as _,
        &ids as _,
        only(&ties.tenants),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// From the one committed to the one who counts on it, for an act of this tie.
pub(super) fn direction(act: &TieKey, actor_is_committed: bool) -> TieKey {
    if actor_is_committed { act.clone() } else { act.reversed() }
}
