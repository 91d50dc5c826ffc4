//! The ledger: inserting interactions once, and reading acts back. It is append-only; nothing here changes a row.

use std::collections::{BTreeMap, HashMap};

use sqlx::{PgConnection, types::time::OffsetDateTime};

use crate::{
    domain::{Channel, Day, Goal, Interaction, InteractionId, Kind, PersonId, TenantId, Timestamp, Topic},
    scoring::{Act, ActiveDay, Policy},
};

use super::{
    StoreError,
    rows::{ActRow, KeyColumns, RhythmKey, TieKey, from_sql, to_sql, word},
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
            (key, act_of(&self.interaction))
        })
    }
}

fn act_of(interaction: &Interaction) -> Act {
    Act {
        id: interaction.id.clone(),
        time: interaction.time,
        kind: interaction.kind,
        effort: interaction.effort,
        group_size: interaction.group_size,
        unprompted: interaction.unprompted,
        serves_goal: interaction.goal.is_some(),
        due_time: interaction.due_time,
        refers_to: interaction.refers_to.clone(),
    }
}

/// What the ledger holds under an id.
pub(super) struct Recorded {
    pub fingerprint: Vec<u8>,
    pub record_time: Timestamp,
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

    async fn insert(&self, connection: &mut PgConnection) -> Result<Vec<(String, String)>, StoreError> {
        let inserted = sqlx::query!(
            r#"INSERT INTO ledger (tenant, interaction_id, position, actor, recipient, interaction_time, kind, group_size,
                   effort_micros, unprompted, due_time, refers_to, channel, topics, goal, fingerprint, record_time)
               SELECT tenant, interaction_id, position, actor, recipient, interaction_time, kind, group_size,
                   effort_micros, unprompted, due_time, refers_to, channel, string_to_array(topics, E'\x1f'), goal,
                   fingerprint, record_time
               FROM UNNEST($1::text[], $2::text[], $3::smallint[], $4::text[], $5::text[], $6::timestamptz[],
                   $7::smallint[], $8::integer[], $9::bigint[], $10::boolean[], $11::timestamptz[], $12::text[],
                   $13::text[], $14::text[], $15::text[], $16::bytea[], $17::timestamptz[])
                   AS entry (tenant, interaction_id, position, actor, recipient, interaction_time, kind, group_size,
                       effort_micros, unprompted, due_time, refers_to, channel, topics, goal, fingerprint, record_time)
               ON CONFLICT (tenant, interaction_id, position) DO NOTHING
               RETURNING tenant, interaction_id"#,
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
        )
        .fetch_all(connection)
        .await?;
        Ok(inserted.into_iter().map(|row| (row.tenant, row.interaction_id)).collect())
    }
}

/// Inserts entries with different keys, in the order given, and tells which of them are new.
pub(super) async fn insert<'a>(
    connection: &mut PgConnection,
    entries: &[&'a Entry],
) -> Result<Vec<&'a Entry>, StoreError> {
    let mut firsts = Columns::default();
    for entry in entries {
        entry.interaction.recipients.first().into_iter().for_each(|recipient| firsts.push(entry, 0, recipient));
    }
    let inserted: std::collections::HashSet<_> = firsts.insert(connection).await?.into_iter().collect();
    let is_new = |entry: &&Entry| {
        inserted.contains(&(entry.tenant.as_str().to_owned(), entry.interaction.id.as_str().to_owned()))
    };
    let new: Vec<&Entry> = entries.iter().copied().filter(is_new).collect();
    let mut rest = Columns::default();
    for entry in &new {
        for (position, recipient) in entry.interaction.recipients.iter().enumerate().skip(1) {
            rest.push(entry, position, recipient);
        }
    }
    if !rest.ids.is_empty() && rest.insert(connection).await?.len() != rest.ids.len() {
        return Err(StoreError::Inconsistent { table: "ledger", what: "a recipient without an interaction" });
    }
    Ok(new)
}

/// What the ledger holds under these keys.
pub(super) async fn recorded<'a>(
    connection: &mut PgConnection,
    keys: impl IntoIterator<Item = &'a EntryKey>,
) -> Result<HashMap<EntryKey, Recorded>, StoreError> {
    let (tenants, ids): (Vec<_>, Vec<_>) = keys.into_iter().map(|(tenant, id)| (tenant.as_str(), id.as_str())).unzip();
    let rows = sqlx::query!(
        "SELECT ledger.tenant, ledger.interaction_id, fingerprint, record_time
         FROM UNNEST($1::text[], $2::text[]) AS key (tenant, interaction_id)
         JOIN ledger ON ledger.tenant = key.tenant AND ledger.interaction_id = key.interaction_id AND position = 0",
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
            Ok((key, Recorded { fingerprint: row.fingerprint, record_time }))
        })
        .collect()
}

/// Acts by the tie they belong to.
pub(super) type ActsByTie = HashMap<TieKey, Vec<Act>>;

