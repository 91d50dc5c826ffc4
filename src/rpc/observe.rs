//! What is seen of every call, from outside all other layers: a span below that of the caller, and how it ended after how
//! long. A call ends with its answer, and a stream with its last message, or when nobody waits for it any more.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use http::{HeaderMap, Request, Response};
use hyper::body::{Bytes, Frame, SizeHint};
use tonic::{Status, body::Body};
use tower::{Layer, Service};
use tracing::{Instrument as _, Span, field::Empty};

use crate::telemetry::{Ended, Metrics, names, trace};

use super::status;

/// The methods that are named; callers cannot write others into logs, spans and metrics.
const METHODS: [&str; 10] = [
    "rapport.v1.RelationshipService/RecordInteraction",
    "rapport.v1.RelationshipService/RecordInteractions",
    "rapport.v1.RelationshipService/RankConnections",
    "rapport.v1.RelationshipService/GetConnection",
    "rapport.v1.PolicyService/PublishPolicy",
    "rapport.v1.PolicyService/ListPolicies",
    "rapport.v1.PolicyService/GetPolicy",
    "rapport.v1.PolicyService/RollbackPolicy",
    CHECK,
    "grpc.health.v1.Health/Watch",
];
/// What is asked every few seconds; nobody wants a trace of that.
const CHECK: &str = "grpc.health.v1.Health/Check";

/// Observes every call.
#[derive(Clone)]
pub(super) struct Observe(pub Metrics);

impl<S> Layer<S> for Observe {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed { inner, metrics: self.0.clone() }
    }
}

/// A service whose calls are observed.
#[derive(Clone)]
pub(super) struct Observed<S> {
    inner: S,
    metrics: Metrics,
}

impl<S> Service<Request<Body>> for Observed<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut call = Call::begin(&request, self.metrics.clone());
        let answering = call.span.in_scope(|| self.inner.call(request)).instrument(call.span.clone());
        Box::pin(async move {
            let response = answering.await?;
            Ok(match ended_in(response.headers()) {
                Some(ended) => {
                    call.end(ended);
                    response
                }
                None => response.map(|body| Body::new(Answer { body, call })),
            })
        })
    }
}

fn span(method: &'static str) -> Span {
    tracing::info_span!(
        names::CALL_SPAN,
        otel.kind = "server",
        otel.status_code = Empty,
        { names::RPC_SYSTEM_NAME } = "grpc",
        { names::RPC_METHOD } = method,
        { names::RPC_STATUS_CODE } = Empty,
        { names::ERROR_TYPE } = Empty,
        { names::ERROR_REASON } = Empty,
    )
}

/// One call, until it has ended.
struct Call {
    span: Span,
    method: &'static str,
    begun: Instant,
    metrics: Metrics,
    has_ended: bool,
}

impl Call {
    fn begin(request: &Request<Body>, metrics: Metrics) -> Self {
        let path = request.uri().path().strip_prefix('/');
        let known = METHODS.into_iter().find(|method| path == Some(*method));
        let method = known.unwrap_or(names::OTHER);
        let span = if method == CHECK { Span::none() } else { span(method) };
        trace::adopt(&span, request.headers(), known.unwrap_or("grpc"));
        Self { span, method, begun: Instant::now(), metrics, has_ended: false }
    }

    fn end(&mut self, ended: Ended) {
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        self.span.record(names::RPC_STATUS_CODE, ended.code);
        if ended.is_error {
            self.span.record(names::ERROR_TYPE, ended.code).record("otel.status_code", "ERROR");
        }
        if let Some(reason) = ended.reason {
            self.span.record(names::ERROR_REASON, reason);
        }
        self.metrics.call(self.method, ended, self.begun.elapsed());
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(status::given_up());
    }
}

/// How a call ended, when these headers or trailers say so.
fn ended_in(headers: &HeaderMap) -> Option<Ended> {
    Status::from_header_map(headers).map(|status| status::ended(&status))
}

/// What a call is answered with, whose trailers say how it ended.
struct Answer {
    body: Body,
    call: Call,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let ended = match &frame {
            Some(Ok(frame)) => frame.trailers_ref().and_then(ended_in),
            Some(Err(status)) => Some(status::ended(status)),
            None => None,
        };
        if let Some(ended) = ended {
            self.call.end(ended);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::rpc::pb;

    #[test]
    fn every_method_of_the_contract_is_named() {
        let contract = prost_types::FileDescriptorSet::decode(pb::DESCRIPTORS).unwrap();
        let mut methods = Vec::new();
        for file in contract.file.iter().filter(|file| file.package() == "rapport.v1") {
            for service in &file.service {
                let name = |method: &prost_types::MethodDescriptorProto| {
                    format!("{}.{}/{}", file.package(), service.name(), method.name())
                };
                methods.extend(service.method.iter().map(name));
            }
        }
        assert_eq!(methods.len(), 8);
        for method in methods {
            assert!(METHODS.contains(&method.as_str()), "{method}");
        }
    }
}
