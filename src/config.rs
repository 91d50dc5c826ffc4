//! Settings: flags before environment before a settings file before defaults. This is the only reader of the environment,
//! and it reports every bad setting at once, with where it was given. What there is to be set is declared in `settings`.

mod client;
mod export;
mod reader;
mod settings;

use std::{ffi::OsString, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use tracing_subscriber::EnvFilter;

use crate::{
    embedded::{EmbeddedOptions, default_data_dir},
    rpc::{AdmissionLimits, ConnectionLimits, TlsFiles},
    service::ServiceLimits,
    telemetry::{Export, LogFormat},
};

use reader::Reader;
use settings as on;

pub use client::ClientConfig;
pub use reader::Flags;
pub(crate) use settings::{
    CLIENT_CERTIFICATE, CLIENT_KEY, HEALTH_LISTEN, KEY_FILE, LISTEN, METRICS_LISTEN, SERVER, SERVER_AUTHORITIES, TENANT,
};
pub use settings::{Form, Group, Otherwise, SETTINGS, Setting, Source};

/// Where the data is kept.
#[derive(Clone)]
pub enum Database {
    /// In a database of the operator's. The URL may hold a password.
    Url(String),
    /// In a private PostgreSQL.
    Embedded(EmbeddedOptions),
}

/// The databases that are worked on.
#[derive(Clone, Debug)]
pub struct Databases {
    /// The one that holds the truth.
    pub primary: Database,
    /// A replica of it, if it is the operator's, to read from.
    pub replica: Option<DatabaseUrl>,
    /// The most connections to either of them.
    pub max_connections: u32,
}

/// The URL of a database, which may hold a password.
#[derive(Clone)]
pub struct DatabaseUrl(pub String);

/// A password stays out of logs.
impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DatabaseUrl(…)")
    }
}

/// A password stays out of logs.
impl fmt::Debug for Database {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(_) => formatter.write_str("Url(…)"),
            Self::Embedded(options) => formatter.debug_tuple("Embedded").field(options).finish(),
        }
    }
}

/// Everything that a server can be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where to tell probes how things stand, without TLS; with the rest when nowhere.
    pub health_listen: Option<SocketAddr>,
    /// The file that says who may do what; everybody may do everything without one.
    pub access_file: Option<PathBuf>,
    /// The files that TLS is spoken with; without them it is not.
    pub tls: Option<TlsFiles>,
    /// What connections of callers are like.
    pub connections: ConnectionLimits,
    /// How many calls are taken on.
    pub admission: AdmissionLimits,
    /// Where the data is kept.
    pub databases: Databases,
    /// What is recorded, and what is kept in memory.
    pub service: ServiceLimits,
    /// How long calls go on to be taken in after the server has told that it is no longer ready.
    pub shutdown_delay: Duration,
    /// How long calls under way may take to end at shutdown.
    pub drain_limit: Duration,
    /// Where Prometheus can read metrics; nowhere when `None`.
    pub metrics_listen: Option<SocketAddr>,
    /// Where telemetry is sent.
    pub export: Export,
    /// How long a statement may take before it is logged as slow.
    pub slow_statement: Duration,
    /// How the server logs.
    pub log: LogConfig,
}

/// How the program logs.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Which lines, such as `info` or `rapport=debug`.
    pub filter: String,
    /// How they look.
    pub format: LogFormat,
}

/// Every bad setting, a line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// Reads one variable of the environment; empty counts as absent.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A variable of the process's own environment.
pub fn process_environment(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "this is the reader of the environment")]
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// What the process was started with: its own name, as it was typed, and the arguments.
pub fn process_arguments() -> impl Iterator<Item = OsString> {
    std::env::args_os()
}

