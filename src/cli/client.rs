//! How commands reach a running server: over the same public API as everybody else.

use std::{path::Path, time::Duration};

use clap::Args;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tonic::Status;

use crate::{
    client::{CallError, Client, Patience, SetupError, Trust},
    config::{
        CLIENT_CERTIFICATE, CLIENT_KEY, ClientConfig, Flags, KEY_FILE, SERVER, SERVER_AUTHORITIES, Setting, TENANT,
        process_environment,
    },
    domain::{TenantId, Timestamp},
    files::{MEBIBYTE, bounded},
};

use super::{
    Failure, reach,
    settings::{OfClient, SettingArguments},
};

/// Whoever sits before a terminal is told soon that no server is there, and waits long for one that works.
const PATIENCE: Patience = Patience { limit: Duration::from_mins(1), attempts: 3 };

#[derive(Args, Clone, Debug)]
pub(super) struct ServerArguments {
    #[command(flatten)]
    settings: SettingArguments<OfClient>,
}

/// A server as one tenant sees it. Cloning is cheap.
#[derive(Clone)]
pub(super) struct Server {
    pub client: Client,
    pub url: String,
    /// The tenant that calls name.
    pub tenant: Option<TenantId>,
    /// A key or a token is shown.
    pub has_key: bool,
    /// A client certificate is shown.
    pub has_certificate: bool,
}

impl ServerArguments {
    pub(super) fn new(server: String, tenant: &str) -> Self {
        let flags = Flags::default().with(&SERVER, server).with(&TENANT, tenant);
        Self { settings: flags.into() }
    }

    /// The tenant that is named, else another than usual.
    pub(super) fn tenant_or(&self, otherwise: &str) -> Result<String, Failure> {
        let config = ClientConfig::read(self.settings.flags.clone(), &process_environment)?;
        Ok(config.tenant.unwrap_or_else(|| otherwise.to_owned()))
    }

    pub(super) fn of_tenant(self, tenant: &str) -> Self {
        Self { settings: self.settings.flags.with(&TENANT, tenant).into() }
    }

    /// The server; it is reached for at the first call.
    pub(super) fn server(self) -> Result<Server, Failure> {
        let config = ClientConfig::read(self.settings.flags, &process_environment)?;
        let url = config.server.clone();
        let tenant = config.tenant.as_deref().map(TenantId::parse_metadata).transpose();
        let tenant = tenant.map_err(|error| format!("--tenant {error}"))?;
        let client = Client::over_tls(&url, trust(&config)?).map_err(|error| match error {
            SetupError::Address(_) => format!("--server must be an address such as http://127.0.0.1:50051, not {url}"),
            error => error.to_string(),
        })?;
        let client = match &config.key_file {
            Some(path) => client.with_token(&key(path)?)?,
            None => client,
        };
        // Of a caller with one tenant, the server knows it.
        let client = match &tenant {
            Some(tenant) => client.as_tenant(tenant)?,
            None => client,
        };
        let (has_key, has_certificate) = (config.key_file.is_some(), config.identity.is_some());
        Ok(Server { client: client.with_patience(PATIENCE), url, tenant, has_key, has_certificate })
    }
}

/// What is believed and shown over TLS, from files that hold what they should.
fn trust(config: &ClientConfig) -> Result<Trust, String> {
    if config.identity.is_some() && !config.server.starts_with("https:") {
        return Err(format!(
            "--client-certificate is shown over TLS only: --server must begin with https://, not {}",
            config.server
        ));
    }
    let authorities = config.server_authorities.as_deref().map(|path| certificates(&SERVER_AUTHORITIES, path));
    let identity = config.identity.as_ref().map(|(certificate, key)| {
        let text = read(&CLIENT_KEY, key)?;
        if PrivateKeyDer::from_pem_slice(&text).is_err() {
            return Err(format!("{}: {} holds no private key in PEM", CLIENT_KEY.flag(), key.display()));
        }
        Ok((certificates(&CLIENT_CERTIFICATE, certificate)?, text))
    });
    let server_name = config.server_name.clone();
    Ok(Trust { authorities: authorities.transpose()?, server_name, identity: identity.transpose()? })
}

/// The text of a file with certificates.
fn certificates(setting: &Setting, path: &Path) -> Result<Vec<u8>, String> {
    let text = read(setting, path)?;
    match CertificateDer::pem_slice_iter(&text).next() {
        Some(Ok(_)) => Ok(text),
        _ => Err(format!("{}: {} holds no certificate in PEM", setting.flag(), path.display())),
    }
}

/// The key or token in a file.
fn key(path: &Path) -> Result<String, String> {
    let text = read(&KEY_FILE, path)?;
    let key = String::from_utf8_lossy(&text).trim().to_owned();
    if key.is_empty() {
        return Err(format!("{}: {} is empty", KEY_FILE.flag(), path.display()));
    }
    Ok(key)
}

fn read(setting: &Setting, path: &Path) -> Result<Vec<u8>, String> {
    bounded(path, MEBIBYTE).map_err(|error| format!("{}: {}: {error}", setting.flag(), path.display()))
}

impl Server {
    /// The answer to a call, or what its failure means to the user.
    pub(super) async fn told<T>(&self, answer: Result<T, CallError>) -> Result<T, Failure> {
        match answer {
            Ok(answer) => Ok(answer),
            Err(error) if error.is_of_transport() => Err(self.not_there(error.status()).await),
            Err(error) => Err(reach::refused(self, &error).into()),
        }
    }

    /// That there is no server, or none that can be talked to.
    pub(super) async fn not_there(&self, status: &Status) -> Failure {
        reach::unreached(self, status).await.into()
    }

    /// The tenant that answers are of, as sentences name it.
    pub(super) fn tenant(&self) -> String {
        match &self.tenant {
            Some(tenant) => format!("tenant {}", tenant.as_str()),
            None if self.has_key || self.has_certificate => "the only tenant of this caller".to_owned(),
            // Nobody has to prove who calls: the server takes this one.
            None => format!("tenant {}", TenantId::unnamed().as_str()),
        }
    }
}

/// A point in time on the wire.
pub(super) fn to_wire(time: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = time.seconds_and_nanos();
    prost_types::Timestamp { seconds, nanos }
}
