//! What is made of a server's settings, and of the files that they name.

use crate::{
    access::Access,
    config::{Config, ConfigError},
    domain::Timestamp,
    rpc::{Tls, TlsFiles},
};

use super::checks::{Check, START, check};

/// The settings are such that a server would start.
pub(super) fn settings(config: &Result<Config, ConfigError>) -> Vec<Check> {
    match config {
        Ok(_) => vec![check("settings", "as they should be", true, "")],
        Err(ConfigError(faults)) => faults.iter().map(|fault| check("settings", fault, false, START)).collect(),
    }
}

/// The certificate can be shown, for a while still.
pub(super) fn tls(files: TlsFiles, now: Timestamp) -> Check {
    let certificate = match Tls::load(files) {
        Ok(tls) => tls.certificate(),
        Err(error) => return check("TLS", error.to_string(), false, START),
    };
    let days = certificate.left(now).as_secs() / 86_400;
    let has_begun = certificate.begins <= now.seconds_and_nanos().0;
    let (names, advice) = match certificate.names.join(", ") {
        names if names.is_empty() => ("nobody".to_owned(), "give it the names by which callers reach the server"),
        names if !has_begun => (names, "it does not hold yet: wait, or look at the clock"),
        names if certificate.ends_soon(now) => (names, "renew it; a server shows the new one without a restart"),
        names => (names, ""),
    };
    check("TLS", format!("a certificate for {names} that holds {days} days more"), advice.is_empty(), advice)
}

/// The access file can be followed, and the issuer of tokens has keys.
pub(super) async fn access(file: &std::path::Path) -> Vec<Check> {
    let access = match Access::guarded(file) {
        Ok(access) => access,
        Err(error) => return vec![check("access file", error.to_string(), false, START)],
    };
    let Some(examined) = access.examine().await else { return Vec::new() };
    let principals = examined.principals;
    let advice = "name those who may call: nobody may";
    let mut checks = vec![check("access file", format!("{principals} principals"), principals > 0, advice)];
    checks.extend(examined.issuer_keys.map(|keys| {
        let advice = "see that the issuer of tokens can be reached from here, and that its keys are JSON Web Keys";
        check("token issuer", format!("{keys} keys"), keys > 0, advice)
    }));
    checks
}
