//! The kept rhythms: reading them, locking them, writing them back.

use std::collections::{BTreeMap, HashMap};

use sqlx::PgConnection;

use crate::scoring::Rhythm;

use super::{
    StoreError,
    rows::{RhythmKey, RhythmRow, to_sql},
};

struct Keys<'a> {
    tenants: Vec<&'a str>,
    persons: Vec<&'a str>,
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
         ORDER BY rhythm.tenant, rhythm.person
         FOR UPDATE OF rhythm",
        &keys.tenants as _,
        &keys.persons as _,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

#[derive(Default)]
struct StateColumns {
    last_times: Vec<sqlx::types::time::OffsetDateTime>,
    days: Vec<f64>,
}

impl<'a> FromIterator<&'a Rhythm> for StateColumns {
    fn from_iter<I: IntoIterator<Item = &'a Rhythm>>(rhythms: I) -> Self {
        let mut columns = Self::default();
        for rhythm in rhythms {
            columns.last_times.push(to_sql(rhythm.last_time));
            columns.days.extend(rhythm.to_array());
        }
        columns
    }
}

/// Adds rhythms that were not there when they were locked.
pub(super) async fn insert(
    connection: &mut PgConnection,
    rhythms: &BTreeMap<RhythmKey, Rhythm>,
) -> Result<(), StoreError> {
    if rhythms.is_empty() {
        return Ok(());
    }
    let (keys, state): (Keys<'_>, StateColumns) = (rhythms.keys().collect(), rhythms.values().collect());
    let inserted = sqlx::query!(
        "INSERT INTO rhythm (tenant, person, last_time, days)
         SELECT tenant, person, last_time, ($4::double precision[])[place * 12 - 11 : place * 12]
         FROM UNNEST($1::text[], $2::text[], $3::timestamptz[])
             WITH ORDINALITY AS new (tenant, person, last_time, place)
         ON CONFLICT (tenant, person) DO NOTHING",
        &keys.tenants as _,
        &keys.persons as _,
        &state.last_times,
        &state.days,
    )
    .execute(connection)
    .await?;
    super::all_written(inserted.rows_affected(), rhythms.len()).ok_or(StoreError::Raced)
}

/// Writes back rhythms that are locked.
pub(super) async fn update(
    connection: &mut PgConnection,
    rhythms: &BTreeMap<RhythmKey, Rhythm>,
) -> Result<(), StoreError> {
    if rhythms.is_empty() {
        return Ok(());
    }
    let (keys, state): (Keys<'_>, StateColumns) = (rhythms.keys().collect(), rhythms.values().collect());
    let updated = sqlx::query!(
        "UPDATE rhythm SET last_time = new.last_time, days = ($4::double precision[])[place * 12 - 11 : place * 12]
         FROM UNNEST($1::text[], $2::text[], $3::timestamptz[])
             WITH ORDINALITY AS new (tenant, person, last_time, place)
         WHERE rhythm.tenant = new.tenant AND rhythm.person = new.person",
        &keys.tenants as _,
        &keys.persons as _,
        &state.last_times,
        &state.days,
    )
    .execute(connection)
    .await?;
    let vanished = StoreError::Inconsistent { table: "rhythm", what: "a locked row vanished" };
    super::all_written(updated.rows_affected(), rhythms.len()).ok_or(vanished)
}

/// Removes rhythms for which the ledger has no act.
pub(super) async fn delete(connection: &mut PgConnection, keys: &[RhythmKey]) -> Result<(), StoreError> {
    let keys: Keys<'_> = keys.iter().collect();
    sqlx::query!(
        "DELETE FROM rhythm USING UNNEST($1::text[], $2::text[]) AS old (tenant, person)
         WHERE rhythm.tenant = old.tenant AND rhythm.person = old.person",
        &keys.tenants as _,
        &keys.persons as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}
