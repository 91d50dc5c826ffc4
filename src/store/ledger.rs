//! The ledger: appending interactions once, and noting for everybody that it grew. Nothing here changes a row of it. What is
//! read from it for scoring is in `history`.

use std::collections::{BTreeSet, HashMap, HashSet};

use sqlx::{PgConnection, types::time::OffsetDateTime};

use crate::domain::{Channel, Goal, Interaction, InteractionId, PersonId, TenantId, Timestamp, Topic};

use super::{
    StoreError,
    changes::PersonMark,
    rows::{from_sql, to_sql, word},
};

/// One interaction on its way into the ledger.
#[derive(Clone, Debug)]
pub struct Entry {
    /// In which tenant.
    pub tenant: TenantId,
    /// What to record.
    pub interaction: Interaction,
    /// When it arrived, by the server's clock.
    pub record_time: Timestamp,
}

/// Which interaction.
pub(super) type EntryKey = (TenantId, InteractionId);

impl Entry {
    pub(super) fn key(&self) -> EntryKey {
        (self.tenant.clone(), self.interaction.id.clone())
    }

    /// How many acts it stands for: one toward each recipient.
    pub(super) fn acts(&self) -> usize {
        self.interaction.recipients.len()
    }
}

/// What the ledger holds under an id.
pub(super) struct Recorded {
    pub fingerprint: Vec<u8>,
    pub record_time: Timestamp,
    /// The revision of the tenant at which it was found.
    pub revision: i64,
}

/// Separates topics on their way into an array; no topic contains a control character.
const SEPARATOR: &str = "\u{1f}";

/// What an interaction adds to the ledger for one of its recipients.
struct Row<'a> {
    tenant: &'a str,
    id: &'a str,
    position: i16,
    actor: &'a str,
    recipient: &'a str,
    time: OffsetDateTime,
    kind: i16,
    group_size: i32,
    effort: Option<i64>,
    unprompted: bool,
    due: Option<OffsetDateTime>,
    refers_to: Option<&'a str>,
    channel: Option<&'a str>,
    topics: String,
    goal: Option<&'a str>,
    fingerprint: Vec<u8>,
    record_time: OffsetDateTime,
}

impl<'a> Row<'a> {
    fn new(entry: &'a Entry, position: usize, recipient: &'a PersonId) -> Self {
        let interaction = &entry.interaction;
        Self {
            tenant: entry.tenant.as_str(),
            id: interaction.id.as_str(),
            position: i16::try_from(position).unwrap_or(i16::MAX),
            actor: interaction.actor.as_str(),
            recipient: recipient.as_str(),
            time: to_sql(interaction.time),
            kind: interaction.kind.number().into(),
            group_size: i32::try_from(interaction.group_size).unwrap_or(i32::MAX),
            effort: interaction.effort.and_then(|effort| i64::try_from(effort.as_micros()).ok()),
            unprompted: interaction.unprompted,
            due: interaction.due_time.map(to_sql),
            refers_to: interaction.refers_to.as_ref().map(InteractionId::as_str),
            channel: interaction.channel.as_ref().map(Channel::as_str),
            topics: interaction.topics.iter().map(Topic::as_str).collect::<Vec<_>>().join(SEPARATOR),
            goal: interaction.goal.as_ref().map(Goal::as_str),
            fingerprint: interaction.fingerprint().to_vec(),
            record_time: to_sql(entry.record_time),
        }
    }
}

#[derive(Default)]
struct Columns<'a> {
    tenants: Vec<&'a str>,
    ids: Vec<&'a str>,
    positions: Vec<i16>,
    actors: Vec<&'a str>,
    recipients: Vec<&'a str>,
    times: Vec<OffsetDateTime>,
    kinds: Vec<i16>,
    group_sizes: Vec<i32>,
    efforts: Vec<Option<i64>>,
    unprompted: Vec<bool>,
    dues: Vec<Option<OffsetDateTime>>,
    refers_to: Vec<Option<&'a str>>,
    channels: Vec<Option<&'a str>>,
    topics: Vec<String>,
    goals: Vec<Option<&'a str>>,
    fingerprints: Vec<Vec<u8>>,
    record_times: Vec<OffsetDateTime>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, row: Row<'a>) {
        self.tenants.push(row.tenant);
        self.ids.push(row.id);
        self.positions.push(row.position);
        self.actors.push(row.actor);
        self.recipients.push(row.recipient);
        self.times.push(row.time);
        self.kinds.push(row.kind);
        self.group_sizes.push(row.group_size);
        self.efforts.push(row.effort);
        self.unprompted.push(row.unprompted);
        self.dues.push(row.due);
        self.refers_to.push(row.refers_to);
        self.channels.push(row.channel);
        self.topics.push(row.topics);
        self.goals.push(row.goal);
        self.fingerprints.push(row.fingerprint);
        self.record_times.push(row.record_time);
    }
}

