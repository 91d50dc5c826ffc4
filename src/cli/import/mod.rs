//! `rapport import`: record the interactions in a file through a running server, over its public API.
//!
//! A line's id is made from its content and number unless the file has ids, so importing a file again records nothing
//! twice. Lines that cannot be recorded go to a file of rejects with the reason; everything else goes on.

mod input;
mod mapping;
mod places;
mod progress;
mod rejects;
mod resume;
mod send;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::Args;

use crate::{evaluation::History, rpc, scoring::Act};

use super::{
    Failure, Finished,
    client::{Server, ServerArguments},
    print,
};

pub(super) use input::Input;
pub(super) use send::Totals;

use input::Format;
use mapping::{Line, Mapping};
use progress::Progress;
use rejects::Rejects;
use resume::Resume;

/// How a file of interactions is read.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct ReadingArguments {
    /// The format [default: by the file's name, else tsv]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Which column or field of the file holds what, as WHAT=COLUMN,…
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = mapping::parse_pair)]
    columns: Vec<(String, String)>,
    /// What the file's kinds mean, as WORD=KIND,…; kinds of Rapport's own need no mention
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = mapping::parse_kind)]
    kinds: Vec<(String, crate::domain::Kind)>,
    /// The kind of lines that name none
    #[arg(long, value_name = "KIND", value_parser = mapping::kind_named)]
    kind: Option<crate::domain::Kind>,
}

impl ReadingArguments {
    /// For a file whose columns and kinds are named by a map of WHAT to COLUMN and one of WORD to KIND.
    pub(super) fn new(columns: &BTreeMap<String, String>, kinds: &BTreeMap<String, String>) -> Result<Self, String> {
        let pairs = |map: &BTreeMap<String, String>| {
            map.iter().map(|(one, other)| format!("{one}={other}")).collect::<Vec<_>>()
        };
        Ok(Self {
            format: None,
            columns: pairs(columns).iter().map(|pair| mapping::parse_pair(pair)).collect::<Result<_, _>>()?,
            kinds: pairs(kinds).iter().map(|pair| mapping::parse_kind(pair)).collect::<Result<_, _>>()?,
            kind: None,
        })
    }

    /// A file of interactions, or standard input for `-`, whose lines get ids made with `id_prefix`, from behind line
    /// `after` on.
    fn open(self, file: &Path, channel: Option<String>, id_prefix: String, after: i64) -> Result<Input, Failure> {
        let format = self.format.unwrap_or_else(|| Format::of_name(&name_of(file)));
        let mapping = Mapping { columns: self.columns, kinds: self.kinds, kind: self.kind, channel, id_prefix };
        Input::open(file, format, mapping, after)
    }
}

fn name_of(file: &Path) -> String {
    let name = file.file_name().map_or_else(|| "stdin".into(), |name| name.to_string_lossy().into_owned());
    if name == "-" { "stdin".to_owned() } else { name }
}

#[derive(Args, Debug)]
#[command(
    after_help = "Columns and JSON fields: id, actor, recipients, time, kind, effort (a duration such as 2700s, 45m or \
                  1h30m) or effort_minutes (a number), audience_count, channel, topics, goal, unprompted (true or false), \
                  due_time, refers_to. Only actor, recipients, time and kind are needed; other columns are passed over. A \
                  time is a date (its start), such as 2018-09-02, or 2018-09-02T10:00, in UTC unless a zone follows, or \
                  seconds since 1970. Several recipients or topics are separated by ';', or are a list in JSON. JSON may \
                  also be that of the API, with interactionId, interactionTime and so on. Ids and words are normalized, and \
                  characters that the server refuses, such as joiners, are taken out of them; the summary says how many \
                  changed.\n\n\
                  Example: rapport import history.tsv.gz --columns actor=src,recipients=dst,time=ts_unix \
                        --kinds answer=HELP,comment=MESSAGE"
)]
pub(super) struct Arguments {
    /// The file, gzip or not; - reads standard input
    file: PathBuf,
    #[command(flatten)]
    reading: ReadingArguments,
    /// The channel of lines that name none
    #[arg(long, value_name = "WORD")]
    channel: Option<String>,
    /// What the ids of lines without an id are made from, with the line's number and text: the same prefix for the same
    /// file, so that importing it again records nothing twice, and another for another [default: the file's name,
    /// without .gz]
    #[arg(long, value_name = "WORD")]
    id_prefix: Option<String>,
    /// Where rejected lines go, as JSON Lines with the reason [default: the file's name with .rejects.jsonl, in the
    /// current folder]
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Remember here how far the import came, and go on from there when the same input is imported again after a break
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArguments,
}

pub(super) async fn run(arguments: Arguments) -> Result<Finished, Failure> {
    let name = name_of(&arguments.file);
    let rejects = arguments.rejects.unwrap_or_else(|| format!("{name}.rejects.jsonl").into());
    places::keep_apart(&arguments.file, &rejects, arguments.resume.as_deref())?;
    let server = arguments.server.server()?;
    let id_prefix = arguments.id_prefix.unwrap_or_else(|| name.trim_end_matches(".gz").to_owned());
    let resume = Resume::open(arguments.resume, &name)?;
    let input = arguments.reading.open(&arguments.file, arguments.channel, id_prefix, resume.place.line)?;
    let totals = send::send(&server, input, rejects, resume).await?;
    if totals.lines() == 0 {
        print::line(format_args!("{name} holds no interactions: it is empty, or has nothing below its heading."));
        return Ok(Finished::WithFindings);
    }
    print::line(&totals);
    Ok(if totals.rejected == 0 { Finished::Well } else { Finished::WithFindings })
}

/// Records all of an input that is known to be sound, and tells what came of it.
pub(super) async fn record_all(server: &Server, input: Input) -> Result<Totals, Failure> {
    send::send(server, input, "rejects.jsonl".into(), Resume::open(None, "")?).await
}

/// The history in a file, and how many of its lines were passed over: toward oneself, and such as cannot be recorded.
pub(super) fn read_history(file: &Path, reading: ReadingArguments) -> Result<(History, usize), Failure> {
    let input = reading.open(file, None, name_of(file), 0)?;
    let (mut history, mut passed_over) = (History::default(), 0);
    input.read(|line| {
        let interaction = match line.line {
            Line::Interaction(interaction) => rpc::interaction(*interaction).ok(),
            Line::TowardSelf | Line::Rejected(_) => None,
        };
        match interaction {
            Some(interaction) => interaction
                .recipients
                .iter()
                .for_each(|recipient| history.add(&interaction.actor, recipient, Act::of(&interaction))),
            None => passed_over += 1,
        }
        true
    })?;
    Ok((history.in_order(), passed_over))
}

#[cfg(test)]
mod fuzz;
