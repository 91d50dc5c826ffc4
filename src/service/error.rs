//! Why a use case failed: a public sentence for the caller, and a private source for the log.

use crate::{
    domain::Faults,
    store::{StoreError, WriteError},
};

/// Any source of an error.
type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a use case failed. What `Display` says may be shown to anybody; sources may not.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The request is faulty.
    #[error("the request has {} faulty field(s)", .0.list().len())]
    Invalid(Faults),
    /// The id of an interaction stands for other content.
    #[error("this interaction_id was recorded before with other content")]
    Conflict,
    /// There is no such version of the tenant's scoring policy.
    #[error("there is no such version of the scoring policy")]
    PolicyNotFound,
    /// The version in use is the first.
    #[error("no other version of the scoring policy was in use before")]
    NoPolicyBefore,
    /// The version of a scoring policy stands for another document.
    #[error("this version of the scoring policy was published before with another document")]
    PolicyConflict,
    /// The tenant has as many versions of its scoring policy as it may have: this many.
    #[error("there are {0} versions of the scoring policy already")]
    TooManyPolicies(i64),
    /// More work is waiting than can be taken on.
    #[error("too much work is waiting; try again later")]
    Overloaded(#[source] Source),
    /// The tenant does more than it may.
    #[error("the tenant makes more calls than it may; try again later")]
    TenantLimited(#[source] TenantLimit),
    /// There is more to read than is read for one answer: more than this many ties, commitments or acts.
    #[error("there is more history than can be read for one answer")]
    HistoryTooLarge(usize),
    /// The database does not answer.
    #[error("the database is unavailable; try again later")]
    Unavailable(#[source] Source),
    /// The server is shutting down, or spreads its callers.
    #[error("the server lets go of this connection; call again")]
    ShuttingDown,
    /// A stream was not used.
    #[error("nothing was sent on this stream for too long; open another one when there is something to send")]
    StreamIdle,
    /// The acknowledgements of a stream were not read.
    #[error(
        "nothing was read from this stream for too long; open another one, and send again what is not acknowledged"
    )]
    StreamUnread,
    /// A defect.
    #[error("an internal error occurred")]
    Internal(#[source] Source),
}

/// The limit that a tenant has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TenantLimit {
    /// The most calls of a tenant at once.
    #[error("{0} calls of the tenant are under way, as many as may be")]
    Calls(usize),
    /// The most streams of a tenant at once.
    #[error("{0} streams of the tenant are open, as many as may be")]
    Streams(usize),
    /// The most bytes of answers of a tenant that are not read yet.
    #[error("more than {0} bytes of the tenant's answers are not read yet")]
    AnswerBytes(usize),
    /// The most calls, and items of streams, of a tenant in a second.
    #[error("the tenant makes more than {0} calls a second")]
    CallsPerSecond(u32),
}

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Busy | StoreError::Lagging => Self::Overloaded(error.into()),
            StoreError::Unavailable(_)
            | StoreError::Silent
            | StoreError::Standby
            | StoreError::Unprepared(_)
            | StoreError::Unsettled
            | StoreError::Indirect
            | StoreError::Raced
            | StoreError::Unwanted
            | StoreError::Behind
            | StoreError::NoCopy
            | StoreError::Schema { .. }
            | StoreError::Superseded { .. }
            | StoreError::Underived => Self::Unavailable(error.into()),
            StoreError::TooLarge(most) => Self::HistoryTooLarge(*most),
            StoreError::Address { .. }
            | StoreError::NoRole(_)
            | StoreError::Inconsistent { .. }
            | StoreError::NoRandomness
            | StoreError::Refused(_)
            | StoreError::Migration(_) => Self::Internal(error.into()),
        }
    }
}

impl From<WriteError> for ServiceError {
    fn from(error: WriteError) -> Self {
        match &error {
            WriteError::QueueFull | WriteError::Late => Self::Overloaded(error.into()),
            WriteError::Stopped => Self::ShuttingDown,
            WriteError::Store(source) if matches!(**source, StoreError::Busy) => Self::Overloaded(error.into()),
            WriteError::Store(source) if source.is_passing() => Self::Unavailable(error.into()),
            WriteError::Store(_) => Self::Internal(error.into()),
        }
    }
}
