//! TLS: the certificate a server shows, whose client certificates it believes, and following both when their files change.
//! Connections that are open keep what they began with.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, RootCertStore, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        server::WebPkiClientVerifier,
    },
};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::{
    domain::Timestamp,
    files::{MEBIBYTE, bounded},
    service::Clock,
    telemetry::Metrics,
};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How long before its end a certificate is warned of, and how often.
const WARN: (Duration, Duration) = (Duration::from_hours(14 * 24), Duration::from_hours(1));

/// Which files hold what TLS needs, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by those that vouch for it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities whose client certificates are believed; without them none is asked for.
    pub client_authorities: Option<PathBuf>,
}

/// Why TLS cannot be spoken. Nothing that is in the files shows.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("the TLS {what} {} cannot be read: {source}", .path.display())]
    Unreadable {
        /// Which.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file holds no such thing.
    #[error("the TLS {what} {} holds nothing of that kind in PEM", .path.display())]
    Empty {
        /// Which.
        what: &'static str,
        /// Its path.
        path: PathBuf,
    },
    /// They do not fit together.
    #[error("the TLS files do not fit together: {0}")]
    Unfit(String),
}

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The DNS names, addresses and URIs it is for.
    pub names: Vec<String>,
    /// From when it holds, in seconds since 1970.
    pub begins: i64,
    /// Until when, in seconds since 1970.
    pub ends: i64,
}

impl Certificate {
    /// How long it still holds.
    pub fn left(&self, now: Timestamp) -> Duration {
        Duration::from_secs(u64::try_from(self.ends - now.seconds_and_nanos().0).unwrap_or(0))
    }

    /// Why callers refuse it now, as a phrase; `None` while it holds.
    fn fault(&self, now: Timestamp) -> Option<&'static str> {
        match now.seconds_and_nanos().0 {
            now if now > self.ends => Some("has expired"),
            now if now < self.begins => Some("is not valid yet"),
            _ => None,
        }
    }

    /// Whether it is time for another.
    pub fn ends_soon(&self, now: Timestamp) -> bool {
        self.left(now) < WARN.0
    }
}

/// What is spoken with those who connect from now on.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    /// Of what stood in the files at first.
    begun: blake3::Hash,
    current: RwLock<Current>,
}

/// What stands in the files; no authorities where none are named.
struct Texts {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authorities: Option<Vec<u8>>,
}

impl Texts {
    /// Tells them from others, and nothing of what they hold.
    fn hash(&self) -> blake3::Hash {
        let each = [Some(&self.certificate), Some(&self.key), self.authorities.as_ref()];
        let hashes = each.map(|text| blake3::hash(text.map_or(&[], Vec::as_slice)));
        blake3::hash(hashes.map(|hash| *hash.as_bytes()).as_flattened())
    }
}

/// How far the files are followed.
struct Followed {
    /// What stood in the files, or why they could not be read.
    seen: Result<blake3::Hash, String>,
    /// What they say and is not shown, because callers would refuse it.
    held_back: Option<Current>,
}

#[derive(Clone, Debug)]
struct Current {
    config: Arc<ServerConfig>,
    certificate: Certificate,
}

