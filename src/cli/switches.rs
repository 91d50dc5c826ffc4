//! Switches, in every form that people write them in: `--flag`, `--flag=false` and `--flag false`. The parser of the command line
//! knows the first two of some switches and the first of others; here each becomes one that it knows.

use std::{ffi::OsString, iter::Peekable};

use clap::{Arg, ArgAction, Command};

/// Arguments with their switches in the forms that the parser knows. The word behind a switch belongs to it when that word is
/// `true` or `false`; all behind `--` stays as it is.
pub(super) fn spelled(top: &Command, arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments = arguments.into_iter().peekable();
    let (mut command, mut spelled) = (top, Vec::new());
    // The program's own name comes first.
    spelled.extend(arguments.next());
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            spelled.push(argument);
            spelled.extend(arguments);
            break;
        }
        if let Some(inner) = command.find_subcommand(&argument) {
            command = inner;
        }
        match Switch::of(command, &argument) {
            Some(switch) => spelled.extend(switch.spelled(argument, &mut arguments)),
            None => spelled.push(argument),
        }
    }
    spelled
}

/// A switch among the arguments.
struct Switch {
    /// Its flag, with the dashes.
    flag: String,
    /// What is written behind `=`.
    value: Option<String>,
    /// The parser knows `--flag=false` of it.
    takes_value: bool,
}

impl Switch {
    fn of(command: &Command, argument: &OsString) -> Option<Self> {
        let text = argument.to_str()?;
        let (flag, value) = text.split_once('=').map_or((text, None), |(flag, value)| (flag, Some(value.to_owned())));
        let name = flag.strip_prefix("--")?;
        let known = command.get_arguments().find(|known| known.get_long() == Some(name))?;
        let takes_value = takes_value(known);
        let is_switch = takes_value || matches!(known.get_action(), ArgAction::SetTrue);
        is_switch.then(|| Self { flag: flag.to_owned(), value, takes_value })
    }

    fn spelled(self, argument: OsString, rest: &mut Peekable<impl Iterator<Item = OsString>>) -> Option<OsString> {
        let next = || rest.next_if(|word| word == "true" || word == "false")?.into_string().ok();
        let value = self.value.or_else(next);
        match value.as_deref() {
            Some(value) if self.takes_value => Some(format!("{}={value}", self.flag).into()),
            Some("true") => Some(self.flag.into()),
            Some("false") => None,
            // Of a value that is neither, the parser says that there should be none.
            _ => Some(argument),
        }
    }
}

/// True for a flag that may have a value, but only behind `=`.
fn takes_value(known: &Arg) -> bool {
    known.is_require_equals_set() && known.get_num_args().is_some_and(|count| count.min_values() == 0)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    fn of(line: &str) -> String {
        let words = line.split(' ').map(OsString::from);
        let spelled = spelled(&Cli::command(), words);
        spelled.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_switch_is_taken_in_every_form() {
        for (written, known) in [
            ("rapport serve --system-postgres false", "rapport serve --system-postgres=false"),
            ("rapport serve --system-postgres=false --sample", "rapport serve --system-postgres=false --sample"),
            ("rapport serve --insecure --sample", "rapport serve --insecure --sample"),
            ("rapport backtest --system-postgres true a.csv", "rapport backtest --system-postgres=true a.csv"),
            ("rapport rank ada --json true", "rapport rank ada --json"),
            ("rapport rank --json=true ada", "rapport rank --json ada"),
            ("rapport rank ada --json=false --limit 3", "rapport rank ada --limit 3"),
            ("rapport policy list --json false", "rapport policy list"),
        ] {
            assert_eq!(of(written), known);
        }
    }

    #[test]
    fn all_else_stays_as_it_is() {
        for line in [
            "rapport rank true --json",
            "rapport backtest --system-postgres a.csv",
            "rapport rank ada --json=perhaps",
            "rapport rank -- --json false",
            "rapport serve --listen false",
            "rapport import a.csv --kind false",
            "rapport nope --json false",
            "rapport",
        ] {
            assert_eq!(of(line), line);
        }
    }

    #[test]
    fn the_parser_knows_what_comes_of_it() {
        for line in ["rapport serve --insecure false", "rapport serve --sample false", "rapport rebuild --check true"] {
            let spelled = spelled(&Cli::command(), line.split(' ').map(OsString::from));
            assert!(Cli::command().try_get_matches_from(spelled).is_ok(), "{line}");
        }
    }
}
