//! The only place that names status codes. A code is chosen by who has to act next; what a message says is for callers,
//! and what caused it goes to the log.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prost::Message as _;
use tokio::time::Instant;
use tonic::{Code, Status, metadata::MetadataMap};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::{
    access::{Refusal, Right},
    causes,
    domain::Faults,
    service::{ServiceError, TenantLimit},
    telemetry::Ended,
};

use super::{MAX_MESSAGE_BYTES, pb::ErrorReason};

/// The domain of every error reason.
const DOMAIN: &str = "rapport";
/// How the names of all reasons begin in the contract, and nowhere else.
const PREFIX: &str = "ERROR_REASON_";
/// How many faults a message spells out.
const MAX_SENTENCES: usize = 4;
/// When to try again what failed for lack of resources or of a database.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// When to try again what a server that is shutting down did not take: another one may answer at once.
const ELSEWHERE_DELAY: Duration = Duration::from_millis(100);
/// How often a line tells of calls that fail in the same way, at most.
const LOG_PACE: Duration = Duration::from_secs(1);
/// The trailer by which gRPC's own retries are told when to try again, in milliseconds.
const PUSHBACK_KEY: &str = "grpc-retry-pushback-ms";

/// What a failed use case looks like on the wire.
pub(super) fn of_service(error: &ServiceError) -> Status {
    let (code, reason) = match error {
        ServiceError::Invalid(faults) => return of_faults(faults),
        ServiceError::Conflict => (Code::AlreadyExists, ErrorReason::InteractionConflict),
        ServiceError::PolicyNotFound | ServiceError::NoPolicyBefore => (Code::NotFound, ErrorReason::PolicyNotFound),
        ServiceError::PolicyConflict => (Code::AlreadyExists, ErrorReason::PolicyConflict),
        ServiceError::TooManyPolicies(_) => (Code::ResourceExhausted, ErrorReason::TooManyPolicies),
        ServiceError::Overloaded(_) => (Code::ResourceExhausted, ErrorReason::Overloaded),
        ServiceError::TenantLimited(_) => (Code::ResourceExhausted, ErrorReason::TenantLimited),
        ServiceError::HistoryTooLarge(_) => (Code::ResourceExhausted, ErrorReason::HistoryTooLarge),
        ServiceError::Unavailable(_) => (Code::Unavailable, ErrorReason::DatabaseUnavailable),
        ServiceError::ShuttingDown => (Code::Unavailable, ErrorReason::ShuttingDown),
        ServiceError::StreamIdle => (Code::Aborted, ErrorReason::StreamIdle),
        ServiceError::StreamUnread => (Code::Aborted, ErrorReason::StreamUnread),
        ServiceError::Internal(_) => (Code::Internal, ErrorReason::Internal),
    };
    log(error);
    let delay = match error {
        ServiceError::Overloaded(_) | ServiceError::TenantLimited(_) | ServiceError::Unavailable(_) => {
            Some(RETRY_DELAY)
        }
        ServiceError::ShuttingDown => Some(ELSEWHERE_DELAY),
        _ => None,
    };
    with_advice(code, error.to_string(), details_with(reason, limit(error)), delay)
}

/// The limit that a call has met, as an entry of `google.rpc.ErrorInfo`; `ErrorReason` says what each key means.
fn limit(error: &ServiceError) -> Option<(&'static str, String)> {
    match error {
        ServiceError::TooManyPolicies(most) => Some(("limit", most.to_string())),
        ServiceError::HistoryTooLarge(most) => Some(("limit", most.to_string())),
        ServiceError::TenantLimited(TenantLimit::Calls(most)) => Some(("limit_calls", most.to_string())),
        ServiceError::TenantLimited(TenantLimit::Streams(most)) => Some(("limit_streams", most.to_string())),
        ServiceError::TenantLimited(TenantLimit::AnswerBytes(most)) => Some(("limit_answer_bytes", most.to_string())),
        ServiceError::TenantLimited(TenantLimit::CallsPerSecond(most)) => {
            Some(("limit_calls_per_second", most.to_string()))
        }
        _ => None,
    }
}

/// A status that tells when to try again, if that can help: in its details, for all who read them, and in the trailer that
/// the retries built into gRPC clients go by.
fn with_advice(code: Code, message: String, mut details: ErrorDetails, delay: Option<Duration>) -> Status {
    let Some(delay) = delay else { return Status::with_error_details(code, message, details) };
    details.set_retry_info(Some(delay));
    let mut metadata = MetadataMap::new();
    if let Ok(millis) = delay.as_millis().to_string().parse() {
        metadata.insert(PUSHBACK_KEY, millis);
    }
    Status::with_error_details_and_metadata(code, message, details, metadata)
}

fn log(error: &ServiceError) {
    let cause = causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ");
    let pace = match error {
        ServiceError::Internal(_) => &INTERNAL,
        ServiceError::Unavailable(_) => &UNAVAILABLE,
        ServiceError::Overloaded(_) => &OVERLOADED,
        ServiceError::TenantLimited(_) => &TENANT_LIMITED,
        _ => return,
    };
    match (error, pace.turn()) {
        (ServiceError::Internal(_), Some(held_back)) => tracing::error!(cause, held_back, "a call failed: {error}"),
        (_, Some(held_back)) => tracing::warn!(cause, held_back, "a call failed: {error}"),
        (_, None) => {}
    }
}

