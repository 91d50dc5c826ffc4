//! The ledger: inserting interactions once. It is append-only; nothing here changes a row. What is read from it for scoring
//! is in `history`.

use std::collections::{HashMap, HashSet};

use sqlx::{PgConnection, types::time::OffsetDateTime};

use crate::{
    domain::{Channel, Goal, Interaction, InteractionId, PersonId, TenantId, Timestamp, Topic},
    scoring::{Act, Tie},
};

use super::{
    StoreError,
    rows::{KeyColumns, TieKey, TieRow, from_sql, only, to_sql, word},
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

    /// What it is to each of its recipients.
    pub(super) fn acts(&self) -> impl Iterator<Item = (TieKey, Act)> + '_ {
        self.interaction.recipients.iter().map(|recipient| {
            let key = TieKey {
                tenant: self.tenant.clone(),
                actor: self.interaction.actor.clone(),
                recipient: recipient.clone(),
            };
            (key, Act::of(&self.interaction))
        })
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
    fn push(&mut self, entry: &'a Entry, position: usize, recipient: &'a PersonId) {
        let interaction = &entry.interaction;
        self.tenants.push(entry.tenant.as_str());
        self.ids.push(interaction.id.as_str());
        self.positions.push(i16::try_from(position).unwrap_or(i16::MAX));
        self.actors.push(interaction.actor.as_str());
        self.recipients.push(recipient.as_str());
        self.times.push(to_sql(interaction.time));
        self.kinds.push(interaction.kind.number().into());
        self.group_sizes.push(i32::try_from(interaction.group_size).unwrap_or(i32::MAX));
        self.efforts.push(interaction.effort.and_then(|effort| i64::try_from(effort.as_micros()).ok()));
        self.unprompted.push(interaction.unprompted);
        self.dues.push(interaction.due_time.map(to_sql));
        self.refers_to.push(interaction.refers_to.as_ref().map(InteractionId::as_str));
        self.channels.push(interaction.channel.as_ref().map(Channel::as_str));
        self.topics.push(interaction.topics.iter().map(Topic::as_str).collect::<Vec<_>>().join(SEPARATOR));
        self.goals.push(interaction.goal.as_ref().map(Goal::as_str));
        self.fingerprints.push(interaction.fingerprint().to_vec());
        self.record_times.push(to_sql(entry.record_time));
    }

    /// Inserts what is not there yet, then locks ties.
    #[expect(clippy::too_many_lines, reason = "it is one statement")]
    async fn insert(&self, connection: &mut PgConnection, ties: &KeyColumns<'_>) -> Result<Inserted, StoreError> {
        let rows = sqlx::query!(
            r#"WITH inserted AS (
                   INSERT INTO ledger (tenant, interaction_id, position, actor, recipient, interaction_time, kind,
                       group_size, effort_micros, unprompted, due_time, refers_to, channel, topics, goal, fingerprint,
                       record_time)
                   SELECT tenant, interaction_id, position, actor, recipient, interaction_time, kind, group_size,
                       effort_micros, unprompted, due_time, refers_to, channel, string_to_array(topics, E'\x1f'), goal,
                       fingerprint, record_time
                   FROM UNNEST($1::text[], $2::text[], $3::smallint[], $4::text[], $5::text[], $6::timestamptz[],
                       $7::smallint[], $8::integer[], $9::bigint[], $10::boolean[], $11::timestamptz[], $12::text[],
                       $13::text[], $14::text[], $15::text[], $16::bytea[], $17::timestamptz[])
                       AS entry (tenant, interaction_id, position, actor, recipient, interaction_time, kind, group_size,
                           effort_micros, unprompted, due_time, refers_to, channel, topics, goal, fingerprint, record_time)
                   ON CONFLICT (tenant, interaction_id, position) DO NOTHING
                   RETURNING tenant, interaction_id
               ), locked AS (
                   SELECT * FROM (
                       SELECT tie.tenant, tie.actor, tie.recipient, first_time, last_time, counts, today, evidence
                       FROM UNNEST($18::text[], $19::text[], $20::text[]) AS key (tenant, actor, recipient)
                       JOIN tie USING (tenant, actor, recipient)
                       WHERE $21::text IS NULL OR tie.tenant = $21
                       ORDER BY tie.tenant, tie.actor, tie.recipient
                       FOR UPDATE OF tie
                   ) AS tie
               )
               SELECT interaction_id AS "interaction_id?", tenant AS "tenant!", '' AS "actor!", '' AS "recipient!",
                   TIMESTAMPTZ 'epoch' AS "first_time!", TIMESTAMPTZ 'epoch' AS "last_time!", '{}'::integer[] AS "counts!",
                   '{}'::double precision[] AS "today!", '{}'::double precision[] AS "evidence!"
               FROM inserted
               UNION ALL
               SELECT NULL, tenant, actor, recipient, first_time, last_time, counts, today, evidence FROM locked"#,
            &self.tenants as _,
            &self.ids as _,
            &self.positions,
            &self.actors as _,
            &self.recipients as _,
            &self.times,
            &self.kinds,
            &self.group_sizes,
            &self.efforts as _,
            &self.unprompted,
            &self.dues as _,
            &self.refers_to as _,
            &self.channels as _,
            &self.topics,
            &self.goals as _,
            &self.fingerprints,
            &self.record_times,
            &ties.tenants as _,
            &ties.actors as _,
            &ties.recipients as _,
            only(&ties.tenants).or_else(|| only(&self.tenants)),
        )
        .fetch_all(connection)
        .await?;
        let mut inserted = Inserted::default();
        for row in rows {
            if let Some(id) = row.interaction_id {
                inserted.ids.push((row.tenant, id));
                continue;
            }
            let row = TieRow {
                tenant: row.tenant,
                actor: row.actor,
                recipient: row.recipient,
                first_time: row.first_time,
                last_time: row.last_time,
                counts: row.counts,
                today: row.today,
                evidence: row.evidence,
            };
            let (key, tie) = row.try_into()?;
            inserted.ties.insert(key, tie);
        }
        Ok(inserted)
    }
}