impl Tls {
    /// What the files say.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let texts = read(&files)?;
        let current = RwLock::new(made(&files, &texts)?);
        Ok(Self { files, begun: texts.hash(), current })
    }

    /// Follows the files, until this is dropped, and warns of a certificate that ends soon. What cannot be followed changes
    /// nothing, and is logged.
    pub async fn follow(self: Arc<Self>, clock: Clock, metrics: Metrics) {
        let (mut followed, mut warned) = (Followed { seen: Ok(self.begun), held_back: None }, None::<Instant>);
        loop {
            metrics.certificate_ends(self.certificate().ends);
            if warned.is_none_or(|warned| warned.elapsed() >= WARN.1) && warn(&self.certificate(), clock.now()) {
                warned = Some(Instant::now());
            }
            sleep(LOOK).await;
            self.look(&mut followed, clock.now());
        }
    }

    /// Looks at the files once.
    fn look(&self, followed: &mut Followed, now: Timestamp) {
        followed.held_back = followed.held_back.take().and_then(|next| self.show(next, now));
        let texts = read(&self.files);
        let hash = texts.as_ref().map(Texts::hash).map_err(ToString::to_string);
        if hash == followed.seen {
            return;
        }
        followed.seen = hash;
        match texts.and_then(|texts| made(&self.files, &texts)) {
            Ok(next) => followed.held_back = self.follow_change(next, now),
            Err(error) => tracing::error!("the TLS files have changed, and cannot be followed: {error}"),
        }
    }

    /// Shows what the files now say, or says why not and gives it back.
    fn follow_change(&self, next: Current, now: Timestamp) -> Option<Current> {
        let Certificate { begins, ends, .. } = next.certificate;
        let fault = next.certificate.fault(now);
        let held_back = self.show(next, now);
        if let (Some(fault), Some(_)) = (fault, &held_back) {
            tracing::error!(
                begins_unix_s = begins,
                ends_unix_s = ends,
                "the TLS files have changed, and are not followed: the certificate {fault}; the one before is still shown"
            );
        }
        held_back
    }

    /// Shows another certificate from now on. Gives it back when callers would refuse it, and take the one that is shown.
    fn show(&self, next: Current, now: Timestamp) -> Option<Current> {
        if next.certificate.fault(now).is_some() && self.certificate().fault(now).is_none() {
            return Some(next);
        }
        let (begins, ends) = (next.certificate.begins, next.certificate.ends);
        match next.certificate.fault(now) {
            None => tracing::info!(ends_unix_s = ends, "the TLS certificate has changed, and is shown"),
            Some(fault) => tracing::error!(
                begins_unix_s = begins,
                ends_unix_s = ends,
                "the TLS certificate has changed, and is shown, but callers refuse it: it {fault}"
            ),
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        None
    }

    /// What the certificate that is shown says of itself.
    pub fn certificate(&self) -> Certificate {
        self.current().certificate
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current().config)
    }

    fn current(&self) -> Current {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Tells of a certificate that ends soon, or that callers refuse already; true when there was something to tell.
fn warn(certificate: &Certificate, now: Timestamp) -> bool {
    let Certificate { begins, ends, .. } = *certificate;
    match certificate.fault(now) {
        Some(fault) => {
            tracing::error!(
                begins_unix_s = begins,
                ends_unix_s = ends,
                "callers refuse the TLS certificate: it {fault}"
            );
        }
        None if certificate.ends_soon(now) => {
            tracing::warn!(left_s = certificate.left(now).as_secs(), "the TLS certificate ends soon");
        }
        None => return false,
    }
    true
}

fn read(files: &TlsFiles) -> Result<Texts, TlsError> {
    let authorities = files.client_authorities.as_ref();
    Ok(Texts {
        certificate: text("certificate", &files.certificate)?,
        key: text("key", &files.key)?,
        authorities: authorities.map(|path| text("client authorities", path)).transpose()?,
    })
}

fn made(files: &TlsFiles, Texts { certificate: chain, key, authorities }: &Texts) -> Result<Current, TlsError> {
    let chain = certificates(("certificate", &files.certificate), chain)?;
    let certificate = chain.first().and_then(|first| described(first));
    let certificate = certificate.ok_or_else(|| empty(("certificate", &files.certificate)))?;
    let private = PrivateKeyDer::from_pem_slice(key).map_err(|_| empty(("key", &files.key)))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let unfit = |error: &dyn std::fmt::Display| TlsError::Unfit(error.to_string());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unfit(&error))?;
    let builder = if let Some((path, authorities)) = files.client_authorities.as_ref().zip(authorities.as_ref()) {
        let mut roots = RootCertStore::empty();
        for authority in certificates(("client authorities", path), authorities)? {
            roots.add(authority).map_err(|error| unfit(&error))?;
        }
        // Who shows none has to prove otherwise who they are.
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).allow_unauthenticated();
        builder.with_client_cert_verifier(verifier.build().map_err(|error| unfit(&error))?)
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_single_cert(chain, private).map_err(|error| unfit(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Current { config: Arc::new(config), certificate })
}

fn text(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |source| TlsError::Unreadable { what, path: path.to_owned(), source };
    bounded(path, MEBIBYTE).map_err(unreadable)
}

fn empty((what, path): (&'static str, &Path)) -> TlsError {
    TlsError::Empty { what, path: path.to_owned() }
}

fn certificates(file: (&'static str, &Path), text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| empty(file))
}

fn described(certificate: &CertificateDer<'_>) -> Option<Certificate> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let validity = parsed.validity();
    let (begins, ends) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let names = alternatives(certificate, |name| match name {
        GeneralName::IPAddress(bytes) => <[u8; 4]>::try_from(*bytes)
            .map(IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from))
            .ok()
            .map(|address| address.to_string()),
        name => dns_or_uri(name),
    });
    Some(Certificate { names, begins, ends })
}

/// The DNS names and URIs that a certificate is for.
pub(super) fn names_in(certificate: &CertificateDer<'_>) -> Vec<String> {
    alternatives(certificate, dns_or_uri)
}

fn dns_or_uri(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        _ => None,
    }
}

fn alternatives(certificate: &CertificateDer<'_>, named: impl Fn(&GeneralName<'_>) -> Option<String>) -> Vec<String> {
    let parsed = X509Certificate::from_der(certificate).ok().map(|(_, parsed)| parsed);
    let alternatives = parsed.as_ref().and_then(|parsed| parsed.subject_alternative_name().ok().flatten());
    alternatives.iter().flat_map(|extension| &extension.value.general_names).filter_map(named).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::rpc) fn files(folder: &std::path::Path) -> TlsFiles {
        let certified =
            rcgen::generate_simple_self_signed(["a.example.org".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let path = |name: &str| folder.join(name);
        std::fs::write(path("crt"), certified.cert.pem()).unwrap();
        std::fs::write(path("key"), certified.signing_key.serialize_pem()).unwrap();
        TlsFiles { certificate: path("crt"), key: path("key"), client_authorities: None }
    }

    #[test]
    fn a_certificate_is_known_by_its_names_and_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let certificate = Tls::load(files(folder.path())).unwrap().certificate();
        assert_eq!(certificate.names, ["a.example.org", "127.0.0.1"]);
        let before = |days: i64| Timestamp::from_seconds(certificate.ends - days * 86_400, 0).unwrap();
        assert!(certificate.begins < certificate.ends && !certificate.ends_soon(before(15)));
        assert!(certificate.ends_soon(before(13)) && certificate.left(before(-1)) == Duration::ZERO);
    }

    /// Writes a certificate that holds between two times, in seconds since 1970.
    fn write(files: &TlsFiles, begins: i64, ends: i64) {
        let mut parameters = rcgen::CertificateParams::new(vec!["a.example.org".to_owned()]).unwrap();
        let at = |seconds| time::OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        (parameters.not_before, parameters.not_after) = (at(begins), at(ends));
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&files.certificate, parameters.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
    }

    #[test]
    fn a_certificate_that_callers_would_refuse_is_not_shown_while_a_better_one_is() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        write(&files, 1000, 9000);
        let tls = Tls::load(files.clone()).unwrap();
        let mut followed = Followed { seen: Ok(tls.begun), held_back: None };
        let mut shown_at = |seconds: i64| {
            tls.look(&mut followed, Timestamp::from_seconds(seconds, 0).unwrap());
            (tls.certificate().begins, tls.certificate().ends)
        };
        assert_eq!(shown_at(5000), (1000, 9000));
        write(&files, 1000, 4999);
        assert_eq!(shown_at(5000), (1000, 9000), "the new one has expired");
        write(&files, 6000, 9500);
        assert_eq!(shown_at(5000), (1000, 9000), "the new one is not valid yet");
        assert_eq!(shown_at(6000), (6000, 9500), "now it is");
        write(&files, 9900, 9950);
        assert_eq!(shown_at(9500), (6000, 9500), "a certificate holds to its last second");
        assert_eq!(shown_at(9501), (9900, 9950), "no good one is left: the files are followed");
    }

    #[test]
    fn files_are_bounded_and_fit_together() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        let refused = |files: &TlsFiles| Tls::load(files.clone()).unwrap_err().to_string();
        let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
        std::fs::write(&files.key, other).unwrap();
        assert!(refused(&files).starts_with("the TLS files do not fit together"));
        std::fs::File::create(&files.key).unwrap().set_len(MEBIBYTE + 1).unwrap();
        let key = files.key.display();
        let large = format!("the TLS key {key} cannot be read: it is larger than 1 MiB");
        assert!(refused(&files).starts_with(&large), "{}", refused(&files));
        std::fs::File::create(&files.key).unwrap().set_len(MEBIBYTE).unwrap();
        assert_eq!(refused(&files), format!("the TLS key {key} holds nothing of that kind in PEM"));
    }
}