fn by_tie(rows: Vec<ActRow>) -> Result<ActsByTie, StoreError> {
    let mut acts = ActsByTie::new();
    for row in rows {
        let (key, act) = row.try_into()?;
        acts.entry(key).or_default().push(act);
    }
    Ok(acts)
}

/// All acts of these ties up to a time; an error when there are more than `most`.
pub(super) async fn acts_until(
    connection: &mut PgConnection,
    ties: &KeyColumns<'_>,
    until: Timestamp,
    most: usize,
) -> Result<ActsByTie, StoreError> {
    let rows = sqlx::query_as!(
        ActRow,
        r#"SELECT ledger.tenant, ledger.actor, ledger.recipient, interaction_id, interaction_time, kind, group_size,
               effort_micros, unprompted, goal IS NOT NULL AS "serves_goal!", due_time, refers_to
           FROM UNNEST($1::text[], $2::text[], $3::text[]) AS key (tenant, actor, recipient)
           JOIN ledger USING (tenant, actor, recipient)
           WHERE interaction_time <= $4
           LIMIT $5"#,
        &ties.tenants as _,
        &ties.actors as _,
        &ties.recipients as _,
        to_sql(until),
        i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1),
    )
    .fetch_all(connection)
    .await?;
    if rows.len() > most { Err(StoreError::HistoryTooLarge(most)) } else { by_tie(rows) }
}

/// The latest `most` acts of each kind of these ties up to a time.
pub(super) async fn latest_acts(
    connection: &mut PgConnection,
    ties: &KeyColumns<'_>,
    until: Timestamp,
    most: i64,
) -> Result<ActsByTie, StoreError> {
    let rows = sqlx::query_as!(
        ActRow,
        r#"SELECT tenant, actor, recipient, interaction_id, interaction_time, kind, group_size, effort_micros, unprompted,
               goal IS NOT NULL AS "serves_goal!", due_time, refers_to
           FROM (
               SELECT ledger.*, row_number() OVER (PARTITION BY tenant, actor, recipient, kind
                   ORDER BY interaction_time DESC, interaction_id) AS place
               FROM UNNEST($1::text[], $2::text[], $3::text[]) AS key (tenant, actor, recipient)
               JOIN ledger USING (tenant, actor, recipient)
               WHERE interaction_time <= $4
           ) AS placed
           WHERE place <= $5"#,
        &ties.tenants as _,
        &ties.actors as _,
        &ties.recipients as _,
        to_sql(until),
        most,
    )
    .fetch_all(connection)
    .await?;
    by_tie(rows)
}

/// Which interactions, as one array for each column: ids are unique only within their tenant.
pub(super) struct IdColumns<'a> {
    tenants: Vec<&'a str>,
    ids: Vec<&'a str>,
}

impl<'a> FromIterator<&'a Entry> for IdColumns<'a> {
    fn from_iter<I: IntoIterator<Item = &'a Entry>>(entries: I) -> Self {
        let key = |entry: &'a Entry| (entry.tenant.as_str(), entry.interaction.id.as_str());
        let (tenants, ids) = entries.into_iter().map(key).unzip();
        Self { tenants, ids }
    }
}

/// The acts of these ties on these days, without those of the interactions in `except`.
pub(super) async fn acts_on_days(
    connection: &mut PgConnection,
    days: &[(TieKey, Day)],
    except: &IdColumns<'_>,
) -> Result<ActsByTie, StoreError> {
    if days.is_empty() {
        return Ok(ActsByTie::new());
    }
    let ties: KeyColumns<'_> = days.iter().map(|(key, _)| key).collect();
    let (starts, ends): (Vec<_>, Vec<_>) =
        days.iter().map(|(_, day)| day.bounds()).map(|(start, end)| (to_sql(start), to_sql(end))).unzip();
    let rows = sqlx::query_as!(
        ActRow,
        r#"SELECT ledger.tenant, ledger.actor, ledger.recipient, interaction_id, interaction_time, kind, group_size,
               effort_micros, unprompted, goal IS NOT NULL AS "serves_goal!", due_time, refers_to
           FROM UNNEST($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[])
               AS late (tenant, actor, recipient, day_start, day_end)
           JOIN ledger ON ledger.tenant = late.tenant AND ledger.actor = late.actor AND ledger.recipient = late.recipient
               AND interaction_time >= day_start AND interaction_time < day_end
           WHERE (ledger.tenant, interaction_id) NOT IN (SELECT * FROM UNNEST($6::text[], $7::text[]))"#,
        &ties.tenants as _,
        &ties.actors as _,
        &ties.recipients as _,
        &starts,
        &ends,
        &except.tenants as _,
        &except.ids as _,
    )
    .fetch_all(connection)
    .await?;
    by_tie(rows)
}