#[derive(Default)]
struct Inserted {
    ids: Vec<(String, String)>,
    ties: HashMap<TieKey, Tie>,
}

/// Inserts entries with different keys, in the order given, and tells which of them are new. Then locks these ties, as far
/// as they exist, in the order of their keys until the transaction ends, and tells what is in them.
pub(super) async fn insert<'a>(
    connection: &mut PgConnection,
    entries: &[&'a Entry],
    ties: &KeyColumns<'_>,
) -> Result<(Vec<&'a Entry>, HashMap<TieKey, Tie>), StoreError> {
    let mut firsts = Columns::default();
    for entry in entries {
        entry.interaction.recipients.first().into_iter().for_each(|recipient| firsts.push(entry, 0, recipient));
    }
    let inserted = firsts.insert(connection, ties).await?;
    let ids: HashSet<_> = inserted.ids.iter().map(|(tenant, id)| (tenant.as_str(), id.as_str())).collect();
    let is_new = |entry: &&Entry| ids.contains(&(entry.tenant.as_str(), entry.interaction.id.as_str()));
    let new: Vec<&Entry> = entries.iter().copied().filter(is_new).collect();
    let mut rest = Columns::default();
    for entry in &new {
        for (position, recipient) in entry.interaction.recipients.iter().enumerate().skip(1) {
            rest.push(entry, position, recipient);
        }
    }
    if !rest.ids.is_empty() && rest.insert(connection, &KeyColumns::default()).await?.ids.len() != rest.ids.len() {
        return Err(StoreError::Inconsistent { table: "ledger", what: "a recipient without an interaction" });
    }
    Ok((new, inserted.ties))
}

/// What the ledger holds under these keys.
pub(super) async fn recorded<'a>(
    connection: &mut PgConnection,
    keys: impl IntoIterator<Item = &'a EntryKey>,
) -> Result<HashMap<EntryKey, Recorded>, StoreError> {
    let (tenants, ids): (Vec<_>, Vec<_>) = keys.into_iter().map(|(tenant, id)| (tenant.as_str(), id.as_str())).unzip();
    let rows = sqlx::query!(
        r#"SELECT ledger.tenant, ledger.interaction_id, ledger.fingerprint, ledger.record_time,
               coalesce(tenant_revision.revision, 0) AS "revision!"
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
