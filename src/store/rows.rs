//! Between rows and nouns. Rows are private to the store; one that cannot be is a typed inconsistency, not a panic.

use std::time::Duration;

use sqlx::types::time::OffsetDateTime;

use crate::{
    domain::{InteractionId, Kind, PersonId, TenantId, Timestamp, WordError},
    scoring::{Act, Commitment, DayCell, Evidence, Outcome, Rhythm, Tie},
};

use super::StoreError;

/// A point in time as PostgreSQL takes it.
pub(super) fn to_sql(time: Timestamp) -> OffsetDateTime {
    let (seconds, nanos) = time.seconds_and_nanos();
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
        + time::Duration::nanoseconds(i64::from(nanos))
}

/// A point in time as PostgreSQL gave it.
pub(super) fn from_sql(table: &'static str, time: OffsetDateTime) -> Result<Timestamp, StoreError> {
    i64::try_from(time.unix_timestamp_nanos() / 1000)
        .ok()
        .and_then(Timestamp::from_micros)
        .ok_or(StoreError::Inconsistent { table, what: "a time out of bounds" })
}

/// A word as the ledger or a table derived from it holds it.
pub(super) fn word<T>(table: &'static str, parsed: Result<T, WordError>) -> Result<T, StoreError> {
    parsed.map_err(|_| StoreError::Inconsistent { table, what: "a malformed word" })
}

/// The tenant that all of these rows are of, if it is one. A statement that is told so says it again as a condition, which
/// changes nothing but where it runs: tables that are distributed by tenant lock and change rows in one place only.
pub(super) fn only<'a>(tenants: &[&'a str]) -> Option<&'a str> {
    tenants.first().copied().filter(|first| tenants.iter().all(|tenant| tenant == first))
}

/// Which directed tie.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TieKey {
    /// In which tenant.
    pub tenant: TenantId,
    /// Who acts.
    pub actor: PersonId,
    /// Toward whom.
    pub recipient: PersonId,
}

impl TieKey {
    /// The same two persons, the other way.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self { tenant: self.tenant.clone(), actor: self.recipient.clone(), recipient: self.actor.clone() }
    }

    /// Both persons, in their tenant.
    pub(super) fn persons(&self) -> [(&TenantId, &PersonId); 2] {
        [&self.actor, &self.recipient].map(|person| (&self.tenant, person))
    }

    pub(super) fn from_row(table: &'static str, [tenant, actor, recipient]: [&str; 3]) -> Result<Self, StoreError> {
        Ok(Self {
            tenant: word(table, TenantId::recorded(tenant))?,
            actor: word(table, PersonId::recorded(actor))?,
            recipient: word(table, PersonId::recorded(recipient))?,
        })
    }
}

/// Keys as one array for each column.
#[derive(Default)]
pub(super) struct KeyColumns<'a> {
    pub tenants: Vec<&'a str>,
    pub actors: Vec<&'a str>,
    pub recipients: Vec<&'a str>,
}

impl<'a> FromIterator<&'a TieKey> for KeyColumns<'a> {
    fn from_iter<I: IntoIterator<Item = &'a TieKey>>(keys: I) -> Self {
        let mut columns = Self::default();
        for key in keys {
            columns.tenants.push(key.tenant.as_str());
            columns.actors.push(key.actor.as_str());
            columns.recipients.push(key.recipient.as_str());
        }
        columns
    }
}

/// A row of the table `tie`.
pub(super) struct TieRow {
    pub tenant: String,
    pub actor: String,
    pub recipient: String,
    pub first_time: OffsetDateTime,
    pub last_time: OffsetDateTime,
    pub counts: Vec<i32>,
    pub today: Vec<f64>,
    pub evidence: Vec<f64>,
}

impl TryFrom<TieRow> for (TieKey, Tie) {
    type Error = StoreError;

    fn try_from(row: TieRow) -> Result<Self, StoreError> {
        let wrong = |_| StoreError::Inconsistent { table: "tie", what: "an array of the wrong length" };
        let key = TieKey::from_row("tie", [&row.tenant, &row.actor, &row.recipient])?;
        let tie = Tie {
            first_time: from_sql("tie", row.first_time)?,
            last_time: from_sql("tie", row.last_time)?,
            counts: row.counts[..].try_into().map_err(wrong)?,
            today: DayCell::from_array(row.today[..].try_into().map_err(wrong)?),
            evidence: Evidence::from_array(row.evidence[..].try_into().map_err(wrong)?),
        };
        Ok((key, tie))
    }
}