/// Of failures that come together, one tells: metrics count them all.
static INTERNAL: Pace = Pace::new();
static UNAVAILABLE: Pace = Pace::new();
static OVERLOADED: Pace = Pace::new();
static TENANT_LIMITED: Pace = Pace::new();

/// Lets a line into the log every second.
struct Pace(Mutex<(Option<Instant>, u64)>);

impl Pace {
    const fn new() -> Self {
        Self(Mutex::new((None, 0)))
    }

    /// How many were held back since the last one, when it is time for the next.
    fn turn(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, held_back) = &mut *state;
        if last.is_some_and(|last| last.elapsed() < LOG_PACE) {
            *held_back += 1;
            return None;
        }
        *last = Some(Instant::now());
        Some(mem::take(held_back))
    }
}

/// What a faulty request looks like on the wire: one error that names every faulty field.
pub(super) fn of_faults(faults: &Faults) -> Status {
    let violations: Vec<FieldViolation> =
        faults.list().iter().map(|fault| FieldViolation::new(&fault.field, &fault.description)).collect();
    let mut details = details(ErrorReason::FieldsInvalid);
    details.set_bad_request(violations);
    Status::with_error_details(Code::InvalidArgument, sentence(faults), details)
}

/// The first faults as a sentence. All of them are in the details; errors travel as headers, which clients limit to 8 KiB.
fn sentence(faults: &Faults) -> String {
    let (first, rest) = faults.list().split_at(faults.list().len().min(MAX_SENTENCES));
    let mut sentences: Vec<String> =
        first.iter().map(|fault| format!("{} {}", fault.field, fault.description)).collect();
    if !rest.is_empty() {
        sentences.push(format!("and {} more", rest.len()));
    }
    sentences.join("; ")
}

fn details(reason: ErrorReason) -> ErrorDetails {
    details_with(reason, None)
}

fn details_with(reason: ErrorReason, entry: Option<(&str, String)>) -> ErrorDetails {
    let metadata: HashMap<_, _> = entry.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    ErrorDetails::with_error_info(name_of(reason), DOMAIN, metadata)
}

/// The refusal of a caller who proves nothing, or lacks this right. A right belongs to the method, so its name tells nothing of
/// the tenant.
pub(super) fn of_refusal(refusal: &Refusal, right: Right) -> Status {
    let (code, details) = match refusal {
        Refusal::Unknown => (Code::Unauthenticated, details(ErrorReason::Unauthenticated)),
        Refusal::Denied(_) => {
            let needed = ("right", right.name().to_owned());
            (Code::PermissionDenied, details_with(ErrorReason::PermissionDenied, Some(needed)))
        }
    };
    Status::with_error_details(code, refusal.to_string(), details)
}

/// The caller's deadline has passed.
pub(super) fn of_deadline() -> Status {
    let message = "the deadline of the call has passed";
    Status::with_error_details(Code::DeadlineExceeded, message, details(ErrorReason::DeadlineExceeded))
}

/// A status as it stands within a message.
pub(super) fn to_message(status: &Status) -> tonic_types::Status {
    tonic_types::Status::decode(status.details()).unwrap_or_else(|_| tonic_types::Status {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}

/// A status that the transport made before any use case was called: given the details that every error carries, and
/// words for callers.
pub(super) fn of_transport(status: &Status) -> Status {
    let (code, message) = match status.code() {
        Code::Unimplemented => (Code::Unimplemented, "there is no such method or compression".to_owned()),
        Code::OutOfRange => (Code::ResourceExhausted, format!("a message is larger than {MAX_MESSAGE_BYTES} bytes")),
        Code::Internal => (Code::InvalidArgument, "the bytes received are no message of this method".to_owned()),
        code => (code, status.message().to_owned()),
    };
    let limit = (status.code() == Code::OutOfRange).then(|| ("limit_bytes", MAX_MESSAGE_BYTES.to_string()));
    Status::with_error_details(code, message, details_with(ErrorReason::CallNotUnderstood, limit))
}

/// How a call ended with that status.
pub(super) fn ended(status: &Status) -> Ended {
    Ended { reason: reason(status), ..of_code(status.code()) }
}

/// How a call ended that nobody waited out to its end.
pub(super) fn given_up() -> Ended {
    of_code(Code::Cancelled)
}

fn of_code(code: Code) -> Ended {
    Ended { code: name(code), is_error: is_of_server(code), reason: None }
}

/// Why a call failed, if its status tells a reason that there is.
fn reason(status: &Status) -> Option<&'static str> {
    let told = status.get_details_error_info()?.reason;
    Some(name_of(ErrorReason::from_str_name(&format!("{PREFIX}{told}"))?))
}

fn name_of(reason: ErrorReason) -> &'static str {
    reason.as_str_name().trim_start_matches(PREFIX)
}

/// The name of a code, as the specification of gRPC writes it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Whether a code says that the server failed, as OpenTelemetry's conventions count it; the others are for the caller.
fn is_of_server(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn of_failures_that_come_together_one_tells() {
        let pace = Pace::new();
        assert_eq!([pace.turn(), pace.turn(), pace.turn()], [Some(0), None, None]);
        tokio::time::advance(LOG_PACE).await;
        assert_eq!([pace.turn(), pace.turn()], [Some(2), None]);
    }
}
