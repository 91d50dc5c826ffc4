//! From what use cases answer to what goes on the wire.

use crate::{
    domain::{ConnectionStatus, InteractionId, Kind, TenantId, Timestamp},
    scoring::{Factor, Interval, Source},
    service::{ConnectionView, Reason, Recorded, Whose},
};

use super::{consistency, pb};

pub(super) fn time(time: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = time.seconds_and_nanos();
    prost_types::Timestamp { seconds, nanos }
}

pub(super) fn recorded(tenant: &TenantId, recorded: Recorded) -> pb::RecordInteractionResponse {
    pb::RecordInteractionResponse {
        interaction_id: recorded.id.map(|id| id.as_str().to_owned()).unwrap_or_default(),
        replayed: recorded.replayed,
        record_time: recorded.record_time.map(time),
        consistency_token: recorded.revision.map(|revision| consistency::token(tenant, revision)).unwrap_or_default(),
    }
}

pub(super) fn connection(view: &ConnectionView) -> pb::Connection {
    let standing = &view.standing;
    pb::Connection {
        peer: view.peer.as_str().to_owned(),
        they_would_help: Some(willingness(standing.they_would_help)),
        you_would_help: Some(willingness(standing.you_would_help)),
        mutual: Some(willingness(standing.mutual)),
        status: status(standing.status).into(),
        first_interaction_time: view.first_time.map(time),
        last_interaction_time: view.last_time.map(time),
        their_interaction_counts: counts(&view.their_counts),
        your_interaction_counts: counts(&view.your_counts),
        reasons: view.reasons.iter().map(reason).collect(),
    }
}

fn willingness(interval: Interval) -> pb::Willingness {
    pb::Willingness { probability: interval.probability, lower: interval.lower, upper: interval.upper }
}

fn status(status: ConnectionStatus) -> pb::ConnectionStatus {
    match status {
        ConnectionStatus::Unknown => pb::ConnectionStatus::Unknown,
        ConnectionStatus::OneSided => pb::ConnectionStatus::OneSided,
        ConnectionStatus::Budding => pb::ConnectionStatus::Budding,
        ConnectionStatus::Real => pb::ConnectionStatus::Real,
        ConnectionStatus::Fading => pb::ConnectionStatus::Fading,
        ConnectionStatus::Broken => pb::ConnectionStatus::Broken,
    }
}

fn counts(counts: &[i32; Kind::COUNT]) -> Vec<pb::InteractionCount> {
    let occurred = Kind::ALL.into_iter().zip(counts).filter(|(_, count)| **count > 0);
    occurred.map(|(kind, count)| pb::InteractionCount { kind: kind.number().into(), count: (*count).into() }).collect()
}

fn reason(reason: &Reason) -> pb::Reason {
    let willingness = match reason.whose {
        Whose::Theirs => pb::WillingnessDirection::TheyWouldHelp,
        Whose::Yours => pb::WillingnessDirection::YouWouldHelp,
    };
    pb::Reason {
        willingness: willingness.into(),
        factor: factor(reason.part.factor).into(),
        source: source(reason.part.source, reason.whose).into(),
        contribution: reason.part.contribution,
        interaction_ids: reason.interaction_ids.iter().map(InteractionId::as_str).map(str::to_owned).collect(),
    }
}

fn factor(factor: Factor) -> pb::ReasonFactor {
    match factor {
        Factor::Prior => pb::ReasonFactor::Prior,
        Factor::Help => pb::ReasonFactor::Help,
        Factor::Exchange => pb::ReasonFactor::Exchange,
        Factor::Goodwill => pb::ReasonFactor::Goodwill,
        Factor::Around => pb::ReasonFactor::Around,
        Factor::PromisesKept => pb::ReasonFactor::PromisesKept,
        Factor::AsksGranted => pb::ReasonFactor::AsksGranted,
        Factor::PromisesBroken => pb::ReasonFactor::PromisesBroken,
        Factor::AsksDeclined => pb::ReasonFactor::AsksDeclined,
        Factor::LeftOpen => pb::ReasonFactor::LeftOpen,
        Factor::Promotions => pb::ReasonFactor::Promotions,
        Factor::Violations => pb::ReasonFactor::Violations,
    }
}

fn source(source: Source, whose: Whose) -> pb::EvidenceSource {
    match (source, whose) {
        (Source::Nobody, _) => pb::EvidenceSource::Nobody,
        (Source::Both, _) => pb::EvidenceSource::Both,
        (Source::Own, Whose::Theirs) | (Source::Other, Whose::Yours) => pb::EvidenceSource::Peer,
        (Source::Own, Whose::Yours) | (Source::Other, Whose::Theirs) => pb::EvidenceSource::Owner,
    }
}
