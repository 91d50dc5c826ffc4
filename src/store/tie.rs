//! The kept ties: reading them, locking them, writing them back. What is in them is decided by `scoring`.

use std::collections::{BTreeMap, HashMap};

use sqlx::PgConnection;

use crate::{
    domain::{PersonId, TenantId},
    scoring::Tie,
};

use super::{
    StoreError,
    rows::{KeyColumns, TieKey, TieRow, to_sql},
};

/// All ties of a person, either way; an error when there are more than `most`.
pub(super) async fn of_person(
    connection: &mut PgConnection,
    tenant: &TenantId,
    person: &PersonId,
    most: usize,
) -> Result<HashMap<TieKey, Tie>, StoreError> {
    let rows = sqlx::query_as!(
        TieRow,
        r#"SELECT tenant AS "tenant!", actor AS "actor!", recipient AS "recipient!", first_time AS "first_time!",
               last_time AS "last_time!", counts AS "counts!", today AS "today!", evidence AS "evidence!"
           FROM tie WHERE tenant = $1 AND actor = $2
           UNION ALL
           SELECT tenant, actor, recipient, first_time, last_time, counts, today, evidence
           FROM tie WHERE tenant = $1 AND recipient = $2
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

/// These ties, as far as they exist.
pub(super) async fn get(
    connection: &mut PgConnection,
    keys: &KeyColumns<'_>,
) -> Result<HashMap<TieKey, Tie>, StoreError> {
    let rows = sqlx::query_as!(
        TieRow,
        "SELECT tie.tenant, tie.actor, tie.recipient, first_time, last_time, counts, today, evidence
         FROM UNNEST($1::text[], $2::text[], $3::text[]) AS key (tenant, actor, recipient)
         JOIN tie USING (tenant, actor, recipient)",
        &keys.tenants as _,
        &keys.actors as _,
        &keys.recipients as _,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// These ties, as far as they exist, locked in the order of their keys until the transaction ends.
pub(super) async fn lock(
    connection: &mut PgConnection,
    keys: &KeyColumns<'_>,
) -> Result<HashMap<TieKey, Tie>, StoreError> {
    let rows = sqlx::query_as!(
        TieRow,
        "SELECT tie.tenant, tie.actor, tie.recipient, first_time, last_time, counts, today, evidence
         FROM UNNEST($1::text[], $2::text[], $3::text[]) AS key (tenant, actor, recipient)
         JOIN tie USING (tenant, actor, recipient)
         ORDER BY tie.tenant, tie.actor, tie.recipient
         FOR UPDATE OF tie",
        &keys.tenants as _,
        &keys.actors as _,
        &keys.recipients as _,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

#[derive(Default)]
struct StateColumns {
    first_times: Vec<sqlx::types::time::OffsetDateTime>,
    last_times: Vec<sqlx::types::time::OffsetDateTime>,
    counts: Vec<i32>,
    todays: Vec<f64>,
    evidence: Vec<f64>,
}

impl<'a> FromIterator<&'a Tie> for StateColumns {
    fn from_iter<I: IntoIterator<Item = &'a Tie>>(ties: I) -> Self {
        let mut columns = Self::default();
        for tie in ties {
            columns.first_times.push(to_sql(tie.first_time));
            columns.last_times.push(to_sql(tie.last_time));
            columns.counts.extend(tie.counts);
            columns.todays.extend(tie.today.to_array());
            columns.evidence.extend(tie.evidence.to_array());
        }
        columns
    }
}

/// Adds ties that were not there when they were locked, and writes back those that were.
pub(super) async fn write(
    connection: &mut PgConnection,
    new: &BTreeMap<TieKey, Tie>,
    changed: &BTreeMap<TieKey, Tie>,
) -> Result<(), StoreError> {
    if new.is_empty() && changed.is_empty() {
        return Ok(());
    }
    let keys: KeyColumns<'_> = new.keys().chain(changed.keys()).collect();
    let state: StateColumns = new.values().chain(changed.values()).collect();
    let are_new: Vec<bool> =
        [(true, new), (false, changed)].iter().flat_map(|(is, ties)| ties.keys().map(|_| *is)).collect();
    let written = sqlx::query!(
        r#"WITH given AS MATERIALIZED (
               SELECT tenant, actor, recipient, is_new, first_time, last_time,
                   ($7::integer[])[place * 17 - 16 : place * 17] AS counts,
                   ($8::double precision[])[place * 3 - 2 : place * 3] AS today,
                   ($9::double precision[])[place * 14 - 13 : place * 14] AS evidence
               FROM UNNEST($1::text[], $2::text[], $3::text[], $4::boolean[], $5::timestamptz[], $6::timestamptz[])
                   WITH ORDINALITY AS tie (tenant, actor, recipient, is_new, first_time, last_time, place)
           ), added AS (
               INSERT INTO tie (tenant, actor, recipient, first_time, last_time, counts, today, evidence)
               SELECT tenant, actor, recipient, first_time, last_time, counts, today, evidence FROM given WHERE is_new
               ON CONFLICT (tenant, actor, recipient) DO NOTHING
               RETURNING 1
           ), changed AS (
               UPDATE tie SET first_time = given.first_time, last_time = given.last_time, counts = given.counts,
                   today = given.today, evidence = given.evidence
               FROM given
               WHERE NOT is_new AND tie.tenant = given.tenant AND tie.actor = given.actor
                   AND tie.recipient = given.recipient
               RETURNING 1
           )
           SELECT (SELECT count(*) FROM added) AS "added!", (SELECT count(*) FROM changed) AS "changed!""#,
        &keys.tenants as _,
        &keys.actors as _,
        &keys.recipients as _,
        &are_new,
        &state.first_times,
        &state.last_times,
        &state.counts,
        &state.todays,
        &state.evidence,
    )
    .fetch_one(connection)
    .await?;
    super::all_written(written.added, new.len()).ok_or(StoreError::Raced)?;
    let vanished = StoreError::Inconsistent { table: "tie", what: "a locked row vanished" };
    super::all_written(written.changed, changed.len()).ok_or(vanished)
}

/// Removes ties for which the ledger has no act.
pub(super) async fn delete(connection: &mut PgConnection, keys: &[TieKey]) -> Result<(), StoreError> {
    let keys: KeyColumns<'_> = keys.iter().collect();
    sqlx::query!(
        "DELETE FROM tie USING UNNEST($1::text[], $2::text[], $3::text[]) AS old (tenant, actor, recipient)
         WHERE tie.tenant = old.tenant AND tie.actor = old.actor AND tie.recipient = old.recipient",
        &keys.tenants as _,
        &keys.actors as _,
        &keys.recipients as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}
