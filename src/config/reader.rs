//! Where settings are looked for, and what is wrong with them: every fault is noted, with the flag, the variable or the line
//! of the settings file that it is in. What a setting says is in no fault: it may be a secret.

use std::{collections::HashMap, net::SocketAddr, path::PathBuf};

use toml::de::{DeTable, DeValue};

use crate::files::{MEBIBYTE, bounded_text};

use super::{
    ConfigError, Environment,
    settings::{Form, Otherwise, SETTINGS, SETTINGS_FILE, Setting, Source},
};

/// The largest settings file, in bytes.
const MAX_BYTES: u64 = MEBIBYTE;

/// Settings given on the command line, as they were written.
#[derive(Clone, Debug, Default)]
pub struct Flags(Vec<(&'static str, String)>);

impl Flags {
    /// Adds one. Each may be given once; more are a fault.
    pub fn add(&mut self, setting: &Setting, text: impl Into<String>) {
        self.0.push((setting.name, text.into()));
    }

    /// The same flags, with this one instead of any other for the setting.
    #[must_use]
    pub fn with(mut self, setting: &Setting, text: impl Into<String>) -> Self {
        self.0.retain(|(name, _)| *name != setting.name);
        self.add(setting, text);
        self
    }

    fn of(&self, setting: &Setting) -> impl Iterator<Item = &String> {
        self.0.iter().filter(|(name, _)| *name == setting.name).map(|(_, text)| text)
    }
}

/// What a settings file says.
struct File {
    name: String,
    values: HashMap<String, (usize, Typed)>,
}

/// A value in a settings file, as a text; `None` when it is of no kind that settings have.
struct Typed {
    kind: Option<Kind>,
    text: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Switch,
}

/// A setting as it was given.
struct Given {
    source: Source,
    /// Where, for whoever has to change it.
    place: String,
    /// `None` when it is not of the right kind.
    text: Option<String>,
}

/// Looks for settings, and notes what is wrong with them.
pub(super) struct Reader<'a> {
    flags: Flags,
    pub environment: Environment<'a>,
    file: Option<File>,
    pub faults: Vec<String>,
}

impl<'a> Reader<'a> {
    /// Looks on the command line, in the environment, and in the settings file that one of them names.
    pub(super) fn new(flags: Flags, environment: Environment<'a>) -> Self {
        let mut reader = Self::without_file(flags, environment);
        if let Some(path) = reader.path(&SETTINGS_FILE) {
            match bounded_text(&path, MAX_BYTES) {
                Ok(text) => reader.file = Some(parsed(&path.display().to_string(), &text, &mut reader.faults)),
                Err(error) => {
                    let place = reader.given(&SETTINGS_FILE).map(|given| given.place).unwrap_or_default();
                    reader.faults.push(format!("{place}: {}: {error}", path.display()));
                }
            }
        }
        reader
    }

    /// Looks on the command line and in the environment.
    pub(super) fn without_file(flags: Flags, environment: Environment<'a>) -> Self {
        Self { flags, environment, file: None, faults: Vec::new() }
    }

    /// What was read, if nothing was wrong.
    pub(super) fn finish<T>(self, value: Option<T>) -> Result<T, ConfigError> {
        value.filter(|_| self.faults.is_empty()).ok_or(ConfigError(self.faults))
    }

    fn given(&self, setting: &Setting) -> Option<Given> {
        let of_flag = || {
            let text = self.flags.of(setting).next()?.clone();
            Some(Given { source: Source::Flag, place: setting.flag(), text: Some(text) })
        };
        let of_environment = || {
            let place = setting.variable();
            let text = (self.environment)(&place)?;
            Some(Given { source: Source::Environment, place, text: Some(text) })
        };
        let of_file = || {
            let (File { name, values }, key) = (self.file.as_ref()?, setting.key());
            let (line, value) = values.get(&key)?;
            let text = value.kind.filter(|kind| *kind == kind_of(setting.form)).map(|_| value.text.clone());
            Some(Given { source: Source::File, place: format!("{name}:{line}: {key}"), text })
        };
        let any = |source: Source| match source {
            Source::Flag => of_flag(),
            Source::Environment => of_environment(),
            Source::File => of_file(),
        };
        setting.sources.iter().find_map(|source| any(*source))
    }

    /// Where a setting is given.
    pub(super) fn source(&self, setting: &Setting) -> Option<Source> {
        self.given(setting).map(|given| given.source)
    }

    /// A setting, or its default if it has one.
    pub(super) fn read<T>(&mut self, setting: &Setting, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        if self.flags.of(setting).count() > 1 {
            self.faults.push(format!("{} is given more than once", setting.flag()));
        }
        let Some(given) = self.given(setting) else {
            return match setting.otherwise {
                Otherwise::Value(text) => parse(text),
                Otherwise::Words(_) => None,
            };
        };
        let value = given.text.as_deref().and_then(parse);
        if value.is_none() {
            self.faults.push(format!("{} must be {}", given.place, setting.form.expected()));
        }
        value
    }

    pub(super) fn text(&mut self, setting: &Setting) -> Option<String> {
        self.read(setting, |text| Some(text.to_owned()))
    }

    pub(super) fn path(&mut self, setting: &Setting) -> Option<PathBuf> {
        self.read(setting, |text| Some(text.into()))
    }

    pub(super) fn address(&mut self, setting: &Setting) -> Option<SocketAddr> {
        self.read(setting, |text| text.parse().ok())
    }

    pub(super) fn switch(&mut self, setting: &Setting) -> bool {
        self.read(setting, |text| text.parse().ok()).unwrap_or_default()
    }

    pub(super) fn number(&mut self, setting: &Setting) -> u32 {
        let Form::Number(from, to) = setting.form else { return 0 };
        let within = |text: &str| text.parse().ok().filter(|number| (from..=to).contains(number));
        self.read(setting, within).unwrap_or_default()
    }
}

fn kind_of(form: Form) -> Kind {
    match form {
        Form::Number(..) => Kind::Number,
        Form::Switch => Kind::Switch,
        Form::Address(_) | Form::File | Form::Folder | Form::Text(..) => Kind::Text,
    }
}

/// What a settings file says, as far as it can be read; everything that is wrong with it is noted.
fn parsed(name: &str, text: &str, faults: &mut Vec<String>) -> File {
    let (table, errors) = DeTable::parse_recoverable(text);
    let line = |place: usize| text.bytes().take(place).filter(|byte| *byte == b'\n').count() + 1;
    let broken: Vec<usize> = errors.iter().filter_map(|error| Some(line(error.span()?.start))).collect();
    for error in &errors {
        // What it would display holds the line itself.
        let line = error.span().map_or(1, |span| line(span.start));
        faults.push(format!("{name}:{line}: {}", error.message().replace('\n', ", ")));
    }
    let mut values = HashMap::new();
    for (key, value) in table.get_ref() {
        let (line, key) = (line(key.span().start), key.get_ref());
        if !SETTINGS.iter().any(|setting| setting.is_from(Source::File) && setting.key() == **key) {
            faults.push(format!("{name}:{line}: {} is no setting", key.escape_debug()));
        } else if !broken.contains(&line) {
            values.insert(key.to_string(), (line, typed(value.get_ref())));
        }
    }
    File { name: name.to_owned(), values }
}

fn typed(value: &DeValue<'_>) -> Typed {
    let (kind, text) = match value {
        DeValue::String(text) => (Some(Kind::Text), text.to_string()),
        DeValue::Integer(number) => (Some(Kind::Number), decimal(number.as_str(), number.radix())),
        DeValue::Boolean(switch) => (Some(Kind::Switch), switch.to_string()),
        _ => (None, String::new()),
    };
    Typed { kind, text }
}

fn decimal(digits: &str, radix: u32) -> String {
    i64::from_str_radix(digits, radix).map_or_else(|_| digits.to_owned(), |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Database, settings as on};

    /// What a server is told by flags, variables and a file.
    fn told(flags: Flags, variables: &[(&str, &str)], file: &str) -> Result<Config, Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rapport.toml");
        std::fs::write(&path, file).unwrap();
        let flags = flags.with(&SETTINGS_FILE, path.to_str().unwrap());
        let environment =
            |name: &str| variables.iter().find(|(variable, _)| *variable == name).map(|(_, text)| (*text).to_owned());
        let at = format!("{}:", path.display());
        Config::read(flags, &environment)
            .map_err(|ConfigError(faults)| faults.iter().map(|fault| fault.replace(&at, "file:")).collect())
    }

    #[test]
    fn flags_come_before_the_environment_and_that_before_the_file() {
        let file = "max_calls = 1\ntenant_calls = 1\ntenant_rate = 1_0\ninsecure = true\nlisten = '[::]:1'";
        let variables =
            [("RAPPORT_MAX_CALLS", "2"), ("RAPPORT_TENANT_CALLS", "2"), ("DATABASE_URL", "postgresql://a/b")];
        let config = told(Flags::default().with(&on::MAX_CALLS, "3"), &variables, file).unwrap();
        let admission = &config.admission;
        assert_eq!((admission.calls, admission.tenant_calls, admission.tenant_rate), (3, 2, 10));
        assert_eq!((config.listen.port(), config.databases.max_connections), (1, 10));
    }

    #[test]
    fn the_database_is_that_of_the_earlier_source() {
        let url = |database| matches!(database, Database::Url(_));
        let read = |flags, variables: &[_], file: &str| url(told(flags, variables, file).unwrap().databases.primary);
        let (variable, key) = ([("DATABASE_URL", "postgresql://a/b")], "database_url = 'postgresql://a/b'");
        assert!(read(Flags::default(), &variable, "data_dir = '/d'"));
        assert!(read(Flags::default(), &[], &format!("data_dir = '/d'\n{key}")));
        assert!(!read(Flags::default(), &[("RAPPORT_DATA_DIR", "/d")], key));
        assert!(!read(Flags::default().with(&on::DATA_DIR, "/d"), &variable, key));
    }

    #[test]
    fn everything_that_is_wrong_anywhere_is_told_at_once() {
        let file = "max_calls = 'many'\n\ntenant_rate = 1_000_001\nlisten = 50051\nmax_cals = 1\n\
                    insecure = true\ninsecure = false\nanswer_cache_mib = \nfuture_limit_seconds = 1.5\n[limits]\na = 1";
        let mut flags = Flags::default().with(&on::HEALTH_LISTEN, "here");
        flags.add(&on::MAX_CONNECTIONS, "8");
        flags.add(&on::MAX_CONNECTIONS, "9");
        let variables = [("DATABASE_URL", "mysql://a:secret@b/c"), ("RAPPORT_DRAIN_LIMIT_SECONDS", "-1")];
        let mut faults = told(flags, &variables, file).unwrap_err();
        faults.sort_unstable();
        let expected = [
            "--health-listen must be an IP address with a port, such as 127.0.0.1:50051",
            "--max-connections is given more than once",
            "DATABASE_URL must be an address such as postgresql://user@host/database",
            "RAPPORT_DRAIN_LIMIT_SECONDS must be a whole number from 0 to 3600",
            "file:10: limits is no setting",
            "file:1: max_calls must be a whole number from 1 to 1000000",
            "file:3: tenant_rate must be a whole number from 0 to 1000000",
            "file:4: listen must be an IP address with a port, such as 127.0.0.1:50051",
            "file:5: max_cals is no setting",
            "file:7: duplicate key",
            "file:8: string values must be quoted, expected literal string",
            "file:9: future_limit_seconds must be a whole number from 0 to 86400",
        ];
        assert_eq!(faults, expected);
    }

    #[test]
    fn what_the_file_holds_is_never_told() {
        let told =
            told(Flags::default(), &[], "database_url = \"secret\nlog = secret\ndatabase_url = 'secret'\n= secret");
        let faults = told.unwrap_err().join("\n");
        assert!(!faults.contains("secret") && faults.lines().count() > 2, "{faults}");
        let environment = |name: &str| (name == "RAPPORT_SETTINGS").then(|| "/nonexistent".to_owned());
        let ConfigError(faults) = Config::read(Flags::default(), &environment).unwrap_err();
        assert!(faults[0].starts_with("RAPPORT_SETTINGS: /nonexistent: No such file"), "{faults:?}");
    }

    #[test]
    fn every_setting_has_a_name_of_its_own_and_a_default_that_holds() {
        let environment = |_: &str| None;
        let mut reader = Reader::new(Flags::default(), &environment);
        for (place, setting) in SETTINGS.iter().enumerate() {
            assert!(SETTINGS[..place].iter().all(|other| other.name != setting.name), "{}", setting.name);
            let Otherwise::Value(default) = setting.otherwise else { continue };
            match setting.form {
                Form::Number(..) => assert_eq!(reader.number(setting).to_string(), default, "{}", setting.name),
                Form::Switch => assert_eq!(reader.switch(setting).to_string(), default, "{}", setting.name),
                Form::Address(_) => assert_eq!(reader.address(setting).unwrap().to_string(), default),
                Form::File | Form::Folder | Form::Text(..) => {}
            }
        }
        assert!(Config::read(Flags::default(), &|name| (name == "HOME").then(|| "/home".to_owned())).is_ok());
    }
}