impl Config {
    /// The settings in force, or every bad one.
    pub fn read(flags: Flags, environment: Environment<'_>) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(flags, environment);
        let listen = reader.address(&on::LISTEN);
        let (insecure, access_file) = (reader.switch(&on::INSECURE), reader.path(&on::ACCESS_FILE));
        if !insecure && access_file.is_none() && listen.is_some_and(|listen| !listen.ip().is_loopback()) {
            reader.faults.push(
                "--listen or RAPPORT_LISTEN must be a loopback address, because callers are not authenticated; \
                 --access-file or RAPPORT_ACCESS_FILE says who may call, and --insecure or RAPPORT_INSECURE=true allows \
                 anybody to"
                    .to_owned(),
            );
        }
        let health_listen = reader.address(&on::HEALTH_LISTEN);
        let tls = tls(&mut reader);
        let connections = ConnectionLimits {
            most: whole(reader.number(&on::MAX_CLIENT_CONNECTIONS)),
            idle: seconds(reader.number(&on::CONNECTION_IDLE_SECONDS)),
            age: seconds(reader.number(&on::CONNECTION_AGE_SECONDS)),
        };
        let admission = AdmissionLimits {
            calls: whole(reader.number(&on::MAX_CALLS)),
            tenant_calls: whole(reader.number(&on::TENANT_CALLS)),
            tenant_streams: whole(reader.number(&on::TENANT_STREAMS)),
            tenant_rate: reader.number(&on::TENANT_RATE),
        };
        let service = ServiceLimits {
            answer_bytes: u64::from(reader.number(&on::ANSWER_CACHE_MIB)) << 20,
            view_bytes: u64::from(reader.number(&on::VIEW_CACHE_MIB)) << 20,
            future: seconds(reader.number(&on::FUTURE_LIMIT_SECONDS)),
        };
        let shutdown_delay = seconds(reader.number(&on::SHUTDOWN_DELAY_SECONDS));
        let drain_limit = seconds(reader.number(&on::DRAIN_LIMIT_SECONDS));
        let slow_statement = Duration::from_millis(reader.number(&on::SLOW_STATEMENT_MS).into());
        let metrics_listen = reader.address(&on::METRICS_LISTEN);
        let (export, log) = (export::export(&mut reader), log(&mut reader));
        let databases = databases(&mut reader);
        let config = listen.zip(databases).map(|(listen, databases)| Self {
            listen,
            health_listen,
            access_file,
            tls,
            connections,
            admission,
            databases,
            service,
            shutdown_delay,
            drain_limit,
            metrics_listen,
            export,
            slow_statement,
            log,
        });
        reader.finish(config)
    }
}

/// The databases, for commands that do nothing but work on it.
pub fn read_databases(flags: Flags, environment: Environment<'_>) -> Result<Databases, ConfigError> {
    let mut reader = Reader::new(flags, environment);
    let config = databases(&mut reader);
    reader.finish(config)
}

impl LogConfig {
    /// How commands log that are no servers, or every bad setting.
    pub fn read(environment: Environment<'_>) -> Result<Self, ConfigError> {
        let mut reader = Reader::without_file(Flags::default(), environment);
        let log = log(&mut reader);
        reader.finish(Some(log))
    }
}

fn whole(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn seconds(number: u32) -> Duration {
    Duration::from_secs(number.into())
}

fn tls(reader: &mut Reader<'_>) -> Option<TlsFiles> {
    let (certificate, key) = (reader.path(&on::TLS_CERTIFICATE), reader.path(&on::TLS_KEY));
    let client_authorities = reader.path(&on::TLS_CLIENT_AUTHORITIES);
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key, client_authorities }),
        (None, None) if client_authorities.is_none() => None,
        _ => {
            reader.faults.push(
                "--tls-certificate (RAPPORT_TLS_CERTIFICATE) and --tls-key (RAPPORT_TLS_KEY) must be given both or not at all, \
                 and for --tls-client-authorities (RAPPORT_TLS_CLIENT_AUTHORITIES) both"
                    .to_owned(),
            );
            None
        }
    }
}

/// The address of a database.
fn database_url(reader: &mut Reader<'_>, setting: &Setting) -> Option<String> {
    let is_url = |text: &str| ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
    reader.read(setting, |text| is_url(text).then(|| text.to_owned()))
}

fn databases(reader: &mut Reader<'_>) -> Option<Databases> {
    let (primary, max_connections) = (database(reader), reader.number(&on::MAX_CONNECTIONS));
    let replica = database_url(reader, &on::READ_DATABASE_URL);
    primary.map(|primary| {
        // A private database has no replica.
        let replica = replica.filter(|_| matches!(primary, Database::Url(_))).map(DatabaseUrl);
        Databases { primary, replica, max_connections }
    })
}

