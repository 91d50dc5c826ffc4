//! The gRPC server: which services it has, in which layers, within which limits.

use std::{
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use tonic::transport::{Server, server::TcpIncoming};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::util::MapResponseLayer;

use crate::service::Service;

use super::{handlers::Handlers, layers, page_token::Sealer, pb};

/// The largest message taken in, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;
/// The largest message sent, in bytes; more than the largest page needs.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// The most calls at once on one connection.
const MAX_STREAMS: u32 = 1024;
/// The most calls of one connection that may have been given up before they were looked at; one more closes it. As many as
/// may be under way: callers behind a shared connection who lose patience together do not fail those who wait.
const MAX_GIVEN_UP: usize = 1024;
/// The most metadata of one call, in bytes.
const MAX_METADATA_BYTES: u32 = 16 * 1024;
/// How often an idle connection is asked whether it is still there, and how long it may take to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// The names that the health service knows: the server as a whole, the runtime, readiness, and the services themselves.
pub const SERVICE_NAMES: [&str; 5] =
    ["", "liveness", "readiness", "rapport.v1.RelationshipService", "rapport.v1.PolicyService"];

/// Tells the health service how things stand.
#[derive(Clone)]
pub struct Health(HealthReporter);

impl Health {
    /// Whether calls can be served. Liveness is another matter, and holds as long as the runtime answers.
    pub async fn set_ready(&self, ready: bool) {
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in SERVICE_NAMES.iter().filter(|name| **name != "liveness") {
            self.0.set_service_status(name, status).await;
        }
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
    /// The gRPC side of these use cases: not ready until told so. `sealer` is set once the database is ready; `shutdown` ends
    /// long streams.
    pub async fn new(service: Service, sealer: Arc<OnceLock<Sealer>>, shutdown: CancellationToken) -> Self {
        let reporter = HealthReporter::new();
        let health_server = tonic_health::pb::health_server::HealthServer::new(
            tonic_health::server::HealthService::from_health_reporter(reporter.clone()),
        );
        reporter.set_service_status("liveness", ServingStatus::Serving).await;
        let health = Health(reporter);
        health.set_ready(false).await;
        Self { handlers: Handlers { service, sealer, shutdown }, health, health_server }
    }

    /// Serves until `stop` is done and the calls under way have ended.
    pub async fn serve(self, incoming: TcpIncoming, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        let service = pb::relationship_service_server::RelationshipServiceServer::new(self.handlers.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_ANSWER_BYTES);
        let policies = pb::policy_service_server::PolicyServiceServer::new(self.handlers)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_ANSWER_BYTES);
        let [v1, v1alpha] = [reflection(), reflection()];
        Server::builder()
            .trace_fn(layers::span)
            .layer(MapResponseLayer::new(layers::describe))
            .max_concurrent_streams(MAX_STREAMS)
            .http2_max_pending_accept_reset_streams(Some(MAX_GIVEN_UP))
            .http2_max_header_list_size(MAX_METADATA_BYTES)
            .http2_keepalive_interval(Some(KEEPALIVE.0))
            .http2_keepalive_timeout(Some(KEEPALIVE.1))
            .add_service(service)
            .add_service(policies)
            .add_service(self.health_server)
            .add_service(v1.build_v1()?)
            .add_service(v1alpha.build_v1alpha()?)
            .serve_with_incoming_shutdown(incoming, stop)
            .await?;
        Ok(())
    }
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Why the server could not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The transport failed.
    #[error("the gRPC transport failed")]
    Transport(#[from] tonic::transport::Error),
    /// The contract's descriptors are damaged.
    #[error("the contract cannot be reflected")]
    Reflection(#[from] tonic_reflection::server::Error),
}
