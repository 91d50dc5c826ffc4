//! How commands reach a running server: over the same public API as everybody else.

use std::{path::Path, time::Duration};

use clap::Args;
use tonic::{Code, Status};

use crate::{
    causes,
    client::{CallError, Client, Patience, SetupError, Trust},
    config::{ClientConfig, Flags, SERVER, TENANT, process_environment},
    domain::{TenantId, Timestamp},
};

use super::{
    Failure,
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
    url: String,
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
        let url = config.server;
        let tenant = config.tenant.map(|tenant| TenantId::parse_metadata(&tenant)).transpose();
        let tenant = tenant.map_err(|error| format!("--tenant {error}"))?;
        let authorities = config.server_authorities;
        let authorities = authorities.map(|path| read("--server-authorities", &path)).transpose()?;
        let trust = Trust { authorities, server_name: config.server_name, identity: None };
        let client = Client::over_tls(&url, trust).map_err(|error| match error {
            SetupError::Address(_) => format!("--server must be an address such as http://127.0.0.1:50051, not {url}"),
            error => error.to_string(),
        })?;
        let client = match config.key_file {
            Some(path) => client.with_token(String::from_utf8_lossy(&read("--key-file", &path)?).trim())?,
            None => client,
        };
        // Of a caller with one tenant, the server knows it.
        let client = match tenant {
            Some(tenant) => client.as_tenant(&tenant)?,
            None => client,
        };
        Ok(Server { client: client.with_patience(PATIENCE), url })
    }
}

fn read(flag: &str, path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{flag}: {}: {error}", path.display()))
}

impl Server {
    /// What a failed call means to the user.
    pub(super) fn failure(&self, error: &CallError) -> Failure {
        if error.is_of_transport() {
            return self.not_there(error.status());
        }
        match error.status().code() {
            Code::DeadlineExceeded => format!("the server at {} did not answer in time", self.url).into(),
            _ => format!("the server refused: {error}").into(),
        }
    }

    /// That there is no server, or none that can be talked to.
    pub(super) fn not_there(&self, status: &Status) -> Failure {
        let said = match causes(status).last().map(ToString::to_string) {
            Some(tls) if tls.contains("certificate") => format!(": {tls}"),
            _ => "; `rapport serve` starts one".to_owned(),
        };
        format!("no Rapport server answers at {}{said}", self.url).into()
    }
}

/// A point in time in RFC 3339, or in seconds since 1970.
pub(super) fn parse_time(text: &str) -> Result<Timestamp, String> {
    let unreadable = || "a time is written as 2018-09-01T12:00:00Z or in seconds since 1970".to_owned();
    if let Some((seconds, micros)) = seconds_and_micros(text) {
        return Timestamp::from_seconds(seconds, micros * 1000).ok_or_else(unreadable);
    }
    let parsed = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339);
    let micros = parsed.ok().and_then(|time| i64::try_from(time.unix_timestamp_nanos().div_euclid(1000)).ok());
    micros.and_then(Timestamp::from_micros).ok_or_else(unreadable)
}

fn seconds_and_micros(text: &str) -> Option<(i64, i32)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (all_digits(seconds) && all_digits(fraction)).then_some(())?;
    Some((seconds.parse().ok()?, digits.parse().ok()?))
}

/// A point in time on the wire.
pub(super) fn to_wire(time: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = time.seconds_and_nanos();
    prost_types::Timestamp { seconds, nanos }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times_in_both_ways_of_writing() {
        let time = |text| parse_time(text).map(Timestamp::micros);
        assert_eq!(time("1520874886"), Ok(1_520_874_886_000_000));
        assert_eq!(time("1520874886.5"), Ok(1_520_874_886_500_000));
        assert_eq!(time("2018-03-12T17:14:46Z"), Ok(1_520_874_886_000_000));
        assert_eq!(time("2018-03-12T18:14:46+01:00"), Ok(1_520_874_886_000_000));
        assert!(
            time("yesterday").is_err()
                && time("-5").is_err()
                && time("-0.5").is_err()
                && time("1.").is_err()
                && time("").is_err()
        );
    }
}
