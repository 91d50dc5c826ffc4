//! Why a call came to nothing, as a sentence that says what to do. Of a server that does not answer, the address is looked at: a
//! port may speak TLS where none was expected, or the other way round.

use std::{
    error::Error,
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::Uri;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        self, AlertDescription, CertificateError, ClientConfig, RootCertStore, client::ResolvesClientCert,
        pki_types::ServerName,
    },
};
use tonic::{Code, Status};

use crate::{causes, client::CallError, rpc::pb::ErrorReason};

use super::client::Server;

/// How long an address may take to show what it speaks.
const LOOK_LIMIT: Duration = Duration::from_secs(3);

/// Why a server refused a call.
pub(super) fn refused(server: &Server, error: &CallError) -> String {
    let (status, url) = (error.status(), &server.url);
    match (status.code(), error.reason()) {
        (Code::DeadlineExceeded, _) => format!("the server at {url} did not answer in time"),
        // Rapport gives every refusal a reason.
        (Code::Unimplemented | Code::Unknown, None) => {
            format!("what answers at {url} is no Rapport server, or one of another version ({})", said(status))
        }
        (_, Some(ErrorReason::Unauthenticated)) => format!("the server refused: {error}; {}", who_calls(server)),
        (_, Some(ErrorReason::PermissionDenied)) if server.tenant.is_none() => {
            format!("the server refused: {error}; --tenant names the one that is meant")
        }
        (_, Some(ErrorReason::PermissionDenied)) => {
            format!("the server refused: {error}; the grants in the server's access file say who may")
        }
        (_, Some(ErrorReason::PolicyNotFound)) => {
            format!("the server refused: {error}; `rapport policy list` lists the versions there are")
        }
        _ => format!("the server refused: {}", said(status)),
    }
}

/// What a status says, which may be nothing.
fn said(status: &Status) -> String {
    if status.message().is_empty() { status.code().to_string() } else { status.message().to_owned() }
}

fn who_calls(server: &Server) -> &'static str {
    match (server.has_key, server.has_certificate) {
        (true, _) => "the key or token in --key-file is not, or no longer, in force there",
        (_, true) => "the certificate in --client-certificate is nobody's there",
        _ => "--key-file shows a key or token, --client-certificate a certificate",
    }
}

/// Why a server was not reached, or the connection to it was lost.
pub(super) async fn unreached(server: &Server, status: &Status) -> String {
    let url = &server.url;
    if let Some(sentence) = causes(status).find_map(tls_error).and_then(|error| of_tls(server, error)) {
        return sentence;
    }
    let looked = timeout(LOOK_LIMIT, Looked::at(url)).await.ok().flatten();
    if let Some(Looked { asks_for_certificate }) = looked {
        match url.strip_prefix("http://") {
            Some(rest) => return format!("the server at {url} speaks TLS; --server https://{rest} reaches it"),
            None if asks_for_certificate => return lets_in(server),
            None => {}
        }
    }
    let cause = causes(status).last().map_or_else(|| said(status), ToString::to_string);
    let is_refused = causes(status).filter_map(io_error).any(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    match (is_refused, is_here(url)) {
        (true, true) => format!("no Rapport server answers at {url}; `rapport serve` starts one"),
        _ => format!("no Rapport server answers at {url}: {cause}; --server names another address"),
    }
}

/// What an error of TLS means, unless it says nothing that helps.
fn of_tls(server: &Server, error: &rustls::Error) -> Option<String> {
    let url = &server.url;
    let certificate = format!("the certificate of the server at {url} is not believed");
    Some(match error {
        rustls::Error::InvalidMessage(_) => {
            let rest = url.strip_prefix("https://")?;
            format!("the server at {url} speaks no TLS; --server http://{rest} reaches it")
        }
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            format!("{certificate}: {error}; --server-authorities names a file with whoever issued it")
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => {
            format!("{certificate}: {error}; --server-name says what it must be for")
        }
        rustls::Error::InvalidCertificate(_) => format!("{certificate}: {error}"),
        rustls::Error::AlertReceived(alert) if is_about_client(*alert) => lets_in(server),
        _ => return None,
    })
}

/// That a server lets in whoever shows it a certificate that it believes.
fn lets_in(server: &Server) -> String {
    let what = if server.has_certificate {
        "and does not let in whoever shows the one in --client-certificate"
    } else {
        "which --client-certificate and --client-key show"
    };
    format!("the server at {} asks for a client certificate, {what}", server.url)
}

/// True for what servers say about the certificate of a caller.
fn is_about_client(alert: AlertDescription) -> bool {
    use AlertDescription as Is;
    matches!(
        alert,
        Is::CertificateRequired
            | Is::NoCertificate
            | Is::BadCertificate
            | Is::UnsupportedCertificate
            | Is::CertificateRevoked
            | Is::CertificateExpired
            | Is::CertificateUnknown
            | Is::UnknownCA
            | Is::AccessDenied
    )
}

/// The error of TLS in an error of the transport.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    error.downcast_ref().or_else(|| tls_error(io_error(error)?.get_ref()?))
}

fn io_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    error.downcast_ref()
}

/// True for an address of this machine that only this machine reaches.
fn is_here(url: &str) -> bool {
    let host = host_and_port(url).map(|(host, _)| host).unwrap_or_default();
    host.parse::<IpAddr>().map_or(host == "localhost", |address| address.is_loopback())
}

fn host_and_port(url: &str) -> Option<(String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let otherwise = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
    Some((host, uri.port_u16().unwrap_or(otherwise)))
}

/// What is seen of a server that speaks TLS.
struct Looked {
    asks_for_certificate: bool,
}

impl Looked {
    /// Begins a handshake; nothing when no TLS is spoken there. No certificate is believed, and none is shown, so that it ends as
    /// soon as both sides have said what they want.
    async fn at(url: &str) -> Option<Self> {
        let (host, port) = host_and_port(url)?;
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let builder =
            builder.with_safe_default_protocol_versions().ok()?.with_root_certificates(RootCertStore::empty());
        let asked = Arc::<Asked>::default();
        let config = builder.with_client_cert_resolver(Arc::<Asked>::clone(&asked));
        let stream = TcpStream::connect((host.as_str(), port)).await.ok()?;
        let shaken = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(host).ok()?, stream).await;
        let speaks = match shaken {
            Ok(_) => true,
            Err(error) => !matches!(tls_error(&error)?, rustls::Error::InvalidMessage(_)),
        };
        speaks.then(|| Self { asks_for_certificate: asked.0.load(Ordering::Relaxed) })
    }
}

/// Notes when a certificate is asked for, and shows none.
#[derive(Debug, Default)]
struct Asked(AtomicBool);

impl ResolvesClientCert for Asked {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        self.0.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_are_known() {
        for here in ["http://127.0.0.1:50051", "http://localhost", "https://[::1]:1"] {
            assert!(is_here(here), "{here}");
        }
        for elsewhere in ["http://10.0.0.1:50051", "https://rapport.example", "nowhere", "http://"] {
            assert!(!is_here(elsewhere), "{elsewhere}");
        }
        assert_eq!(host_and_port("https://[::1]"), Some(("::1".to_owned(), 443)));
    }

    #[test]
    fn an_error_of_tls_is_found_however_deep_it_is() {
        let inner = io::Error::other(rustls::Error::AlertReceived(AlertDescription::CertificateRequired));
        let error = io::Error::other(inner);
        assert_eq!(tls_error(&error), Some(&rustls::Error::AlertReceived(AlertDescription::CertificateRequired)));
        assert_eq!(tls_error(&io::Error::from(io::ErrorKind::BrokenPipe)), None);
    }
}
