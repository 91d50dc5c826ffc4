//! The nouns of Rapport: ids, interactions, times, faults. Nothing here waits, reads a clock, or knows of the wire, the
//! database or a score.

mod character;
mod connection;
mod fault;
mod interaction;
mod kind;
mod policy;
mod time;
mod word;

pub use character::{Misplaced, cleaned};
pub use connection::{ConnectionStatus, RankOrder};
pub use fault::{Fault, Faults};
pub use interaction::{Draft, Interaction, MAX_AUDIENCE, MAX_EFFORT_DAYS, MAX_RECIPIENTS, MAX_TOPICS};
pub use kind::{Kind, KindGroup};
pub use policy::PolicyVersion;
pub use time::{Day, Timestamp};
pub use word::{Channel, Goal, InteractionId, PersonId, TenantId, Topic, WordError};
