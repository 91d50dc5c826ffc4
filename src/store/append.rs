//! Appending interactions to the ledger, each once, and noting for everybody that it grew and what is to be folded.

use std::collections::{BTreeSet, HashMap, HashSet};

use sqlx::PgConnection;

use crate::domain::TenantId;

use super::{
    StoreError,
    changes::mark,
    ledger::{Columns, Entry, Row},
};

/// What came of appending.
#[derive(Default)]
pub(super) struct Appended {
    /// Of each tenant for which there was something new, the revision that shows it.
    revisions: HashMap<String, i64>,
    /// The keys of what was new, when not everything was.
    new: Option<HashSet<(String, String)>>,
}

impl Appended {
    /// Of tenants, the revisions that show something new, and the ids of what that is, when not everything was.
    fn of(tenants: impl IntoIterator<Item = (String, i64, Option<Vec<String>>)>) -> Self {
        let mut appended = Self::default();
        for (tenant, revision, new) in tenants {
            if let Some(ids) = new {
                appended.new.get_or_insert_default().extend(ids.into_iter().map(|id| (tenant.clone(), id)));
            }
            appended.revisions.insert(tenant, revision);
        }
        appended
    }

    /// Whether everything was new.
    fn is_all(&self) -> bool {
        self.new.is_none() && !self.revisions.is_empty()
    }

    /// The revision that shows an entry, if it was new.
    pub(super) fn revision_of(&self, entry: &Entry) -> Option<i64> {
        let revision = self.revisions.get(entry.tenant.as_str()).copied();
        let key = || (entry.tenant.as_str().to_owned(), entry.interaction.id.as_str().to_owned());
        revision.filter(|_| self.new.as_ref().is_none_or(|new| new.contains(&key())))
    }
}

/// For how many appends known entries are reckoned with, since there were any: who repeats one mostly repeats others.
const CAREFUL_FOR: u16 = 1000;

/// For how many appends known entries are still reckoned with.
#[derive(Debug, Default)]
pub(super) struct Caution(u16);

impl Caution {
    /// As when there was a known one just now.
    pub(super) fn take(&mut self) {
        self.0 = CAREFUL_FOR;
    }
}

/// Appends interactions with different keys, in the order given, and tells which of them are new. Where there are new ones, it
/// raises the revisions of their tenants and notes whom they touch. From there to the commit, whoever else records for such a
/// tenant waits. What appends is one statement, so that it takes one round trip and commits by itself.
pub(super) async fn append(
    connection: &mut PgConnection,
    entries: &[&Entry],
    caution: &mut Caution,
) -> Result<Appended, StoreError> {
    let Some(Entry { tenant, .. }) = entries.first() else { return Ok(Appended::default()) };
    let is_plain = |entry: &&Entry| entry.tenant == *tenant && entry.acts() == 1;
    if caution.0 == 0 && entries.iter().all(is_plain) {
        if let Some(revision) = append_new(connection, tenant, entries).await? {
            return Ok(Appended::of([(tenant.as_str().to_owned(), revision, None)]));
        }
        // Before anything else can fail: what is tried again then is not refused again.
        caution.take();
    }
    let appended = append_any(connection, entries).await?;
    if appended.is_all() {
        caution.0 = caution.0.saturating_sub(1);
    } else {
        caution.take();
    }
    Ok(appended)
}

/// What these entries add to the ledger, and whom they touch.
fn columns<'a>(entries: &[&'a Entry]) -> (Columns<'a>, BTreeSet<(&'a str, i64)>) {
    let (mut columns, mut touched) = (Columns::default(), BTreeSet::new());
    for entry in entries {
        touched.insert(mark(&entry.tenant, &entry.interaction.actor));
        for (position, recipient) in entry.interaction.recipients.iter().enumerate() {
            touched.insert(mark(&entry.tenant, recipient));
            columns.push(Row::new(entry, position, recipient));
        }
    }
    (columns, touched)
}

