//! Recording interactions.

use uuid::Uuid;

use crate::{
    domain::{Draft, Faults, Interaction, InteractionId, TenantId, Timestamp},
    store::{Answer, Entry, Outcome, WriteError},
};

use super::{Service, ServiceError};

/// What became of an interaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its id; `None` when it was only validated and had none.
    pub id: Option<InteractionId>,
    /// Whether it had been recorded before.
    pub replayed: bool,
    /// When it was first recorded; `None` when it was only validated and is new.
    pub record_time: Option<Timestamp>,
    /// A revision of its tenant that shows it; `None` when it was only validated.
    pub revision: Option<i64>,
}

/// An interaction that waits for its commit.
#[derive(Debug)]
pub struct Accepted {
    id: InteractionId,
    answer: Answer,
}

impl Accepted {
    /// Waits for the commit.
    pub async fn recorded(self) -> Result<Recorded, ServiceError> {
        let outcome = self.answer.await.unwrap_or(Err(WriteError::Stopped))?;
        recorded(self.id, outcome)
    }
}

fn recorded(id: InteractionId, outcome: Outcome) -> Result<Recorded, ServiceError> {
    match outcome {
        Outcome::Recorded { replayed, record_time, revision } => {
            Ok(Recorded { id: Some(id), replayed, record_time: Some(record_time), revision: Some(revision) })
        }
        Outcome::Conflict => Err(ServiceError::Conflict),
    }
}

impl Service {
    /// Records an interaction, and answers after its commit. `faults` are those that are known already.
    pub async fn record(&self, tenant: TenantId, draft: &Draft, faults: Faults) -> Result<Recorded, ServiceError> {
        let entry = self.entry(tenant, draft, faults)?;
        let id = entry.interaction.id.clone();
        let answer = self.writer.offer(entry)?;
        Accepted { id, answer }.recorded().await
    }

    /// Takes in an interaction of a stream, as soon as there is room.
    pub async fn accept(&self, tenant: TenantId, draft: &Draft, faults: Faults) -> Result<Accepted, ServiceError> {
        let entry = self.entry(tenant, draft, faults)?;
        let id = entry.interaction.id.clone();
        Ok(Accepted { id, answer: self.writer.push(entry).await? })
    }

    /// What recording would answer, without recording.
    pub async fn validate(&self, tenant: TenantId, draft: &Draft, faults: Faults) -> Result<Recorded, ServiceError> {
        let entry = self.entry(tenant, draft, faults)?;
        let fresh = Recorded { id: None, replayed: false, record_time: None, revision: None };
        if draft.interaction_id.is_none() {
            return Ok(fresh);
        }
        let id = entry.interaction.id.clone();
        match self.detached(move |store| async move { Ok(store.check(&entry).await?) }).await? {
            None => Ok(Recorded { id: Some(id), ..fresh }),
            Some(outcome) => Ok(Recorded { revision: None, ..recorded(id, outcome)? }),
        }
    }

    fn entry(&self, tenant: TenantId, draft: &Draft, faults: Faults) -> Result<Entry, ServiceError> {
        let made_id = || InteractionId::parse(&Uuid::now_v7().to_string());
        let interaction = Interaction::parse(draft, self.latest_interaction_time(), made_id, faults);
        let interaction = interaction.map_err(ServiceError::Invalid)?;
        Ok(Entry { tenant, interaction, record_time: self.clock.stamp() })
    }
}
