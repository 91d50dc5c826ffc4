//! The gRPC server: which services it has, in which layers, within which limits.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};
use tonic_reflection::server::Builder;
use tower::{
    Layer as _,
    util::{AndThen, MapResponse},
};

use crate::{access::Access, service::Service};

use super::{
    admission::{Admission, AdmissionLimits},
    audit::Audit,
    connections::{self, ConnectionLimits},
    gate::Gate,
    handlers::Handlers,
    layers,
    observe::Observe,
    pb,
    tls::Tls,
    unread,
};

/// The largest message taken in, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;
/// The largest message sent, in bytes; more than the largest page needs.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// The most connections of probes, where they have a port of their own. No caller takes a place there.
const MAX_PROBES: usize = 256;
/// The names that the health service knows: the server as a whole, the runtime, readiness, and the services themselves.
pub const SERVICE_NAMES: [&str; 5] =
    ["", "liveness", "readiness", "rapport.v1.RelationshipService", "rapport.v1.PolicyService"];

/// Tells the health service how things stand.
#[derive(Clone)]
pub struct Health(HealthReporter, CancellationToken);

impl Health {
    /// Whether calls can be served. Liveness is another matter, and holds as long as the runtime answers.
    pub async fn set_ready(&self, ready: bool) {
        let status = if ready && !self.1.is_cancelled() { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in SERVICE_NAMES.iter().filter(|name| **name != "liveness") {
            self.0.set_service_status(name, status).await;
        }
    }

    /// From now on, and whatever else is said, no more calls should come.
    pub async fn close(&self) {
        self.1.cancel();
        self.set_ready(false).await;
    }
}

/// The gRPC side of a server.
pub struct Rpc {
    handlers: Handlers,
    /// How things stand.
    pub health: Health,
    health_server: tonic_health::pb::health_server::HealthServer<tonic_health::server::HealthService>,
}

impl Rpc {
    /// The gRPC side of these use cases, for those whom `access` lets in: not ready until told so. Calls are served
    /// while `gate` is open.
    pub async fn new(service: Service, access: Access, admission: AdmissionLimits, gate: Arc<Gate>) -> Self {
        let reporter = HealthReporter::new();
        let health_server = tonic_health::pb::health_server::HealthServer::new(
            tonic_health::server::HealthService::from_health_reporter(reporter.clone()),
        );
        reporter.set_service_status("liveness", ServingStatus::Serving).await;
        let health = Health(reporter, CancellationToken::new());
        health.set_ready(false).await;
        let (audit, admission) = (Audit::default(), Admission::new(admission));
        let handlers = Handlers { service, access, audit, admission, gate };
        Self { handlers, health, health_server }
    }

    /// Serves on whatever connects until `stop` is cancelled and the calls under way have ended.
    pub async fn serve(
        self,
        listener: TcpListener,
        tls: Option<Arc<Tls>>,
        limits: ConnectionLimits,
        stop: CancellationToken,
    ) -> Result<(), ServeError> {
        let observe = Observe(self.handlers.service.metrics().clone());
        let service = pb::relationship_service_server::RelationshipServiceServer::new(self.handlers.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_ANSWER_BYTES);
        let policies = pb::policy_service_server::PolicyServiceServer::new(self.handlers)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_ANSWER_BYTES);
        let [v1, v1alpha] = [reflection(), reflection()];
        let routes = Routes::new(service)
            .add_service(policies)
            .add_service(self.health_server)
            .add_service(v1.build_v1()?)
            .add_service(v1alpha.build_v1alpha()?)
            .prepare();
        let service = observe.layer(AndThen::new(MapResponse::new(routes, layers::describe), unread::hold));
        connections::serve(listener, tls, limits, service, stop).await;
        Ok(())
    }

    /// Tells how things stand, without TLS and to anybody, for probes that can neither speak it nor prove who they are. Tools
    /// that find their way by reflection find the health service, and nothing else.
    pub fn serve_health(
        &self,
        listener: TcpListener,
        limits: ConnectionLimits,
        stop: CancellationToken,
    ) -> Result<impl Future<Output = ()> + use<>, ServeError> {
        let [v1, v1alpha] = [(); 2].map(|()| of_health(Builder::configure()));
        let routes = Routes::new(self.health_server.clone())
            .add_service(v1.build_v1()?)
            .add_service(v1alpha.build_v1alpha()?)
            .prepare();
        let limits = ConnectionLimits { most: MAX_PROBES, ..limits };
        Ok(connections::serve(listener, None, limits, routes, stop))
    }
}

/// Describes every service.
fn reflection() -> Builder<'static> {
    of_health(Builder::configure()).register_encoded_file_descriptor_set(pb::DESCRIPTORS)
}

/// Describes the health service.
fn of_health(builder: Builder<'static>) -> Builder<'static> {
    builder.register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Why the server could not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The contract's descriptors are damaged.
    #[error("the contract cannot be reflected")]
    Reflection(#[from] tonic_reflection::server::Error),
}
