//! What surrounds every call, outermost first: what `observe` sees of it, then the details that every error carries.

use http::Response;
use tonic::{Status, body::Body};

use super::status;

/// Gives errors that were made before a method was called the details that all errors carry.
pub(super) fn describe(response: Response<Body>) -> Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(made) if made.code() != tonic::Code::Ok && made.details().is_empty() => {
            status::of_transport(&made).into_http()
        }
        _ => response,
    }
}
