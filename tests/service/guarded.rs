//! A server that an access file guards, and its callers.

use std::{net::SocketAddr, path::PathBuf};

use rapport::{
    access::Key,
    app::App,
    domain::Kind,
    rpc::{TENANT_KEY, pb},
    service::Clock,
};
use serde_json::{Value, json};
use tonic::{
    Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use crate::harness::{act, config, database, day};

/// Shows a key or a token, and names a tenant.
#[derive(Clone)]
pub struct Shown {
    pub bearer: Option<String>,
    pub tenant: Option<&'static str>,
}

impl Interceptor for Shown {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(bearer) = &self.bearer {
            request.metadata_mut().insert("authorization", format!("Bearer {bearer}").parse().unwrap());
        }
        if let Some(tenant) = self.tenant {
            request.metadata_mut().insert(TENANT_KEY, tenant.parse().unwrap());
        }
        Ok(request)
    }
}

pub type Client = pb::relationship_service_client::RelationshipServiceClient<InterceptedService<Channel, Shown>>;

pub fn client(channel: Channel, bearer: impl Into<Option<String>>, tenant: Option<&'static str>) -> Client {
    Client::new(InterceptedService::new(channel, Shown { bearer: bearer.into(), tenant }))
}

pub async fn rank(client: &mut Client) -> Result<pb::RankConnectionsResponse, Status> {
    let request = pb::RankConnectionsRequest { person: "zed".to_owned(), ..Default::default() };
    client.rank_connections(request).await.map(tonic::Response::into_inner)
}

pub async fn record(client: &mut Client) -> Result<(), Status> {
    let interaction = Some(act(Kind::Help, "rosa", "zed", day(0)));
    let request = pb::RecordInteractionRequest { interaction, validate_only: false };
    client.record_interaction(request).await.map(drop)
}

/// A server that lets in whom a file says, and the file.
pub struct Guarded {
    pub app: App,
    pub file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Guarded {
    pub async fn start(document: &Value, with: impl FnOnce(&std::path::Path, &mut rapport::config::Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("access.json");
        std::fs::write(&file, document.to_string()).unwrap();
        let mut config = config(database(true).await);
        config.access_file = Some(file.clone());
        config.health_listen = Some(([127, 0, 0, 1], 0).into());
        with(folder.path(), &mut config);
        let app = App::start(config, Clock::system()).await.unwrap();
        crate::harness::ready(app.health_address().unwrap()).await;
        Self { app, file, _folder: folder }
    }

    pub fn address(&self) -> SocketAddr {
        self.app.address()
    }
}

pub fn principal(name: &str, keys: &[&Key], tenants: &[&str], rights: &[&str]) -> Value {
    let keys: Vec<_> = keys.iter().map(|key| key.entry()).collect();
    json!({"name": name, "keys": keys, "grants": [{"tenants": tenants, "rights": rights}]})
}
