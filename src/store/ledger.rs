//! The ledger: what is in it of an interaction. Nothing changes a row of it. Interactions get there in `append`; what is read for
//! scoring is in `history`.

use std::collections::HashMap;

use sqlx::{PgConnection, types::time::OffsetDateTime};

use crate::domain::{Channel, Goal, Interaction, InteractionId, PersonId, TenantId, Timestamp, Topic};

use super::{
    StoreError,
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
pub(super) struct Row<'a> {
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
    pub(super) fn new(entry: &'a Entry, position: usize, recipient: &'a PersonId) -> Self {
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

/// Rows, as one array for each column.
#[derive(Default)]
pub(super) struct Columns<'a> {
    pub tenants: Vec<&'a str>,
    pub ids: Vec<&'a str>,
    pub positions: Vec<i16>,
    pub actors: Vec<&'a str>,
    pub recipients: Vec<&'a str>,
    pub times: Vec<OffsetDateTime>,
    pub kinds: Vec<i16>,
    pub group_sizes: Vec<i32>,
    pub efforts: Vec<Option<i64>>,
    pub unprompted: Vec<bool>,
    pub dues: Vec<Option<OffsetDateTime>>,
    pub refers_to: Vec<Option<&'a str>>,
    pub channels: Vec<Option<&'a str>>,
    pub topics: Vec<String>,
    pub goals: Vec<Option<&'a str>>,
    pub fingerprints: Vec<Vec<u8>>,
    pub record_times: Vec<OffsetDateTime>,
}

impl<'a> Columns<'a> {
    pub(super) fn push(&mut self, row: Row<'a>) {
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
                word("ledger", TenantId::recorded(&row.tenant))?,
                word("ledger", InteractionId::recorded(&row.interaction_id))?,
            );
            let record_time = from_sql("ledger", row.record_time)?;
            Ok((key, Recorded { fingerprint: row.fingerprint, record_time, revision: row.revision }))
        })
        .collect()
}
