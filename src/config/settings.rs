//! Every setting, declared once: its flag, its variable, its key in a settings file, its range, its default and what it is
//! for. The flags of commands, what is read, and the table in `deploy/configuration.md` come from here.

use Group::{Access, Client, Database, Ending, File, Limits, Listening, Telemetry};
use Otherwise::{Value, Words};
use Source::{Environment, Flag};

/// One thing that can be told to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its flag, without the dashes before it.
    pub name: &'static str,
    /// What it is about.
    pub group: Group,
    /// Where it can be given.
    pub sources: &'static [Source],
    /// What it looks like.
    pub form: Form,
    /// What holds when it is not given.
    pub otherwise: Otherwise,
    /// What it is for.
    pub about: &'static str,
    /// Its variable, where others have named it.
    standard: Option<&'static str>,
}

/// What settings are about, in the order in which help shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The file that holds the others.
    File,
    /// Where a server listens, and how it is spoken with.
    Listening,
    /// Who may call.
    Access,
    /// How much a server takes on.
    Limits,
    /// Where the data is kept.
    Database,
    /// How a server ends.
    Ending,
    /// What operators are told.
    Telemetry,
    /// How commands reach a server.
    Client,
}

/// Where a setting can be given; the earlier one holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// On the command line.
    Flag,
    /// In the environment.
    Environment,
    /// In the settings file.
    File,
}

/// What the text of a setting looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An address to listen at, such as this one.
    Address(&'static str),
    /// The path of a file.
    File,
    /// The path of a folder.
    Folder,
    /// `true` or `false`.
    Switch,
    /// A whole number within these bounds.
    Number(u32, u32),
    /// A text: what stands for it in help, and what it must be.
    Text(&'static str, &'static str),
}

/// What holds when a setting is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Otherwise {
    /// This text, read like a given one.
    Value(&'static str),
    /// What these words say.
    Words(&'static str),
}

impl Group {
    /// The heading above its settings.
    pub const fn heading(self) -> &'static str {
        match self {
            File => "Settings file",
            Listening => "Listening",
            Access => "Who may call",
            Limits => "Limits",
            Database => "Database",
            Ending => "Shutting down",
            Telemetry => "Telemetry",
            Client => "Calling a server",
        }
    }
}

impl Form {
    /// What the text must be.
    pub fn expected(self) -> String {
        match self {
            Self::Address(example) => format!("an IP address with a port, such as {example}"),
            Self::File => "the path of a file".to_owned(),
            Self::Folder => "the path of a folder".to_owned(),
            Self::Switch => "true or false".to_owned(),
            Self::Number(from, to) => format!("a whole number from {from} to {to}"),
            Self::Text(_, expected) => expected.to_owned(),
        }
    }

    /// What stands for the text in help.
    pub const fn placeholder(self) -> &'static str {
        match self {
            Self::Address(_) => "ADDRESS",
            Self::File => "FILE",
            Self::Folder => "FOLDER",
            Self::Switch => "BOOLEAN",
            Self::Number(..) => "NUMBER",
            Self::Text(placeholder, _) => placeholder,
        }
    }
}

impl Setting {
    /// Whether it can be given there.
    pub fn is_from(&self, source: Source) -> bool {
        self.sources.contains(&source)
    }

    /// Its flag.
    pub fn flag(&self) -> String {
        format!("--{}", self.name)
    }

    /// Its variable in the environment.
    pub fn variable(&self) -> String {
        let own = || format!("RAPPORT_{}", self.name.replace('-', "_").to_uppercase());
        self.standard.map_or_else(own, str::to_owned)
    }

    /// Its key in a settings file.
    pub fn key(&self) -> String {
        self.name.replace('-', "_")
    }

    const fn at(self, sources: &'static [Source]) -> Self {
        Self { sources, ..self }
    }

    const fn named(self, variable: &'static str) -> Self {
        Self { standard: Some(variable), ..self }
    }
}

const fn setting(name: &'static str, group: Group, form: Form, otherwise: Otherwise, about: &'static str) -> Setting {
    Setting { name, group, sources: &[Flag, Environment, Source::File], form, otherwise, about, standard: None }
}

/// A setting of OpenTelemetry's: its exporter, too, reads the environment, and nothing else.
const fn standard(variable: &'static str, form: Form, otherwise: Otherwise, about: &'static str) -> Setting {
    setting(variable, Telemetry, form, otherwise, about).at(&[Environment]).named(variable)
}

/// What others can see of a process is its command line.
const SECRET: &[Source] = &[Environment, Source::File];
/// What is none of a settings file's.
const OF_COMMANDS: &[Source] = &[Flag, Environment];

