//! Traces across the edges of calls: the caller's span above ours, and the spans of many calls beside the one of the batch
//! that recorded what they brought.

use std::collections::HashSet;

use http::HeaderMap;
use opentelemetry::{
    Context, KeyValue,
    propagation::{Extractor, TextMapPropagator as _},
    trace::{Link, SpanContext, SpanKind, TraceContextExt as _, TraceId},
};
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{Sampler, SamplingResult, ShouldSample},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::Sampling;

/// Where W3C has callers put the span above.
const PARENT: &str = "traceparent";

/// The header that names the span above, and no other: what callers write into `tracestate` is not repeated.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        if key == PARENT { self.0.get(key)?.to_str().ok() } else { None }
    }

    fn keys(&self) -> Vec<&str> {
        vec![PARENT]
    }
}

/// Puts a span of its own kind, that has just begun, below the caller's span, when the headers of the call name one, and
/// gives it a name for export.
pub fn adopt(span: &Span, headers: &HeaderMap, name: &'static str) {
    if headers.contains_key(PARENT) {
        // Without anybody who reads traces there is nothing to put it below.
        let _ = span.set_parent(TraceContextPropagator::new().extract(&Headers(headers)));
    }
    span.context().span().update_name(name);
}

/// The trace and the span that something is done in, in hexadecimal; `None` outside of traces.
pub(super) fn ids(span: &Span) -> Option<(String, String)> {
    let context = span.context();
    let span = context.span();
    let here = span.span_context();
    here.is_valid().then(|| (here.trace_id().to_string(), here.span_id().to_string()))
}

/// The span of whoever wants something, kept without holding that span open.
#[derive(Clone, Debug)]
pub struct Caller(SpanContext);

impl Caller {
    /// The one whose span this is done in.
    pub fn current() -> Self {
        Self(Span::current().context().span().span_context().clone())
    }
}

/// Links a span that has just begun to those of all on whose behalf it works, each once.
pub fn link<'a>(span: &Span, callers: impl Iterator<Item = &'a Caller>) {
    let mut linked = HashSet::new();
    for Caller(caller) in callers {
        if caller.is_valid() && linked.insert(caller.span_id()) {
            span.add_link(caller.clone());
        }
    }
}

/// Decides which spans are exported. One that works for others is, when one of theirs is: else their traces would link to
/// nothing.
#[derive(Clone, Debug)]
pub(super) struct Linked(Sampler);

impl Linked {
    pub(super) fn new(Sampling { by_parent, ratio }: Sampling) -> Self {
        let by_ratio = Sampler::TraceIdRatioBased(ratio);
        Self(if by_parent { Sampler::ParentBased(Box::new(by_ratio)) } else { by_ratio })
    }
}

impl ShouldSample for Linked {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let sampler = match links {
            [] => &self.0,
            links if links.iter().any(|link| link.span_context.is_sampled()) => &Sampler::AlwaysOn,
            _ => &Sampler::AlwaysOff,
        };
        sampler.should_sample(parent, trace_id, name, kind, attributes, links)
    }
}