/// What came of appending.
#[derive(Default)]
pub(super) struct Appended {
    /// Of each tenant for which there was something new, the revision that shows it.
    revisions: HashMap<String, i64>,
    /// The keys of what was new, when not everything was.
    new: Option<HashSet<(String, String)>>,
}

impl Appended {
    /// The revision that shows an entry, if it was new.
    pub(super) fn revision_of(&self, entry: &Entry) -> Option<i64> {
        let revision = self.revisions.get(entry.tenant.as_str()).copied();
        let key = || (entry.tenant.as_str().to_owned(), entry.interaction.id.as_str().to_owned());
        revision.filter(|_| self.new.as_ref().is_none_or(|new| new.contains(&key())))
    }
}

/// Appends interactions with different keys, in the order given, and tells which of them are new. Where there are new ones, or
/// none were given, it raises the revisions of the tenants of the persons who are touched and notes whom: those of the
/// interactions, and the others named here. From there to the commit, whoever else records for such a tenant waits. It is one
/// statement, so that it takes one round trip and commits by itself.
#[expect(clippy::too_many_lines, reason = "it is one statement")]
pub(super) async fn append<'a>(
    connection: &mut PgConnection,
    entries: &[&'a Entry],
    others: impl IntoIterator<Item = (&'a TenantId, &'a PersonId)>,
) -> Result<Appended, StoreError> {
    let mut columns = Columns::default();
    let mut touched: BTreeSet<_> = others.into_iter().map(|(tenant, person)| mark(tenant, person)).collect();
    for entry in entries {
        touched.insert(mark(&entry.tenant, &entry.interaction.actor));
        for (position, recipient) in entry.interaction.recipients.iter().enumerate() {
            touched.insert(mark(&entry.tenant, recipient));
            columns.push(Row::new(entry, position, recipient));
        }
    }
    if touched.is_empty() {
        return Ok(Appended::default());
    }
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
               WHERE tenant IN (SELECT tenant FROM added) OR cardinality($1) = 0
               ORDER BY tenant
               ON CONFLICT (tenant) DO UPDATE SET revision = tenant_revision.revision + 1
               RETURNING tenant, revision
           ), noted AS (
               INSERT INTO change (tenant, revision, persons, actors, recipients)
               SELECT tenant, revision, persons, actors, recipients
               FROM next JOIN touched USING (tenant) LEFT JOIN added USING (tenant)
           ), unfolded AS (
               INSERT INTO unfolded (tenant, revision, persons, interaction_ids, actors, recipients, times, kinds, group_sizes,
                   efforts_micros, unprompted, serve_goals, due_times, refer_to)
               SELECT tenant, revision, persons, interaction_ids, actors, recipients, times, kinds, group_sizes, efforts_micros,
                   unprompted, serve_goals, due_times, refer_to
               FROM next JOIN touched USING (tenant) JOIN added USING (tenant)
           )
           SELECT tenant, revision,
               CASE WHEN (SELECT count(*) FROM new) < $20::bigint THEN interaction_ids END AS "interaction_ids?"
           FROM next LEFT JOIN added USING (tenant)"#,
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
    let mut appended = Appended::default();
    for row in rows {
        if let Some(ids) = row.interaction_ids {
            let keys = ids.into_iter().map(|id| (row.tenant.clone(), id));
            appended.new.get_or_insert_default().extend(keys);
        }
        appended.revisions.insert(row.tenant, row.revision);
    }
    Ok(appended)
}

