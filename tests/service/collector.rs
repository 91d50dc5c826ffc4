//! A collector as operators run one, within the tests: it takes in spans and metrics by OTLP over gRPC, and shows them.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::{KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::Span,
};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, transport::Server, transport::server::TcpIncoming};

/// Everything it was sent.
#[derive(Clone, Debug, Default)]
pub struct Collector {
    traces: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    metrics: Arc<Mutex<Vec<ExportMetricsServiceRequest>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.traces.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.metrics.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

impl Collector {
    /// Listens on a port of its own.
    pub async fn start() -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (collector, address) = (Self::default(), listener.local_addr().unwrap());
        let router = Server::builder()
            .add_service(TraceServiceServer::new(collector.clone()))
            .add_service(MetricsServiceServer::new(collector.clone()));
        tokio::spawn(router.serve_with_incoming(TcpIncoming::from(listener)));
        (collector, address)
    }

    /// The spans.
    pub fn spans(&self) -> Vec<Span> {
        let traces = self.traces.lock().unwrap();
        let of_scopes = traces.iter().flat_map(|sent| &sent.resource_spans).flat_map(|resource| &resource.scope_spans);
        of_scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// The names of the metrics.
    pub fn metric_names(&self) -> Vec<String> {
        let metrics = self.metrics.lock().unwrap();
        let of_resources = metrics.iter().flat_map(|sent| &sent.resource_metrics);
        let of_scopes = of_resources.flat_map(|resource| &resource.scope_metrics);
        let mut names: Vec<_> =
            of_scopes.flat_map(|scope| scope.metrics.iter().map(|metric| metric.name.clone())).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// What is said of the server, with its metrics and with its spans.
    pub fn resources(&self) -> Vec<Resource> {
        let (metrics, traces) = (self.metrics.lock().unwrap(), self.traces.lock().unwrap());
        let with_metrics = metrics.iter().flat_map(|sent| &sent.resource_metrics).map(|sent| sent.resource.clone());
        let with_spans = traces.iter().flat_map(|sent| &sent.resource_spans).map(|sent| sent.resource.clone());
        with_metrics.chain(with_spans).flatten().collect()
    }

    /// All of it, as text to look for words in.
    pub fn everything(&self) -> String {
        format!("{:?} {:?}", self.traces.lock().unwrap(), self.metrics.lock().unwrap())
    }
}

/// An attribute, when it is there and a text.
pub fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

/// An attribute, when it is there and a number.
pub fn number(attributes: &[KeyValue], key: &str) -> Option<i64> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::IntValue(number) => Some(*number),
        _ => None,
    }
}