/// A row of the table `rhythm`.
pub(super) struct RhythmRow {
    pub tenant: String,
    pub person: String,
    pub last_time: OffsetDateTime,
    pub days: Vec<f64>,
}

/// Whose rhythm, in which tenant.
pub(super) type RhythmKey = (TenantId, PersonId);

impl TryFrom<RhythmRow> for (RhythmKey, Rhythm) {
    type Error = StoreError;

    fn try_from(row: RhythmRow) -> Result<Self, StoreError> {
        let wrong = |_| StoreError::Inconsistent { table: "rhythm", what: "an array of the wrong length" };
        let last_time = from_sql("rhythm", row.last_time)?;
        let rhythm = Rhythm::from_array(last_time, row.days[..].try_into().map_err(wrong)?);
        Ok((
            (word("rhythm", TenantId::recorded(&row.tenant))?, word("rhythm", PersonId::recorded(&row.person))?),
            rhythm,
        ))
    }
}

/// A row of the table `ledger`, as far as scoring needs it.
pub(super) struct ActRow {
    pub tenant: String,
    pub actor: String,
    pub recipient: String,
    pub interaction_id: String,
    pub interaction_time: OffsetDateTime,
    pub kind: i16,
    pub group_size: i32,
    pub effort_micros: Option<i64>,
    pub unprompted: bool,
    pub serves_goal: bool,
    pub due_time: Option<OffsetDateTime>,
    pub refers_to: Option<String>,
}

impl TryFrom<ActRow> for (TieKey, Act) {
    type Error = StoreError;

    fn try_from(row: ActRow) -> Result<Self, StoreError> {
        let wrong = |what| StoreError::Inconsistent { table: "ledger", what };
        let effort = row.effort_micros.map(u64::try_from).transpose().map_err(|_| wrong("a negative effort"))?;
        let act = Act {
            id: word("ledger", InteractionId::recorded(&row.interaction_id))?,
            time: from_sql("ledger", row.interaction_time)?,
            kind: Kind::from_number(row.kind.into()).ok_or(wrong("an unknown kind"))?,
            effort: effort.map(Duration::from_micros),
            group_size: u32::try_from(row.group_size).map_err(|_| wrong("a negative group size"))?,
            unprompted: row.unprompted,
            serves_goal: row.serves_goal,
            due_time: row.due_time.map(|time| from_sql("ledger", time)).transpose()?,
            refers_to: row.refers_to.map(|id| word("ledger", InteractionId::recorded(&id))).transpose()?,
        };
        Ok((TieKey::from_row("ledger", [&row.tenant, &row.actor, &row.recipient])?, act))
    }
}

/// A row of the table `commitment`.
pub(super) struct CommitmentRow {
    pub tenant: String,
    pub committed: String,
    pub counterpart: String,
    pub commitment_id: String,
    pub made_time: Option<OffsetDateTime>,
    pub due_time: Option<OffsetDateTime>,
    pub group_size: i32,
    pub outcome_time: Option<OffsetDateTime>,
    pub outcome_id: Option<String>,
    pub released_time: Option<OffsetDateTime>,
}

/// Which commitment: the tie from the one committed to the one who counts on it, and the promise or the ask.
pub(super) type CommitmentRowKey = (TieKey, InteractionId);

impl TryFrom<CommitmentRow> for (CommitmentRowKey, Commitment) {
    type Error = StoreError;

    fn try_from(row: CommitmentRow) -> Result<Self, StoreError> {
        const TABLE: &str = "commitment";
        let time = |time: Option<OffsetDateTime>| time.map(|time| from_sql(TABLE, time)).transpose();
        let outcome = time(row.outcome_time)?
            .zip(row.outcome_id)
            .map(|(time, id)| Ok::<_, StoreError>(Outcome { time, id: word(TABLE, InteractionId::recorded(&id))? }));
        let wrong = |_| StoreError::Inconsistent { table: TABLE, what: "a negative group size" };
        let commitment = Commitment {
            made_time: time(row.made_time)?,
            due_time: time(row.due_time)?,
            group_size: u32::try_from(row.group_size).map_err(wrong)?,
            outcome: outcome.transpose()?,
            released_time: time(row.released_time)?,
        };
        let key = TieKey::from_row(TABLE, [&row.tenant, &row.committed, &row.counterpart])?;
        Ok(((key, word(TABLE, InteractionId::recorded(&row.commitment_id))?), commitment))
    }
}