/// Appends interactions of any tenants, toward any number of recipients.
#[expect(clippy::too_many_lines, reason = "it is one statement")]
async fn append_any(connection: &mut PgConnection, entries: &[&Entry]) -> Result<Appended, StoreError> {
    let (columns, touched) = columns(entries);
    let (tenants, marks): (Vec<&str>, Vec<i64>) = touched.into_iter().unzip();
    // What is said to be true of being in a set is looked up in it; else every row would be compared with every one of the set.
    // Arrays are taken apart in the select list: in FROM, PostgreSQL stores the elements of each one by one and reads them again,
    // which takes twice as long.
    let rows = sqlx::query!(
        r#"WITH entry AS MATERIALIZED (
               SELECT UNNEST($1::text[]) AS tenant, UNNEST($2::text[]) AS interaction_id, UNNEST($3::smallint[]) AS position,
                   UNNEST($4::text[]) AS actor, UNNEST($5::text[]) AS recipient, UNNEST($6::timestamptz[]) AS interaction_time,
                   UNNEST($7::smallint[]) AS kind, UNNEST($8::integer[]) AS group_size, UNNEST($9::bigint[]) AS effort_micros,
                   UNNEST($10::boolean[]) AS unprompted, UNNEST($11::timestamptz[]) AS due_time, UNNEST($12::text[]) AS refers_to,
                   UNNEST($13::text[]) AS channel, string_to_array(UNNEST($14::text[]), E'\x1f') AS topics,
                   UNNEST($15::text[]) AS goal, UNNEST($16::bytea[]) AS fingerprint, UNNEST($17::timestamptz[]) AS record_time
           ), new AS (
               INSERT INTO ledger (tenant, interaction_id, position, actor, recipient, interaction_time, kind, group_size,
                   effort_micros, unprompted, due_time, refers_to, channel, topics, goal, fingerprint, record_time)
               SELECT entry.* FROM entry WHERE entry.position = 0
               ON CONFLICT (tenant, interaction_id, position) DO NOTHING
               RETURNING tenant, interaction_id, actor, recipient, interaction_time, kind, group_size, effort_micros,
                   unprompted, goal IS NOT NULL AS serves_goal, due_time, refers_to
           ), beside AS (
               INSERT INTO ledger (tenant, interaction_id, position, actor, recipient, interaction_time, kind, group_size,
                   effort_micros, unprompted, due_time, refers_to, channel, topics, goal, fingerprint, record_time)
               SELECT entry.* FROM entry WHERE entry.position > 0
                   AND ((entry.tenant, entry.interaction_id) IN (SELECT tenant, interaction_id FROM new)) IS TRUE
               RETURNING tenant, interaction_id, actor, recipient, interaction_time, kind, group_size, effort_micros,
                   unprompted, goal IS NOT NULL AS serves_goal, due_time, refers_to
           ), added AS MATERIALIZED (
               SELECT tenant, array_agg(interaction_id) AS interaction_ids, array_agg(actor) AS actors,
                   array_agg(recipient) AS recipients, array_agg(interaction_time) AS times, array_agg(kind) AS kinds,
                   array_agg(group_size) AS group_sizes, array_agg(effort_micros) AS efforts_micros,
                   array_agg(unprompted) AS unprompted, array_agg(serves_goal) AS serve_goals,
                   array_agg(due_time) AS due_times, array_agg(refers_to) AS refer_to
               FROM (SELECT * FROM new UNION ALL SELECT * FROM beside) AS act GROUP BY tenant
           ), touched AS MATERIALIZED (
               SELECT tenant, array_agg(person) AS persons
               FROM UNNEST($18::text[], $19::bigint[]) AS touched (tenant, person)
               GROUP BY tenant
           ), next AS (
               INSERT INTO tenant_revision (tenant, revision)
               SELECT tenant, 1 FROM touched
               WHERE tenant IN (SELECT tenant FROM added)
               ORDER BY tenant
               ON CONFLICT (tenant) DO UPDATE SET revision = tenant_revision.revision + 1
               RETURNING tenant, revision
           ), noted AS (
               INSERT INTO change (tenant, revision, persons, actors, recipients)
               SELECT tenant, revision, persons, actors, recipients
               FROM next JOIN touched USING (tenant) JOIN added USING (tenant)
           ), unfolded AS (
               INSERT INTO unfolded (tenant, revision, persons, interaction_ids, actors, recipients, times, kinds, group_sizes,
                   efforts_micros, unprompted, serve_goals, due_times, refer_to)
               SELECT tenant, revision, persons, interaction_ids, actors, recipients, times, kinds, group_sizes, efforts_micros,
                   unprompted, serve_goals, due_times, refer_to
               FROM next JOIN touched USING (tenant) JOIN added USING (tenant)
           )
           SELECT tenant, revision,
               CASE WHEN (SELECT count(*) FROM new) < $20::bigint THEN interaction_ids END AS "interaction_ids?"
           FROM next JOIN added USING (tenant)"#,
        &columns.tenants as _,
        &columns.ids as _,
        &columns.positions,
        &columns.actors as _,
        &columns.recipients as _,
        &columns.times,
        &columns.kinds,
        &columns.group_sizes,
        &columns.efforts as _,
        &columns.unprompted,
        &columns.dues as _,
        &columns.refers_to as _,
        &columns.channels as _,
        &columns.topics,
        &columns.goals as _,
        &columns.fingerprints,
        &columns.record_times,
        &tenants as _,
        &marks,
        i64::try_from(entries.len()).unwrap_or(i64::MAX),
    )
    .fetch_all(connection)
    .await?;
    Ok(Appended::of(rows.into_iter().map(|row| (row.tenant, row.revision, row.interaction_ids))))
}