/// Appends one interaction toward one recipient as [`append`] does. What is noted of it needs no statement to gather it, so that
/// this one costs PostgreSQL two thirds of what that does.
pub(super) async fn append_one(
    connection: &mut PgConnection,
    entry: &Entry,
    recipient: &PersonId,
) -> Result<Appended, StoreError> {
    let row = Row::new(entry, 0, recipient);
    let marks = [&entry.interaction.actor, recipient].map(|person| PersonMark::of(person).0);
    let revision = sqlx::query_scalar!(
        r#"WITH new AS (
               INSERT INTO ledger (tenant, interaction_id, position, actor, recipient, interaction_time, kind, group_size,
                   effort_micros, unprompted, due_time, refers_to, channel, topics, goal, fingerprint, record_time)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, string_to_array($14, E'\x1f'), $15, $16, $17)
               ON CONFLICT (tenant, interaction_id, position) DO NOTHING
               RETURNING tenant
           ), next AS (
               INSERT INTO tenant_revision (tenant, revision)
               SELECT tenant, 1 FROM new
               ON CONFLICT (tenant) DO UPDATE SET revision = tenant_revision.revision + 1
               RETURNING tenant, revision
           ), noted AS (
               INSERT INTO change (tenant, revision, persons, actors, recipients)
               SELECT tenant, revision, $18::bigint[], ARRAY[$4], ARRAY[$5] FROM next
           ), unfolded AS (
               INSERT INTO unfolded (tenant, revision, persons, interaction_ids, actors, recipients, times, kinds, group_sizes,
                   efforts_micros, unprompted, serve_goals, due_times, refer_to)
               SELECT tenant, revision, $18, ARRAY[$2], ARRAY[$4], ARRAY[$5], ARRAY[$6], ARRAY[$7], ARRAY[$8], ARRAY[$9],
                   ARRAY[$10], ARRAY[$15 IS NOT NULL], ARRAY[$11], ARRAY[$12]
               FROM next
           )
           SELECT revision FROM next"#,
        row.tenant,
        row.id,
        row.position,
        row.actor,
        row.recipient,
        row.time,
        row.kind,
        row.group_size,
        row.effort,
        row.unprompted,
        row.due,
        row.refers_to,
        row.channel,
        row.topics,
        row.goal,
        row.fingerprint,
        row.record_time,
        &marks,
    )
    .fetch_optional(connection)
    .await?;
    Ok(Appended {
        revisions: revision.map(|revision| (row.tenant.to_owned(), revision)).into_iter().collect(),
        new: None,
    })
}

fn mark<'a>(tenant: &'a TenantId, person: &PersonId) -> (&'a str, i64) {
    (tenant.as_str(), PersonMark::of(person).0)
}

/// What the ledger holds under these keys. It is as safe then as what is recorded now: a transaction that writes to the log,
/// if only a message that nobody reads, ends when the standbys have it, with every commit before.
pub(super) async fn recorded<'a>(
    connection: &mut PgConnection,
    keys: impl IntoIterator<Item = &'a EntryKey>,
) -> Result<HashMap<EntryKey, Recorded>, StoreError> {
    let (tenants, ids): (Vec<_>, Vec<_>) = keys.into_iter().map(|(tenant, id)| (tenant.as_str(), id.as_str())).unzip();
    let rows = sqlx::query!(
        r#"SELECT ledger.tenant, ledger.interaction_id, ledger.fingerprint, ledger.record_time,
               coalesce(tenant_revision.revision, 0) AS "revision!",
               (SELECT pg_logical_emit_message(true, 'rapport', '')) IS NULL AS message
           FROM UNNEST($1::text[], $2::text[]) AS key (tenant, interaction_id)
           JOIN ledger ON ledger.tenant = key.tenant AND ledger.interaction_id = key.interaction_id
               AND ledger.position = 0
           LEFT JOIN tenant_revision ON tenant_revision.tenant = ledger.tenant"#,
        &tenants as _,
        &ids as _,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let key = (
                word("ledger", TenantId::parse(&row.tenant))?,
                word("ledger", InteractionId::parse(&row.interaction_id))?,
            );
            let record_time = from_sql("ledger", row.record_time)?;
            Ok((key, Recorded { fingerprint: row.fingerprint, record_time, revision: row.revision }))
        })
        .collect()
}
