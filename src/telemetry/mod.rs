//! What the program tells its operators: logs on standard error, as lines for people or as JSON for machines; metrics, to a
//! collector and to Prometheus; traces, to a collector. Nothing in them is personal or secret.

mod log;
mod metrics;
pub mod names;
mod otlp;
pub mod scrape;
pub mod trace;

use std::{io::IsTerminal as _, sync::mpsc, thread, time::Duration};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{SdkTracerProvider, Tracer};
use tracing::{Level, Metadata, Subscriber, subscriber::Interest};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{LevelFilter, dynamic_filter_fn},
    fmt,
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

pub use log::LogFormat;
pub use metrics::{Ended, Metrics, Waiting};
pub use otlp::{Export, Sampling};

/// How long the last spans may take to be sent when the program ends.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Why telemetry could not begin.
#[derive(Debug, thiserror::Error)]
#[error("telemetry cannot be set up: {0}")]
pub struct TelemetryError(Box<dyn std::error::Error + Send + Sync>);

impl TelemetryError {
    fn new(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(source.into())
    }
}

/// Logs and traces of the process, from its start until this is dropped; what is still to be sent is sent then, within a
/// bounded time.
#[derive(Debug)]
pub struct Telemetry(Option<SdkTracerProvider>);

impl Telemetry {
    /// Sends logs to standard error from here on, and spans to where `export` says. `filter` says which lines, such as `info`
    /// or `rapport=debug,sqlx=warn`. Must be called within a runtime, which carries the exports; a second start changes
    /// nothing: the first one stands.
    pub fn start(filter: EnvFilter, format: LogFormat, export: &Export) -> Result<Self, TelemetryError> {
        // Lines in JSON name the trace also when it is the caller who collects it.
        let is_traced = export.traces.is_some() || format == LogFormat::Json;
        let provider = is_traced.then(|| otlp::tracer_provider(export)).transpose()?;
        let registry = tracing_subscriber::registry();
        let _ = match &provider {
            None => registry.with(filter).with(lines(format)).try_init(),
            Some(provider) => {
                let spans = spans(provider.tracer("rapport"));
                registry.with(spans).with(lines(format).with_filter(filter)).try_init()
            }
        };
        Ok(Self(provider))
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        let Some(provider) = self.0.take() else { return };
        let (done, ended) = mpsc::channel();
        // The provider's own limit does not hold for a collector that is silent; this one does.
        thread::spawn(move || done.send(provider.shutdown_with_timeout(FLUSH_LIMIT)));
        let _ = ended.recv_timeout(FLUSH_LIMIT);
    }
}

/// Log lines on standard error.
fn lines<S: Subscriber + for<'a> LookupSpan<'a>>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync> {
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Pretty => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().event_format(log::Traced(fmt::format().json())).boxed(),
    }
}

/// Spans for export, without where in the source they are and on which thread: that costs, and tells operators little.
fn spans(tracer: Tracer) -> impl Layer<Registry> + Send + Sync {
    let layer = OpenTelemetryLayer::new(tracer);
    let layer = layer.with_location(false).with_threads(false).with_target(false).with_level(false);
    let layer = layer.with_tracked_inactivity(false).with_context_activation(false);
    // Asked for every span anew. Of what both filters let through for good, tracing-subscriber would not ask them again, and
    // take the answer to somebody's latest `enabled!` for theirs: spans would be lost, and log lines.
    let filter = dynamic_filter_fn(|metadata, _| is_exported(metadata));
    let filter = filter
        .with_callsite_filter(|metadata| if is_exported(metadata) { Interest::sometimes() } else { Interest::never() });
    layer.with_filter(filter.with_max_level_hint(LevelFilter::DEBUG))
}

/// Rapport's own spans, and what is logged within them. Those of libraries would be many, and not ours to vouch for.
fn is_exported(metadata: &Metadata<'_>) -> bool {
    let least = if metadata.is_span() { Level::DEBUG } else { Level::INFO };
    metadata.target().starts_with("rapport") && *metadata.level() <= least
}
