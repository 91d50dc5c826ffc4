//! What surrounds every call, outermost first: a span that names the method, then the details that every error carries.

use http::{Request, Response};
use tonic::{Status, body::Body};

use crate::telemetry::names;

use super::status;

/// The span of one call. Only known methods are named, so that callers cannot write into the log.
pub(super) fn span<B>(request: &Request<B>) -> tracing::Span {
    let path = request.uri().path();
    let method = match path.strip_prefix("/rapport.v1.").and_then(|path| path.split_once('/')) {
        Some(
            (
                "RelationshipService",
                method @ ("RecordInteraction" | "RecordInteractions" | "RankConnections" | "GetConnection"),
            )
            | ("PolicyService", method @ ("PublishPolicy" | "ListPolicies" | "GetPolicy" | "RollbackPolicy")),
        ) => method,
        _ => names::OTHER,
    };
    tracing::info_span!(names::CALL_SPAN, { names::RPC_SYSTEM_NAME } = "grpc", { names::RPC_METHOD } = method)
}

/// Gives errors that were made before a method was called the details that all errors carry.
pub(super) fn describe(response: Response<Body>) -> Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(made) if made.code() != tonic::Code::Ok && made.details().is_empty() => {
            status::of_transport(&made).into_http()
        }
        _ => response,
    }
}
