//! Settings as flags of commands: all that `config` declares of some groups.

use std::marker::PhantomData;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::config::{Flags, Form, Group, Otherwise, SETTINGS, Setting, Source};

/// Which settings a command has flags for.
pub(super) trait Groups {
    /// The groups they are in.
    const SHOWN: &'static [Group];
}

/// Everything that a server can be told.
#[derive(Clone, Debug)]
pub(super) struct OfServer;

impl Groups for OfServer {
    const SHOWN: &'static [Group] = &[
        Group::File,
        Group::Listening,
        Group::Access,
        Group::Limits,
        Group::Database,
        Group::Ending,
        Group::Telemetry,
    ];
}

/// Which database to work on.
#[derive(Clone, Debug)]
pub(super) struct OfDatabase;

impl Groups for OfDatabase {
    const SHOWN: &'static [Group] = &[Group::File, Group::Database];
}

/// How to reach a server.
#[derive(Clone, Debug)]
pub(super) struct OfClient;

impl Groups for OfClient {
    const SHOWN: &'static [Group] = &[Group::Client];
}

/// What was given on the command line of some groups of settings.
#[derive(Clone, Debug)]
pub(super) struct SettingArguments<G> {
    pub flags: Flags,
    groups: PhantomData<G>,
}

impl<G> From<Flags> for SettingArguments<G> {
    fn from(flags: Flags) -> Self {
        Self { flags, groups: PhantomData }
    }
}

fn shown<G: Groups>() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| G::SHOWN.contains(&setting.group) && setting.is_from(Source::Flag))
}

impl<G: Groups> Args for SettingArguments<G> {
    fn augment_args(command: Command) -> Command {
        shown::<G>().map(argument).fold(command, Command::arg)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<G: Groups> FromArgMatches for SettingArguments<G> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Flags::default();
        for setting in shown::<G>() {
            for text in matches.get_many::<String>(setting.name).into_iter().flatten() {
                flags.add(setting, text);
            }
        }
        Ok(flags.into())
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A flag that takes any text, any number of times: what is wrong with it is told with all that is wrong elsewhere.
fn argument(setting: &'static Setting) -> Arg {
    let argument = Arg::new(setting.name)
        .long(setting.name)
        .value_name(setting.form.placeholder())
        .action(ArgAction::Append)
        .allow_negative_numbers(true)
        .help_heading(setting.group.heading())
        .help(help(setting));
    if setting.form == Form::Switch {
        return argument.num_args(0..=1).require_equals(true).default_missing_value("true");
    }
    argument
}

fn help(setting: &Setting) -> String {
    let mut about = setting.about.to_owned();
    if let Some(first) = about.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let range = match setting.form {
        Form::Number(from, to) => format!(" ({from} to {to})"),
        _ => String::new(),
    };
    let (Otherwise::Value(default) | Otherwise::Words(default)) = setting.otherwise;
    format!("{about}{range} [env: {}] [default: {}]", setting.variable(), default.replace('`', ""))
}
