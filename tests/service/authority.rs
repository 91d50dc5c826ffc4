//! An authority for certificates, servers that show them, and callers who believe it.

use std::{fs, net::SocketAddr, path::Path};

use rapport::rpc::TlsFiles;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// An authority that certificates come from.
pub struct Authority(pub CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate and its key.
    pub fn issue(&self, name: SanType) -> (String, String) {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.subject_alt_names = vec![name];
        let key = KeyPair::generate().unwrap();
        (parameters.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    /// A server's certificate that begins and ends so many days from now, and its key.
    pub fn server_within(&self, begins: i64, ends: i64) -> (String, String) {
        let mut parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let from_now = |days| time::OffsetDateTime::now_utc() + time::Duration::days(days);
        (parameters.not_before, parameters.not_after) = (from_now(begins), from_now(ends));
        let key = KeyPair::generate().unwrap();
        (parameters.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    pub fn server(&self) -> (String, String) {
        self.issue(SanType::DnsName("localhost".try_into().unwrap()))
    }
}

pub fn write_tls(folder: &Path, (certificate, key): &(String, String)) {
    fs::write(folder.join("server.crt"), certificate).unwrap();
    fs::write(folder.join("server.key"), key).unwrap();
}

pub fn tls_files(folder: &Path, client_authorities: bool) -> TlsFiles {
    TlsFiles {
        certificate: folder.join("server.crt"),
        key: folder.join("server.key"),
        client_authorities: client_authorities.then(|| folder.join("clients.crt")),
    }
}

pub fn tls_channel(address: SocketAddr, authority: &Authority, identity: Option<(String, String)>) -> Channel {
    let mut tls =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.0.pem())).domain_name("localhost");
    if let Some((certificate, key)) = identity {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap().connect_lazy()
}
