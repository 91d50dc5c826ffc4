//! How a transaction ends that folds: one statement, the last before the commit, writes what it made of the evidence.

use sqlx::PgConnection;

use crate::scoring::{Policy, RHYTHM_LEN};

use super::{
    StoreError,
    absorb::Absorbed,
    rhythm,
    rows::{KeyColumns, only},
    tie,
};

/// Writes ties, and adds to rhythms what days gained, each brought forward to the later of the two days that it and the kept sums
/// are as of (the sum of [`Rhythm::absorb`], without a read before the write). New ties are inserted without looking for them a
/// second time: one that somebody else has begun since refuses all, as a lost race, and PostgreSQL reports a duplicate key in its
/// log. Arrays are taken apart as in `append`.
#[expect(clippy::too_many_lines, reason = "it is one statement")]
pub(super) async fn conclude(
    connection: &mut PgConnection,
    absorbed: &Absorbed,
    policy: &Policy,
) -> Result<(), StoreError> {
    let Absorbed { begun, changed, gained, .. } = absorbed;
    let ties: KeyColumns<'_> = begun.keys().chain(changed.keys()).collect();
    let evidence: tie::StateColumns = begun.values().chain(changed.values()).collect();
    let are_new: Vec<bool> =
        [(true, begun), (false, changed)].iter().flat_map(|(is, ties)| ties.keys().map(|_| *is)).collect();
    // PostgreSQL takes a series for a thousand rows and arrays for ten. For a thousand it would read all ties, in the plan that is
    // made while there are none.
    let places: Vec<i32> = (1..).take(are_new.len()).collect();
    let (persons, days): (rhythm::Keys<'_>, rhythm::StateColumns) =
        (gained.keys().collect(), gained.values().collect());
    let half_lives = policy.half_lives.repeat(RHYTHM_LEN / policy.half_lives.len());
    let written = sqlx::query!(
        r#"WITH given AS MATERIALIZED (
               SELECT tenant, actor, recipient, is_new, first_time, last_time,
                   ($7::integer[])[place * 17 - 16 : place * 17] AS counts,
                   ($8::double precision[])[place * 3 - 2 : place * 3] AS today,
                   ($9::double precision[])[place * 14 - 13 : place * 14] AS evidence
               FROM (
                   SELECT UNNEST($1::text[]) AS tenant, UNNEST($2::text[]) AS actor, UNNEST($3::text[]) AS recipient,
                       UNNEST($4::boolean[]) AS is_new, UNNEST($5::timestamptz[]) AS first_time,
                       UNNEST($6::timestamptz[]) AS last_time, UNNEST($17::integer[]) AS place
               ) AS tie
           ), begun AS (
               INSERT INTO tie (tenant, actor, recipient, first_time, last_time, counts, today, evidence)
               SELECT tenant, actor, recipient, first_time, last_time, counts, today, evidence FROM given WHERE is_new
               RETURNING 1
           ), changed AS (
               UPDATE tie SET first_time = given.first_time, last_time = given.last_time, counts = given.counts,
                   today = given.today, evidence = given.evidence
               FROM given
               WHERE NOT given.is_new AND tie.tenant = given.tenant AND tie.actor = given.actor
                   AND tie.recipient = given.recipient AND ($16::text IS NULL OR tie.tenant = $16)
               RETURNING 1
           ), ties AS MATERIALIZED (
               SELECT (SELECT count(*) FROM begun) AS begun, (SELECT count(*) FROM changed) AS changed
           ), added AS (
               INSERT INTO rhythm (tenant, person, last_time, day, days)
               SELECT tenant, person, last_time, day, ($14::double precision[])[place * 12 - 11 : place * 12]
               FROM ties, (
                   SELECT UNNEST($10::text[]) AS tenant, UNNEST($11::text[]) AS person, UNNEST($12::timestamptz[]) AS last_time,
                       UNNEST($13::integer[]) AS day, generate_series(1, cardinality($10)) AS place
               ) AS gained
               ON CONFLICT (tenant, person) DO UPDATE SET
                   last_time = GREATEST(rhythm.last_time, EXCLUDED.last_time),
                   day = GREATEST(rhythm.day, EXCLUDED.day),
                   days = CASE WHEN rhythm.day = EXCLUDED.day THEN ARRAY[
                           rhythm.days[1] + EXCLUDED.days[1], rhythm.days[2] + EXCLUDED.days[2], rhythm.days[3] + EXCLUDED.days[3],
                           rhythm.days[4] + EXCLUDED.days[4], rhythm.days[5] + EXCLUDED.days[5], rhythm.days[6] + EXCLUDED.days[6],
                           rhythm.days[7] + EXCLUDED.days[7], rhythm.days[8] + EXCLUDED.days[8], rhythm.days[9] + EXCLUDED.days[9],
                           rhythm.days[10] + EXCLUDED.days[10], rhythm.days[11] + EXCLUDED.days[11], rhythm.days[12] + EXCLUDED.days[12]
                       ] ELSE ARRAY(
                           SELECT faded(one.kept, EXCLUDED.day - rhythm.day, one.half_life)
                               + faded(one.gained, rhythm.day - EXCLUDED.day, one.half_life)
                           FROM UNNEST(rhythm.days, EXCLUDED.days, $15::double precision[])
                               WITH ORDINALITY AS one (kept, gained, half_life, place)
                           ORDER BY one.place
                       ) END
               RETURNING 1
           )
           SELECT begun AS "begun!", changed AS "changed!", (SELECT count(*) FROM added) AS "added!" FROM ties"#,
        &ties.tenants as _,
        &ties.actors as _,
        &ties.recipients as _,
        &are_new,
        &evidence.first_times,
        &evidence.last_times,
        &evidence.counts,
        &evidence.todays,
        &evidence.evidence,
        &persons.tenants as _,
        &persons.persons as _,
        &days.last_times,
        &days.last_days,
        &days.days,
        &half_lives,
        only(&ties.tenants),
        &places,
    );
    let written = match written.fetch_one(connection).await {
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => return Err(StoreError::Raced),
        written => written?,
    };
    let lost = |table| StoreError::Inconsistent { table, what: "a row was not written" };
    super::all_written(written.begun, begun.len()).ok_or_else(|| lost("tie"))?;
    let vanished = StoreError::Inconsistent { table: "tie", what: "a locked row vanished" };
    super::all_written(written.changed, changed.len()).ok_or(vanished)?;
    super::all_written(written.added, gained.len()).ok_or_else(|| lost("rhythm"))
}
