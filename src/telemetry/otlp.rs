//! Where spans and metrics are sent: to a collector, by OTLP over gRPC. The exporter itself reads what is between it and
//! the collector from the standard variables: headers, timeout, compression, intervals.

use opentelemetry::KeyValue;
use opentelemetry_otlp::{
    MetricExporter, SpanExporter, WithExportConfig as _, WithTonicConfig as _, tonic_types::transport::ClientTlsConfig,
};
use opentelemetry_sdk::{
    Resource,
    metrics::PeriodicReader,
    trace::{BatchSpanProcessor, SdkTracerProvider},
};

use super::{TelemetryError, trace::Linked};

/// The name of the service unless the environment gives another.
const SERVICE_NAME: &str = "rapport";
/// The most links of a span: as many as a batch has entries.
const MAX_LINKS: u32 = 512;

/// Where telemetry is sent, and as whose.
#[derive(Clone, Debug, Default)]
pub struct Export {
    /// The address of the collector of spans; none are sent without one.
    pub traces: Option<String>,
    /// The address of the collector of metrics; none are sent without one.
    pub metrics: Option<String>,
    /// Which traces are sent.
    pub sampling: Sampling,
    /// What is said of this server, `service.name` among it or not.
    pub attributes: Vec<(String, String)>,
}

/// Which traces are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Whether what the caller has decided for its trace comes first.
    pub by_parent: bool,
    /// The share of all others, from 0 to 1.
    pub ratio: f64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { by_parent: true, ratio: 1.0 }
    }
}

/// What is said of this server wherever telemetry is read.
pub(super) fn resource(export: &Export) -> Resource {
    let own = [
        ("service.name", SERVICE_NAME.to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", instance()),
    ];
    let own = own.into_iter().map(|(name, value)| KeyValue::new(name, value));
    let given = export.attributes.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
    Resource::builder_empty().with_attributes(own).with_attributes(given).build()
}

/// Tells the servers apart that send to one collector: the machine or pod, and the process on it.
fn instance() -> String {
    let node = rustix::system::uname();
    format!("{}:{}", node.nodename().to_string_lossy(), std::process::id())
}

/// What sends metrics, at intervals.
pub(super) fn metric_reader(endpoint: &str) -> Result<PeriodicReader<MetricExporter>, TelemetryError> {
    let mut exporter = MetricExporter::builder().with_tonic().with_endpoint(endpoint);
    if endpoint.starts_with("https:") {
        exporter = exporter.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
    }
    Ok(PeriodicReader::builder(exporter.build().map_err(TelemetryError::new)?).build())
}

/// What makes spans, and sends them when there is where to.
pub(super) fn tracer_provider(export: &Export) -> Result<SdkTracerProvider, TelemetryError> {
    let mut builder = SdkTracerProvider::builder().with_resource(resource(export)).with_max_links_per_span(MAX_LINKS);
    if let Some(endpoint) = &export.traces {
        let mut exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint);
        if endpoint.starts_with("https:") {
            exporter = exporter.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
        }
        let exporter = exporter.build().map_err(TelemetryError::new)?;
        builder = builder.with_span_processor(BatchSpanProcessor::builder(exporter).build());
    }
    let sampling = if export.traces.is_some() { export.sampling } else { Sampling { by_parent: false, ratio: 0.0 } };
    Ok(builder.with_sampler(Linked::new(sampling)).build())
}