const LOCAL: Form = Form::Address("127.0.0.1:50051");
const PROMETHEUS: Form = Form::Address("127.0.0.1:9464");
const DATABASE: Form = Form::Text("URL", "an address such as postgresql://user@host/database");
const COLLECTOR: Form = Form::Text("URL", "an address such as http://127.0.0.1:4317");
const EXPORTER: Form = Form::Text("NAME", "otlp or none");
const SAMPLER: Form =
    Form::Text("NAME", "always_on, always_off or traceidratio, with or without parentbased_ before it");
const SHARE: Form = Form::Text("NUMBER", "a number from 0 to 1");
const ATTRIBUTES: Form =
    Form::Text("PAIRS", "pairs such as deployment.environment.name=staging,service.namespace=people");
const SERVER_URL: Form = Form::Text("URL", "an address such as http://127.0.0.1:50051");
const NAME: Form = Form::Text("NAME", "a name");
const FILTER: Form = Form::Text("FILTER", "a log filter such as info or rapport=debug");
const LOG_FORMAT: Form = Form::Text("FORMAT", "pretty or json");

/// Declares settings, and the list of all.
macro_rules! settings {
    ($($constant:ident = $setting:expr;)*) => {
        $(pub(crate) const $constant: Setting = $setting;)*
        /// Every setting, in the order in which help and `deploy/configuration.md` show them.
        pub const SETTINGS: &[Setting] = &[$($constant),*];
    };
}

