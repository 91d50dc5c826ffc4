//! How commands reach a server, as flags and the environment say it. A settings file is a server's, and is not looked at.

use std::path::PathBuf;

use super::{ConfigError, Environment, Flags, reader::Reader, settings as on};

/// How a command reaches a server; what is not given is as usual.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The server's address.
    pub server: String,
    /// The tenant.
    pub tenant: Option<String>,
    /// The file with the key or token to show.
    pub key_file: Option<PathBuf>,
    /// The file with the certificate to show, and the one with its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Whose server certificates are believed.
    pub server_authorities: Option<PathBuf>,
    /// The name that the server's certificate must be for.
    pub server_name: Option<String>,
}

impl ClientConfig {
    /// How to reach a server, or every bad setting.
    pub fn read(flags: Flags, environment: Environment<'_>) -> Result<Self, ConfigError> {
        let mut reader = Reader::without_file(flags, environment);
        let identity = identity(&mut reader);
        let client = server(&mut reader).map(|server| Self {
            server,
            tenant: reader.text(&on::TENANT),
            key_file: reader.path(&on::KEY_FILE),
            identity,
            server_authorities: reader.path(&on::SERVER_AUTHORITIES),
            server_name: reader.text(&on::SERVER_NAME),
        });
        reader.finish(client)
    }
}

/// The server's address, without a name or a password: errors repeat the address, and nobody at the other end reads them.
fn server(reader: &mut Reader<'_>) -> Option<String> {
    let server = reader.text(&on::SERVER)?;
    if server.contains('@') {
        let (flag, variable) = (on::SERVER.flag(), on::SERVER.variable());
        reader.faults.push(format!(
            "{flag} ({variable}) must not hold a name or a password; --key-file names a file with a key or token"
        ));
        return None;
    }
    Some(server)
}

fn identity(reader: &mut Reader<'_>) -> Option<(PathBuf, PathBuf)> {
    let both = (reader.path(&on::CLIENT_CERTIFICATE), reader.path(&on::CLIENT_KEY));
    if both.0.is_some() != both.1.is_some() {
        let [certificate, key] = [&on::CLIENT_CERTIFICATE, &on::CLIENT_KEY].map(|one| (one.flag(), one.variable()));
        reader.faults.push(format!(
            "{} ({}) and {} ({}) must be given both or not at all",
            certificate.0, certificate.1, key.0, key.1
        ));
    }
    both.0.zip(both.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_a_password_is_refused_and_not_repeated() {
        for address in
            ["https://user:pass@host", "user:pass@host:1", "http://user:pa/ss@host", "http://u:pass#@h", "pass@"]
        {
            let environment = |name: &str| (name == "RAPPORT_SERVER").then(|| address.to_owned());
            let ConfigError(faults) = ClientConfig::read(Flags::default(), &environment).unwrap_err();
            let expected = "--server (RAPPORT_SERVER) must not hold a name or a password; --key-file names a file with a key \
                            or token";
            assert_eq!(faults, [expected]);
        }
    }

    #[test]
    fn a_certificate_to_show_and_its_key_go_together() {
        let read = |given: &[&str]| {
            let environment = |name: &str| given.contains(&name).then(|| "file.pem".to_owned());
            ClientConfig::read(Flags::default(), &environment).map(|config| config.identity.is_some())
        };
        for one in ["RAPPORT_CLIENT_CERTIFICATE", "RAPPORT_CLIENT_KEY"] {
            let ConfigError(faults) = read(&[one]).unwrap_err();
            let expected = "--client-certificate (RAPPORT_CLIENT_CERTIFICATE) and --client-key (RAPPORT_CLIENT_KEY) must be \
                            given both or not at all";
            assert_eq!(faults, [expected]);
        }
        assert_eq!(read(&["RAPPORT_CLIENT_CERTIFICATE", "RAPPORT_CLIENT_KEY"]), Ok(true));
        assert_eq!(read(&[]), Ok(false));
    }
}
