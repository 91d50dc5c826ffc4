//! How a transaction that records ends: one statement, the last before the commit, writes what it made of the evidence and
//! tells everybody that it did.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx::PgConnection;

use crate::{
    domain::{PersonId, TenantId},
    scoring::{Policy, RHYTHM_LEN, Rhythm, Tie},
};

use super::{
    StoreError,
    changes::{MOST_CHANGES, PersonMark},
    rhythm,
    rows::{KeyColumns, RhythmKey, TieKey, only},
    tie,
};

/// What a transaction concludes with.
#[derive(Clone, Debug, Default)]
pub(super) struct Conclusion {
    /// Ties that were not there when they were locked.
    pub begun: BTreeMap<TieKey, Tie>,
    /// Ties to write back.
    pub changed: BTreeMap<TieKey, Tie>,
    /// What days add to rhythms.
    pub gained: BTreeMap<RhythmKey, Rhythm>,
    /// Whether anything else was changed of the persons touched than these ties, and what they and acts of theirs tell.
    pub changes_more: bool,
}

/// The revisions that tenants were raised to.
pub(super) type Revisions = HashMap<String, i64>;

/// Writes ties; adds to rhythms what days gained, each brought forward to the later of the two days that it and the kept sums
/// are as of (the sum of [`Rhythm::absorb`], without a read before the write); then raises the revisions of the tenants of
/// the persons who were touched and notes whom, and tells to what. From there to the commit, whoever else records for such a
/// tenant waits.
#[expect(clippy::too_many_lines, reason = "it is one statement")]
pub(super) async fn conclude<'a>(
    connection: &mut PgConnection,
    conclusion: &Conclusion,
    touched: impl IntoIterator<Item = (&'a TenantId, &'a PersonId)>,
    policy: &Policy,
) -> Result<Revisions, StoreError> {
    let touched: BTreeSet<_> = touched.into_iter().map(|(tenant, person)| (tenant, PersonMark::of(person))).collect();
    if touched.is_empty() {
        return Ok(Revisions::new());
    }
    let (tenants, marks): (Vec<&str>, Vec<i64>) =
        touched.into_iter().map(|(tenant, PersonMark(mark))| (tenant.as_str(), mark)).unzip();
    let Conclusion { begun, changed, gained, changes_more } = conclusion;
    let ties: KeyColumns<'_> = begun.keys().chain(changed.keys()).collect();
    let evidence: tie::StateColumns = begun.values().chain(changed.values()).collect();
    let are_new: Vec<bool> =
        [(true, begun), (false, changed)].iter().flat_map(|(is, ties)| ties.keys().map(|_| *is)).collect();
    let (persons, days): (rhythm::Keys<'_>, rhythm::StateColumns) =
        (gained.keys().collect(), gained.values().collect());
    let half_lives = policy.half_lives.repeat(RHYTHM_LEN / policy.half_lives.len());
    // Changes are kept for twice as long as anybody catches up with, and forgotten many at once.
    let written = sqlx::query!(
        r#"WITH given AS MATERIALIZED (
               SELECT tenant, actor, recipient, is_new, first_time, last_time,
                   ($7::integer[])[place * 17 - 16 : place * 17] AS counts,
                   ($8::double precision[])[place * 3 - 2 : place * 3] AS today,
                   ($9::double precision[])[place * 14 - 13 : place * 14] AS evidence
               FROM UNNEST($1::text[], $2::text[], $3::text[], $4::boolean[], $5::timestamptz[], $6::timestamptz[])
                   WITH ORDINALITY AS tie (tenant, actor, recipient, is_new, first_time, last_time, place)
           ), begun AS (
               INSERT INTO tie (tenant, actor, recipient, first_time, last_time, counts, today, evidence)
               SELECT tenant, actor, recipient, first_time, last_time, counts, today, evidence FROM given WHERE is_new
               ON CONFLICT (tenant, actor, recipient) DO NOTHING
               RETURNING 1
           ), changed AS (
               UPDATE tie SET first_time = given.first_time, last_time = given.last_time, counts = given.counts,
                   today = given.today, evidence = given.evidence
               FROM given
               WHERE NOT given.is_new AND tie.tenant = given.tenant AND tie.actor = given.actor
                   AND tie.recipient = given.recipient AND ($19::text IS NULL OR tie.tenant = $19)
               RETURNING 1
           ), ties AS MATERIALIZED (
               SELECT (SELECT count(*) FROM begun) AS begun, (SELECT count(*) FROM changed) AS changed
           ), added AS (
               INSERT INTO rhythm (tenant, person, last_time, day, days)
               SELECT tenant, person, last_time, day, ($14::double precision[])[place * 12 - 11 : place * 12]
               FROM ties, UNNEST($10::text[], $11::text[], $12::timestamptz[], $13::integer[])
                   WITH ORDINALITY AS gained (tenant, person, last_time, day, place)
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
           ), touched AS MATERIALIZED (
               SELECT tenant, array_agg(person) AS persons
               FROM UNNEST($16::text[], $17::bigint[]) AS touched (tenant, person)
               GROUP BY tenant
           ), next AS (
               INSERT INTO tenant_revision (tenant, revision)
               SELECT tenant, 1 FROM touched WHERE (SELECT count(*) FROM added) >= 0 ORDER BY tenant
               ON CONFLICT (tenant) DO UPDATE SET revision = tenant_revision.revision + 1
               RETURNING tenant, revision
           ), forgotten AS (
               DELETE FROM change USING next
               WHERE next.revision % 256 = 0 AND change.tenant = next.tenant
                   AND change.revision < next.revision - 2 * $18::bigint
                   AND ($19::text IS NULL OR change.tenant = $19)
           ), noted AS (
               INSERT INTO change (tenant, revision, persons, actors, recipients)
               SELECT tenant, revision, persons, actors, recipients
               FROM next JOIN touched USING (tenant) LEFT JOIN (
                   SELECT tenant, array_agg(actor) AS actors, array_agg(recipient) AS recipients
                   FROM given WHERE NOT $20 GROUP BY tenant
               ) AS told USING (tenant)
           )
           SELECT begun AS "begun!", changed AS "changed!", (SELECT count(*) FROM added) AS "added!",
               tenants AS "tenants!", revisions AS "revisions!"
           FROM ties, (SELECT array_agg(tenant) AS tenants, array_agg(revision) AS revisions FROM next) AS raised"#,
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
        &tenants as _,
        &marks,
        MOST_CHANGES,
        only(&tenants),
        changes_more,
    );
    let written = written.fetch_one(connection).await?;
    super::all_written(written.begun, begun.len()).ok_or(StoreError::Raced)?;
    let vanished = StoreError::Inconsistent { table: "tie", what: "a locked row vanished" };
    super::all_written(written.changed, changed.len()).ok_or(vanished)?;
    let lost = StoreError::Inconsistent { table: "rhythm", what: "a row was not written" };
    super::all_written(written.added, gained.len()).ok_or(lost)?;
    Ok(written.tenants.into_iter().zip(written.revisions).collect())
}