#[rustfmt::skip]
settings! {
    SETTINGS_FILE = setting("settings", File, Form::File, Words("none"),
        "a file in TOML with settings, by the names of their flags with `_` for `-`").at(OF_COMMANDS);

    LISTEN = setting("listen", Listening, LOCAL, Value("127.0.0.1:50051"), "where to listen");
    HEALTH_LISTEN = setting("health-listen", Listening, LOCAL, Words("with the rest"),
        "where to tell probes how things stand, without TLS: the health service and its reflection, and no other service");
    TLS_CERTIFICATE = setting("tls-certificate", Listening, Form::File, Words("no TLS"),
        "the server's certificate with those that vouch for it, in PEM");
    TLS_KEY = setting("tls-key", Listening, Form::File, Words("no TLS"), "the certificate's key, in PEM");
    TLS_CLIENT_AUTHORITIES = setting("tls-client-authorities", Listening, Form::File, Words("none is asked for"),
        "whose client certificates are believed, in PEM");

    ACCESS_FILE = setting("access-file", Access, Form::File, Words("everybody may do everything"),
        "a JSON file that says who may do what");
    INSECURE = setting("insecure", Access, Form::Switch, Value("false"),
        "allow to listen beyond loopback although callers are not authenticated");

    MAX_CLIENT_CONNECTIONS = setting("max-client-connections", Limits, Form::Number(1, 1_000_000), Value("10000"),
        "the most connections of callers; one more takes the place of a connection without a call under way, and waits while there is none");
    CONNECTION_IDLE_SECONDS = setting("connection-idle-seconds", Limits, Form::Number(1, 604_800), Value("300"),
        "how long a connection of a caller may have no call under way before it is told to go away");
    CONNECTION_AGE_SECONDS = setting("connection-age-seconds", Limits, Form::Number(1, 604_800), Value("1800"),
        "how old a connection of a caller becomes, give or take a tenth, before it is told to go away");
    MAX_CALLS = setting("max-calls", Limits, Form::Number(1, 1_000_000), Value("8192"),
        "the most calls at once, a stream being one");
    TENANT_CALLS = setting("tenant-calls", Limits, Form::Number(1, 1_000_000), Value("4096"), "the most calls of one tenant at once");
    TENANT_STREAMS = setting("tenant-streams", Limits, Form::Number(1, 1_000_000), Value("256"),
        "the most streams of one tenant at once, and never more than half of `tenant-calls`; all streams take at most half of `max-calls`");
    TENANT_RATE = setting("tenant-rate", Limits, Form::Number(0, 1_000_000), Value("0"),
        "the most calls and items of streams of one tenant in a second; 0 for any number");
    ANSWER_CACHE_MIB = setting("answer-cache-mib", Limits, Form::Number(0, 65_536), Value("32"),
        "memory for rankings that can be given again as long as they hold, in MiB");
    VIEW_CACHE_MIB = setting("view-cache-mib", Limits, Form::Number(0, 65_536), Value("96"),
        "memory for the connections that rankings are made of, so that only what changes is read again, in MiB");
    FUTURE_LIMIT_SECONDS = setting("future-limit-seconds", Limits, Form::Number(0, 86_400), Value("300"),
        "how far ahead of the clock an interaction may lie");

    DATABASE_URL = setting("database-url", Database, DATABASE, Words("a private one"),
        "a PostgreSQL 15 to 18 of your own, prepared by `rapport migrate`").at(SECRET).named("DATABASE_URL");
    READ_DATABASE_URL = setting("read-database-url", Database, DATABASE, Words("none"),
        "a standby of that, which may answer whoever says how fresh an answer has to be").at(SECRET);
    DATA_DIR = setting("data-dir", Database, Form::Folder, Words("`rapport` in the XDG data home, `/var/lib/rapport` for root"),
        "where the private PostgreSQL keeps its data; before a `DATABASE_URL` that comes from a later source");
    POSTGRES_BIN = setting("postgres-bin", Database, Form::Folder, Words("found, or fetched into the data folder"),
        "the folder with PostgreSQL's programs");
    SYSTEM_POSTGRES = setting("system-postgres", Database, Form::Switch, Value("true"),
        "whether PostgreSQL's programs may be those of the machine");
    MAX_CONNECTIONS = setting("max-connections", Database, Form::Number(4, 1000), Value("10"),
        "the most connections to the database; three of them record; one more is for probes");
    SLOW_STATEMENT_MS = setting("slow-statement-ms", Database, Form::Number(1, 3_600_000), Value("1000"),
        "how long a statement may take before it is logged, without its values");

    SHUTDOWN_DELAY_SECONDS = setting("shutdown-delay-seconds", Ending, Form::Number(0, 3600), Value("0"),
        "how long calls are taken in after the server has told that it is no longer ready");
    DRAIN_LIMIT_SECONDS = setting("drain-limit-seconds", Ending, Form::Number(0, 3600), Value("20"),
        "how long calls may take to end at shutdown");

    LOG = setting("log", Telemetry, FILTER, Value("info"), "which log lines, such as `rapport=debug`");
    LOG_FORMAT_NAME = setting("log-format", Telemetry, LOG_FORMAT, Value("pretty"),
        "`pretty` or `json`, which names the trace in every line that belongs to one");
    METRICS_LISTEN = setting("metrics-listen", Telemetry, PROMETHEUS, Words("nowhere"),
        "where Prometheus can read metrics, at `/metrics` over plain HTTP, loopback or not: nothing personal is in them");
    OTLP_ENDPOINT = standard("OTEL_EXPORTER_OTLP_ENDPOINT", COLLECTOR, Words("nowhere"),
        "where traces and metrics are sent, such as `http://collector:4317`");
    OTLP_TRACES_ENDPOINT = standard("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", COLLECTOR, Words("as above"),
        "where traces are sent");
    OTLP_METRICS_ENDPOINT = standard("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", COLLECTOR, Words("as above"),
        "where metrics are sent");
    OTLP_PROTOCOL = standard("OTEL_EXPORTER_OTLP_PROTOCOL", Form::Text("NAME", "grpc"), Value("grpc"),
        "how they are sent: OTLP over gRPC");
    TRACES_EXPORTER = standard("OTEL_TRACES_EXPORTER", EXPORTER, Value("otlp"), "`none` sends no traces");
    METRICS_EXPORTER = standard("OTEL_METRICS_EXPORTER", EXPORTER, Value("otlp"), "`none` sends no metrics");
    SDK_DISABLED = standard("OTEL_SDK_DISABLED", Form::Switch, Value("false"), "`true` sends neither");
    SERVICE_NAME = standard("OTEL_SERVICE_NAME", NAME, Words("`rapport`"),
        "what this server is called wherever telemetry is read");
    RESOURCE_ATTRIBUTES = standard("OTEL_RESOURCE_ATTRIBUTES", ATTRIBUTES, Words("none"),
        "what else is said of it, such as `service.namespace=people`");
    TRACES_SAMPLER = standard("OTEL_TRACES_SAMPLER", SAMPLER, Value("parentbased_always_on"),
        "which traces are sent: `always_on`, `always_off` or `traceidratio`, with or without `parentbased_`");
    TRACES_SAMPLER_ARG = standard("OTEL_TRACES_SAMPLER_ARG", SHARE, Value("1"), "the share of `traceidratio`, 0 to 1");

    SERVER = setting("server", Client, SERVER_URL, Value("http://127.0.0.1:50051"), "the server's address").at(OF_COMMANDS);
    TENANT = setting("tenant", Client, NAME, Words("the caller's only one, or `default`; `bench` for `rapport bench`"),
        "the tenant").at(OF_COMMANDS);
    KEY_FILE = setting("key-file", Client, Form::File, Words("none"), "the file with the key or token to show").at(OF_COMMANDS);
    CLIENT_CERTIFICATE = setting("client-certificate", Client, Form::File, Words("none"),
        "the certificate to show to the server, followed by those that vouch for it, in PEM").at(OF_COMMANDS);
    CLIENT_KEY = setting("client-key", Client, Form::File, Words("none"), "the key of that certificate, in PEM").at(OF_COMMANDS);
    SERVER_AUTHORITIES = setting("server-authorities", Client, Form::File, Words("those of the machine"),
        "whose server certificates are believed, in PEM").at(OF_COMMANDS);
    SERVER_NAME = setting("server-name", Client, NAME, Words("the host in `--server`"),
        "what the server's certificate must be for").at(OF_COMMANDS);
}