/// Appends interactions of one tenant, each toward one recipient, if all of them are new; else none. PostgreSQL neither looks for
/// them nor gathers what is noted of them, and so takes two thirds of the time that [`append_any`] takes. Where one is known, it
/// reports a duplicate key in its log.
async fn append_new(
    connection: &mut PgConnection,
    tenant: &TenantId,
    entries: &[&Entry],
) -> Result<Option<i64>, StoreError> {
    let (columns, touched) = columns(entries);
    let marks: Vec<i64> = touched.into_iter().map(|(_, mark)| mark).collect();
    let serve_goals: Vec<bool> = columns.goals.iter().map(Option::is_some).collect();
    // Rows are counted so that all are there before the revision is raised: whoever held it and waited for a row could keep one
    // waiting who has the row and waits for the revision.
    let revision = sqlx::query_scalar!(
        r#"WITH new AS (
               INSERT INTO ledger (tenant, interaction_id, position, actor, recipient, interaction_time, kind, group_size,
                   effort_micros, unprompted, due_time, refers_to, channel, topics, goal, fingerprint, record_time)
               SELECT $1, UNNEST($2::text[]), 0, UNNEST($3::text[]), UNNEST($4::text[]), UNNEST($5::timestamptz[]),
                   UNNEST($6::smallint[]), UNNEST($7::integer[]), UNNEST($8::bigint[]), UNNEST($9::boolean[]),
                   UNNEST($10::timestamptz[]), UNNEST($11::text[]), UNNEST($12::text[]),
                   string_to_array(UNNEST($13::text[]), E'\x1f'), UNNEST($14::text[]), UNNEST($15::bytea[]),
                   UNNEST($16::timestamptz[])
               RETURNING 1
           ), next AS (
               INSERT INTO tenant_revision (tenant, revision)
               SELECT $1, 1 WHERE (SELECT count(*) FROM new) > 0
               ON CONFLICT (tenant) DO UPDATE SET revision = tenant_revision.revision + 1
               RETURNING revision
           ), noted AS (
               INSERT INTO change (tenant, revision, persons, actors, recipients)
               SELECT $1, revision, $18::bigint[], $3, $4 FROM next
           ), unfolded AS (
               INSERT INTO unfolded (tenant, revision, persons, interaction_ids, actors, recipients, times, kinds, group_sizes,
                   efforts_micros, unprompted, serve_goals, due_times, refer_to)
               SELECT $1, revision, $18, $2, $3, $4, $5, $6, $7, $8, $9, $17::boolean[], $10, $11 FROM next
           )
           SELECT revision FROM next"#,
        tenant.as_str(),
        &columns.ids as _,
        &columns.actors as _,
        &columns.recipients as _,
        &columns.times,
        &columns.kinds,
        &columns.group_sizes,
        &columns.efforts as _,
        &columns.unprompted,
        &columns.dues as _,
        &columns.refers_to as _,
        &columns.channels as _,
        &columns.topics,
        &columns.goals as _,
        &columns.fingerprints,
        &columns.record_times,
        &serve_goals,
        &marks,
    );
    match revision.fetch_optional(connection).await {
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(None),
        revision => Ok(revision?),
    }
}