/// The database that comes from the earlier source: one of the operator's, or a folder for a private one.
fn database(reader: &mut Reader<'_>) -> Option<Database> {
    let url = database_url(reader, &on::DATABASE_URL);
    let data_dir = reader.path(&on::DATA_DIR);
    let options = (reader.path(&on::POSTGRES_BIN), reader.switch(&on::SYSTEM_POSTGRES));
    if let Some(source) = reader.source(&on::DATABASE_URL)
        && reader.source(&on::DATA_DIR).is_none_or(|other| source <= other)
    {
        return url.map(Database::Url);
    }
    let path = |variable: &str| (reader.environment)(variable).map(PathBuf::from);
    let is_root = rustix::process::geteuid().is_root();
    let default = || default_data_dir(is_root, path("XDG_DATA_HOME"), path("HOME"));
    match data_dir.map_or_else(default, Ok) {
        Ok(data_dir) => Some(Database::Embedded(EmbeddedOptions {
            postgres_bin: options.0,
            system_binaries: options.1,
            ..EmbeddedOptions::new(data_dir)
        })),
        Err(error) => {
            reader.faults.push(error.to_string());
            None
        }
    }
}

fn log(reader: &mut Reader<'_>) -> LogConfig {
    let filter = reader.read(&on::LOG, |text| text.parse::<EnvFilter>().is_ok().then(|| text.to_owned()));
    let format = reader.read(&on::LOG_FORMAT_NAME, |text| match text {
        "pretty" => Some(LogFormat::Pretty),
        "json" => Some(LogFormat::Json),
        _ => None,
    });
    let usual = LogConfig::default();
    LogConfig { filter: filter.unwrap_or(usual.filter), format: format.unwrap_or(usual.format) }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Pretty }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_every_bad_setting_at_once() {
        let environment = |name: &str| match name {
            "RAPPORT_LISTEN" => Some("nowhere".to_owned()),
            "RAPPORT_MAX_CONNECTIONS" => Some("1".to_owned()),
            "RAPPORT_INSECURE" => Some("perhaps".to_owned()),
            "DATABASE_URL" => Some("postgresql://localhost/rapport".to_owned()),
            _ => None,
        };
        let ConfigError(faults) = Config::read(Flags::default(), &environment).unwrap_err();
        assert_eq!(faults.len(), 3, "{faults:?}");
    }

    #[test]
    fn listens_beyond_loopback_only_when_told_that_it_is_insecure() {
        let environment = |name: &str| (name == "DATABASE_URL").then(|| "postgresql://localhost/rapport".to_owned());
        let flags = |insecure: &str| Flags::default().with(&on::LISTEN, "0.0.0.0:1").with(&on::INSECURE, insecure);
        assert!(Config::read(flags("false"), &environment).is_err());
        assert_eq!(Config::read(flags("true"), &environment).unwrap().listen.port(), 1);
    }

    #[test]
    fn listens_anywhere_when_a_file_says_who_may_call() {
        let environment = |name: &str| match name {
            "DATABASE_URL" => Some("postgresql://localhost/rapport".to_owned()),
            "RAPPORT_ACCESS_FILE" => Some("access.json".to_owned()),
            _ => None,
        };
        let flags = Flags::default().with(&on::LISTEN, "0.0.0.0:1");
        assert_eq!(Config::read(flags, &environment).unwrap().access_file, Some("access.json".into()));
    }

    #[test]
    fn a_certificate_and_its_key_go_together() {
        let read = |given: &[&str]| {
            let environment = |name: &str| match name {
                "DATABASE_URL" => Some("postgresql://localhost/rapport".to_owned()),
                name => given.contains(&name).then(|| "file.pem".to_owned()),
            };
            Config::read(Flags::default(), &environment).map(|config| config.tls.is_some())
        };
        assert!(read(&["RAPPORT_TLS_CERTIFICATE"]).is_err());
        assert!(read(&["RAPPORT_TLS_KEY"]).is_err());
        assert!(read(&["RAPPORT_TLS_CLIENT_AUTHORITIES"]).is_err());
        assert_eq!(read(&["RAPPORT_TLS_CERTIFICATE", "RAPPORT_TLS_KEY"]), Ok(true));
        assert_eq!(read(&[]), Ok(false));
    }

    #[test]
    fn a_password_stays_out_of_debug_output() {
        let environment =
            |name: &str| name.ends_with("DATABASE_URL").then(|| "postgresql://a:secret@localhost/r".to_owned());
        let config = Config::read(Flags::default(), &environment).unwrap();
        assert!(!format!("{config:?}").contains("secret") && config.databases.replica.is_some());
    }
}
