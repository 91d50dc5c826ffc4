//! The kept rhythms: reading them, locking them, writing them back. Folding adds to them in `conclude`.

use std::collections::{BTreeMap, HashMap};

use sqlx::PgConnection;

use crate::scoring::Rhythm;

use super::{
    StoreError,
    rows::{RhythmKey, RhythmRow, only, to_sql},
};

pub(super) struct Keys<'a> {
    pub tenants: Vec<&'a str>,
    pub persons: Vec<&'a str>,
}

impl<'a> FromIterator<&'a RhythmKey> for Keys<'a> {
    fn from_iter<I: IntoIterator<Item = &'a RhythmKey>>(keys: I) -> Self {
        let (tenants, persons) = keys.into_iter().map(|(tenant, person)| (tenant.as_str(), person.as_str())).unzip();
        Self { tenants, persons }
    }
}

/// The rhythms of these persons, as far as they exist.
pub(super) async fn get<'a>(
    connection: &mut PgConnection,
    keys: impl IntoIterator<Item = &'a RhythmKey>,
) -> Result<HashMap<RhythmKey, Rhythm>, StoreError> {
    let keys: Keys<'_> = keys.into_iter().collect();
    let rows = sqlx::query_as!(
        RhythmRow,
        "SELECT rhythm.tenant, rhythm.person, last_time, days
         FROM UNNEST($1::text[], $2::text[]) AS key (tenant, person) JOIN rhythm USING (tenant, person)",
        &keys.tenants as _,
        &keys.persons as _,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// The rhythms of these persons, as far as they exist, locked in the order of their keys until the transaction ends.
pub(super) async fn lock<'a>(
    connection: &mut PgConnection,
    keys: impl IntoIterator<Item = &'a RhythmKey>,
) -> Result<HashMap<RhythmKey, Rhythm>, StoreError> {
    let keys: Keys<'_> = keys.into_iter().collect();
    let rows = sqlx::query_as!(
        RhythmRow,
        "SELECT rhythm.tenant, rhythm.person, last_time, days
         FROM UNNEST($1::text[], $2::text[]) AS key (tenant, person) JOIN rhythm USING (tenant, person)
         WHERE $3::text IS NULL OR rhythm.tenant = $3
         ORDER BY rhythm.tenant, rhythm.person
         FOR UPDATE OF rhythm",
        &keys.tenants as _,
        &keys.persons as _,
        only(&keys.tenants),
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

#[derive(Default)]
pub(super) struct StateColumns {
    pub last_times: Vec<sqlx::types::time::OffsetDateTime>,
    pub last_days: Vec<i32>,
    pub days: Vec<f64>,
}

impl<'a> FromIterator<&'a Rhythm> for StateColumns {
    fn from_iter<I: IntoIterator<Item = &'a Rhythm>>(rhythms: I) -> Self {
        let mut columns = Self::default();
        for rhythm in rhythms {
            columns.last_times.push(to_sql(rhythm.last_time));
            columns.last_days.push(rhythm.day().number());
            columns.days.extend(rhythm.to_array());
        }
        columns
    }
}

/// Adds rhythms that were not there when they were locked, and writes back those that were.
pub(super) async fn write(
    connection: &mut PgConnection,
    new: &BTreeMap<RhythmKey, Rhythm>,
    changed: &BTreeMap<RhythmKey, Rhythm>,
) -> Result<(), StoreError> {
    if new.is_empty() && changed.is_empty() {
        return Ok(());
    }
    let keys: Keys<'_> = new.keys().chain(changed.keys()).collect();
    let state: StateColumns = new.values().chain(changed.values()).collect();
    let are_new: Vec<bool> =
        [(true, new), (false, changed)].iter().flat_map(|(is, rhythms)| rhythms.keys().map(|_| *is)).collect();
    let written = sqlx::query!(
        r#"WITH given AS MATERIALIZED (
               SELECT tenant, person, is_new, last_time, day,
                   ($6::double precision[])[place * 12 - 11 : place * 12] AS days
               FROM UNNEST($1::text[], $2::text[], $3::boolean[], $4::timestamptz[], $5::integer[])
                   WITH ORDINALITY AS rhythm (tenant, person, is_new, last_time, day, place)
           ), added AS (
               INSERT INTO rhythm (tenant, person, last_time, day, days)
               SELECT tenant, person, last_time, day, days FROM given WHERE is_new
               ON CONFLICT (tenant, person) DO NOTHING
               RETURNING 1
           ), changed AS (
               UPDATE rhythm SET last_time = given.last_time, day = given.day, days = given.days
               FROM given
               WHERE NOT given.is_new AND rhythm.tenant = given.tenant AND rhythm.person = given.person
                   AND ($7::text IS NULL OR rhythm.tenant = $7)
               RETURNING 1
           )
           SELECT (SELECT count(*) FROM added) AS "added!", (SELECT count(*) FROM changed) AS "changed!""#,
        &keys.tenants as _,
        &keys.persons as _,
        &are_new,
        &state.last_times,
        &state.last_days,
        &state.days,
        only(&keys.tenants),
    )
    .fetch_one(connection)
    .await?;
    super::all_written(written.added, new.len()).ok_or(StoreError::Raced)?;
    let vanished = StoreError::Inconsistent { table: "rhythm", what: "a locked row vanished" };
    super::all_written(written.changed, changed.len()).ok_or(vanished)
}

/// Removes rhythms for which the ledger has no act.
pub(super) async fn delete(connection: &mut PgConnection, keys: &[RhythmKey]) -> Result<(), StoreError> {
    let keys: Keys<'_> = keys.iter().collect();
    sqlx::query!(
        "DELETE FROM rhythm USING UNNEST($1::text[], $2::text[]) AS old (tenant, person)
         WHERE rhythm.tenant = old.tenant AND rhythm.person = old.person
             AND ($3::text IS NULL OR rhythm.tenant = $3)",
        &keys.tenants as _,
        &keys.persons as _,
        only(&keys.tenants),
    )
    .execute(connection)
    .await?;
    Ok(())
}