/// What these persons showed on these days, without the interactions in `except`.
pub(super) async fn activity_on_days(
    connection: &mut PgConnection,
    days: &[(RhythmKey, Day)],
    except: &IdColumns<'_>,
    policy: &Policy,
) -> Result<HashMap<(RhythmKey, Day), ActiveDay>, StoreError> {
    if days.is_empty() {
        return Ok(HashMap::new());
    }
    let tenants: Vec<_> = days.iter().map(|((tenant, _), _)| tenant.as_str()).collect();
    let persons: Vec<_> = days.iter().map(|((_, person), _)| person.as_str()).collect();
    let (starts, ends): (Vec<_>, Vec<_>) =
        days.iter().map(|(_, day)| day.bounds()).map(|(start, end)| (to_sql(start), to_sql(end))).unzip();
    let rows = sqlx::query!(
        r#"SELECT late.place AS "place!", array_agg(DISTINCT kind) AS "kinds!"
           FROM UNNEST($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[])
               WITH ORDINALITY AS late (tenant, actor, day_start, day_end, place)
           JOIN ledger ON ledger.tenant = late.tenant AND ledger.actor = late.actor
               AND interaction_time >= day_start AND interaction_time < day_end
           WHERE (ledger.tenant, interaction_id) NOT IN (SELECT * FROM UNNEST($5::text[], $6::text[]))
           GROUP BY late.place"#,
        &tenants as _,
        &persons as _,
        &starts,
        &ends,
        &except.tenants as _,
        &except.ids as _,
    )
    .fetch_all(connection)
    .await?;
    let mut activity = HashMap::new();
    for row in rows {
        let place = usize::try_from(row.place).ok().and_then(|place| days.get(place.checked_sub(1)?));
        let mut day = ActiveDay::default();
        row.kinds.iter().filter_map(|kind| Kind::from_number((*kind).into())).for_each(|kind| day.gather(kind, policy));
        activity.extend(place.map(|key| (key.clone(), day)));
    }
    Ok(activity)
}

/// On which days these persons did what, up to a time: one point for each day and kind.
pub(super) async fn activity_until<'a>(
    connection: &mut PgConnection,
    persons: impl IntoIterator<Item = &'a RhythmKey>,
    until: Timestamp,
    most: usize,
) -> Result<BTreeMap<RhythmKey, Vec<(Timestamp, Kind)>>, StoreError> {
    let (tenants, persons): (Vec<_>, Vec<_>) =
        persons.into_iter().map(|(tenant, person)| (tenant.as_str(), person.as_str())).unzip();
    let rows = sqlx::query!(
        r#"SELECT ledger.tenant, ledger.actor, kind, max(interaction_time) AS "time!"
           FROM UNNEST($1::text[], $2::text[]) AS key (tenant, actor)
           JOIN ledger USING (tenant, actor)
           WHERE interaction_time <= $3
           GROUP BY ledger.tenant, ledger.actor, kind, date_trunc('day', interaction_time, 'UTC')
           LIMIT $4"#,
        &tenants as _,
        &persons as _,
        to_sql(until),
        i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1),
    )
    .fetch_all(connection)
    .await?;
    if rows.len() > most {
        return Err(StoreError::HistoryTooLarge(most));
    }
    let mut activity: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for row in rows {
        let key = (word("ledger", TenantId::parse(&row.tenant))?, word("ledger", PersonId::parse(&row.actor))?);
        let kind = Kind::from_number(row.kind.into())
            .ok_or(StoreError::Inconsistent { table: "ledger", what: "an unknown kind" })?;
        activity.entry(key).or_default().push((from_sql("ledger", row.time)?, kind));
    }
    Ok(activity)
}

/// Which of a person's peers have an interaction with them, either way up to a time, on one of these channels and about
/// one of these topics; an empty list asks for nothing.
pub(super) async fn peers_with(
    connection: &mut PgConnection,
    tenant: &TenantId,
    person: &PersonId,
    until: Timestamp,
    channels: &[&str],
    topics: &[&str],
) -> Result<Vec<PersonId>, StoreError> {
    let rows = sqlx::query_scalar!(
        r#"SELECT CASE WHEN tie.actor = $2 THEN tie.recipient ELSE tie.actor END AS "peer!"
           FROM (
               SELECT actor, recipient FROM tie WHERE tenant = $1 AND actor = $2
               UNION ALL
               SELECT actor, recipient FROM tie WHERE tenant = $1 AND recipient = $2
           ) AS tie
           WHERE EXISTS (
               SELECT FROM ledger
               WHERE ledger.tenant = $1 AND ledger.actor = tie.actor AND ledger.recipient = tie.recipient
                   AND interaction_time <= $3
                   AND (cardinality($4::text[]) = 0 OR channel = ANY ($4))
                   AND (cardinality($5::text[]) = 0 OR topics && $5)
           )"#,
        tenant.as_str(),
        person.as_str(),
        to_sql(until),
        &channels as _,
        &topics as _,
    )
    .fetch_all(connection)
    .await?;
    rows.iter().map(|peer| word("tie", PersonId::parse(peer))).collect()
}
