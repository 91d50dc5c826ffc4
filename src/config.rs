//! Settings: flags before environment before defaults. This is the only reader of the environment, and it reports every
//! bad setting at once.

mod export;

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use crate::{
    embedded::{EmbeddedOptions, default_data_dir},
    rpc::{AdmissionLimits, ConnectionLimits, TlsFiles},
    telemetry::{Export, LogFormat},
};

pub use export::read_export;

/// Settings given on the command line, as they were written; they come before the environment.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--listen`
    pub listen: Option<String>,
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--postgres-bin`
    pub postgres_bin: Option<PathBuf>,
    /// `--insecure`
    pub insecure: bool,
    /// `--access-file`
    pub access_file: Option<PathBuf>,
    /// `--metrics-listen`
    pub metrics_listen: Option<String>,
}

/// Where the data is kept.
#[derive(Clone)]
pub enum Database {
    /// In a database of the operator's. The URL may hold a password.
    Url(String),
    /// In a private PostgreSQL.
    Embedded(EmbeddedOptions),
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
    pub database: Database,
    /// The most connections to the database.
    pub max_connections: u32,
    /// How much memory answers may take that are kept to be given again, in bytes.
    pub answer_bytes: u64,
    /// How far in the future an interaction may lie.
    pub future_limit: Duration,
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

struct Reader<'a> {
    environment: Environment<'a>,
    faults: Vec<String>,
}

impl Reader<'_> {
    /// The setting in a flag (its name and what it says) or in a variable, parsed, or the default. `expected` completes
    /// "must be …".
    fn read<T>(
        &mut self,
        variable: &str,
        flag: Option<(&str, String)>,
        default: T,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> T {
        let given = flag.or_else(|| (self.environment)(variable).map(|text| (variable, text)));
        let Some((name, text)) = given else { return default };
        parse(&text).unwrap_or_else(|| {
            self.faults.push(format!("{name} must be {expected}"));
            default
        })
    }

    fn number(&mut self, variable: &str, default: u32, from: u32, to: u32) -> u32 {
        let within = |text: &str| text.parse().ok().filter(|number| (from..=to).contains(number));
        self.read(variable, None, default, &format!("a whole number from {from} to {to}"), within)
    }

    fn finish<T>(self, value: T) -> Result<T, ConfigError> {
        if self.faults.is_empty() { Ok(value) } else { Err(ConfigError(self.faults)) }
    }
}

impl Config {
    /// The settings in force, or every bad one.
    pub fn read(flags: Flags, environment: Environment<'_>) -> Result<Self, ConfigError> {
        let mut reader = Reader { environment, faults: Vec::new() };
        let default = SocketAddr::from(([127, 0, 0, 1], 50051));
        let listen = reader.read(
            "RAPPORT_LISTEN",
            flags.listen.map(|listen| ("--listen", listen)),
            default,
            "an address such as 127.0.0.1:50051",
            |text| text.parse().ok(),
        );
        let flag = flags.insecure.then(|| ("--insecure", "true".to_owned()));
        let insecure = reader.read("RAPPORT_INSECURE", flag, false, "true or false", |text| text.parse().ok());
        let access_file = flags.access_file.or_else(|| environment("RAPPORT_ACCESS_FILE").map(PathBuf::from));
        if !insecure && access_file.is_none() && !listen.ip().is_loopback() {
            reader.faults.push(
                "--listen or RAPPORT_LISTEN must be a loopback address, because callers are not authenticated; \
                 --access-file or RAPPORT_ACCESS_FILE says who may call, and --insecure or RAPPORT_INSECURE=true allows \
                 anybody to"
                    .to_owned(),
            );
        }
        let health_listen =
            reader.read("RAPPORT_HEALTH_LISTEN", None, None, "an address such as 127.0.0.1:50052", |text| {
                text.parse().ok().map(Some)
            });
        let tls = tls(&mut reader);
        let connections = ConnectionLimits {
            most: whole(reader.number("RAPPORT_MAX_CLIENT_CONNECTIONS", 10_000, 1, 1_000_000)),
            age: Duration::from_secs(reader.number("RAPPORT_CONNECTION_AGE_SECONDS", 1800, 1, 604_800).into()),
        };
        let admission = AdmissionLimits {
            calls: whole(reader.number("RAPPORT_MAX_CALLS", 8192, 1, 1_000_000)),
            tenant_calls: whole(reader.number("RAPPORT_TENANT_CALLS", 6144, 1, 1_000_000)),
            tenant_rate: reader.number("RAPPORT_TENANT_RATE", 0, 0, 1_000_000),
        };
        let max_connections = reader.number("RAPPORT_MAX_CONNECTIONS", 10, 4, 1000);
        let answer_mebibytes = reader.number("RAPPORT_ANSWER_CACHE_MIB", 32, 0, 65_536);
        let future_seconds = reader.number("RAPPORT_FUTURE_LIMIT_SECONDS", 300, 0, 86_400);
        let delay_seconds = reader.number("RAPPORT_SHUTDOWN_DELAY_SECONDS", 0, 0, 3600);
        let drain_seconds = reader.number("RAPPORT_DRAIN_LIMIT_SECONDS", 20, 0, 3600);
        let slow_milliseconds = reader.number("RAPPORT_SLOW_STATEMENT_MS", 1000, 1, 3_600_000);
        let metrics_listen = metrics_listen(flags.metrics_listen, &mut reader);
        let export = export::export(&mut reader);
        let database = database(flags.data_dir, flags.postgres_bin, &mut reader);
        let config = database.map(|database| Self {
            listen,
            health_listen,
            access_file,
            tls,
            connections,
            admission,
            database,
            max_connections,
            answer_bytes: u64::from(answer_mebibytes) << 20,
            future_limit: Duration::from_secs(future_seconds.into()),
            shutdown_delay: Duration::from_secs(delay_seconds.into()),
            drain_limit: Duration::from_secs(drain_seconds.into()),
            metrics_listen,
            export,
            slow_statement: Duration::from_millis(slow_milliseconds.into()),
        });
        reader.finish(())?;
        config.ok_or_else(|| ConfigError(Vec::new()))
    }
}

fn whole(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn tls(reader: &mut Reader<'_>) -> Option<TlsFiles> {
    let path = |variable: &str| (reader.environment)(variable).map(PathBuf::from);
    let [certificate, key, client_authorities] =
        ["RAPPORT_TLS_CERTIFICATE", "RAPPORT_TLS_KEY", "RAPPORT_TLS_CLIENT_AUTHORITIES"].map(path);
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key, client_authorities }),
        (None, None) if client_authorities.is_none() => None,
        _ => {
            reader.faults.push(
                "RAPPORT_TLS_CERTIFICATE and RAPPORT_TLS_KEY must be set both or not at all, and for \
                 RAPPORT_TLS_CLIENT_AUTHORITIES both"
                    .to_owned(),
            );
            None
        }
    }
}

fn database(data_dir: Option<PathBuf>, postgres_bin: Option<PathBuf>, reader: &mut Reader<'_>) -> Option<Database> {
    let environment = reader.environment;
    let path = |variable: &str| environment(variable).map(PathBuf::from);
    if data_dir.is_none()
        && let Some(url) = environment("DATABASE_URL")
    {
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            reader.faults.push("DATABASE_URL must be an address such as postgresql://user@host/database".to_owned());
        }
        return Some(Database::Url(url));
    }
    let is_root = rustix::process::geteuid().is_root();
    let default = || default_data_dir(is_root, path("XDG_DATA_HOME"), path("HOME"));
    let data_dir = data_dir.or_else(|| path("RAPPORT_DATA_DIR")).map_or_else(default, Ok);
    let system_binaries = reader.read("RAPPORT_SYSTEM_POSTGRES", None, true, "true or false", |text| text.parse().ok());
    match data_dir {
        Ok(data_dir) => Some(Database::Embedded(EmbeddedOptions {
            postgres_bin: postgres_bin.or_else(|| path("RAPPORT_POSTGRES_BIN")),
            system_binaries,
            ..EmbeddedOptions::new(data_dir)
        })),
        Err(error) => {
            reader.faults.push(error.to_string());
            None
        }
    }
}

/// Loopback or not: what is read there is about the server, and about nobody.
fn metrics_listen(flag: Option<String>, reader: &mut Reader<'_>) -> Option<SocketAddr> {
    let flag = flag.map(|listen| ("--metrics-listen", listen));
    let expected = "an address such as 127.0.0.1:9464";
    reader.read("RAPPORT_METRICS_LISTEN", flag, None, expected, |text| text.parse().ok().map(Some))
}

impl LogConfig {
    /// How to log, or every bad setting.
    pub fn read(environment: Environment<'_>) -> Result<Self, ConfigError> {
        let mut reader = Reader { environment, faults: Vec::new() };
        let filter = reader.read("RAPPORT_LOG", None, "info".to_owned(), "a log filter", |text| Some(text.to_owned()));
        let format = reader.read("RAPPORT_LOG_FORMAT", None, LogFormat::Pretty, "pretty or json", |text| match text {
            "pretty" => Some(LogFormat::Pretty),
            "json" => Some(LogFormat::Json),
            _ => None,
        });
        reader.finish(Self { filter, format })
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
        let flags = |insecure| Flags { listen: Some("0.0.0.0:1".to_owned()), insecure, ..Flags::default() };
        assert!(Config::read(flags(false), &environment).is_err());
        assert_eq!(Config::read(flags(true), &environment).unwrap().listen.port(), 1);
    }

    #[test]
    fn listens_anywhere_when_a_file_says_who_may_call() {
        let environment = |name: &str| match name {
            "DATABASE_URL" => Some("postgresql://localhost/rapport".to_owned()),
            "RAPPORT_ACCESS_FILE" => Some("access.json".to_owned()),
            _ => None,
        };
        let flags = Flags { listen: Some("0.0.0.0:1".to_owned()), ..Flags::default() };
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
        let environment = |name: &str| (name == "DATABASE_URL").then(|| "postgresql://a:secret@localhost/r".to_owned());
        let config = Config::read(Flags::default(), &environment).unwrap();
        assert!(!format!("{config:?}").contains("secret"));
    }
}
