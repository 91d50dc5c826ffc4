//! From the fields of a line to an interaction.

use std::{borrow::Cow, collections::HashMap};

use crate::{
    cli::{client, time},
    domain::{Kind, cleaned},
    rpc::pb,
};

/// The fields that an interaction is made of, as they are called in files.
pub(super) const FIELDS: [&str; 14] = [
    "id",
    "actor",
    "recipients",
    "time",
    "kind",
    "effort_minutes",
    "effort",
    "audience_count",
    "channel",
    "topics",
    "goal",
    "unprompted",
    "due_time",
    "refers_to",
];

/// The fields that hold ids and words.
const WORDS: [&str; 7] = ["id", "actor", "recipients", "channel", "topics", "goal", "refers_to"];

/// Which of a file's fields mean what.
#[derive(Clone, Debug, Default)]
pub(super) struct Mapping {
    pub columns: Vec<(String, String)>,
    pub kinds: Vec<(String, Kind)>,
    pub kind: Option<Kind>,
    pub channel: Option<String>,
    pub id_prefix: String,
}

/// What a line says, by the name of the field; lists are several values.
pub(super) type Fields = HashMap<&'static str, Vec<String>>;

/// What a line amounts to.
pub(super) enum Line {
    /// Something to record.
    Interaction(Box<pb::Interaction>),
    /// An act toward oneself, which says nothing about a relationship.
    TowardSelf,
    /// Something that cannot be recorded, and why.
    Rejected(String),
}

/// `WHAT=COLUMN`.
pub(super) fn parse_pair(text: &str) -> Result<(String, String), String> {
    let (field, column) = text.split_once('=').ok_or("must be WHAT=COLUMN")?;
    if FIELDS.contains(&field) {
        Ok((field.to_owned(), column.to_owned()))
    } else {
        Err(format!("WHAT must be one of {}", FIELDS.join(", ")))
    }
}

/// `WORD=KIND`.
pub(super) fn parse_kind(text: &str) -> Result<(String, Kind), String> {
    let (word, kind) = text.split_once('=').ok_or("must be WORD=KIND")?;
    Ok((word.to_owned(), kind_named(kind)?))
}

/// The kind of that name, with or without the API's prefix.
pub(super) fn kind_named(name: &str) -> Result<Kind, String> {
    let upper = name.to_uppercase();
    let short = upper.trim_start_matches("INTERACTION_KIND_");
    let known = Kind::ALL.into_iter().find(|kind| kind.name() == short);
    known.ok_or_else(|| format!("a kind is one of {}", Kind::ALL.map(Kind::name).join(", ")))
}

impl Mapping {
    /// The name that a field has in the file, and what else it may be called.
    pub(super) fn names(&self, field: &'static str) -> Vec<&str> {
        let mapped = self.columns.iter().find(|(name, _)| name == field);
        if let Some((_, column)) = mapped {
            return vec![column];
        }
        let others: &[&str] = match field {
            "id" => &["interaction_id", "interactionId"],
            "time" => &["interaction_time", "interactionTime"],
            "recipients" => &["recipient"],
            "audience_count" => &["audienceCount"],
            "due_time" => &["dueTime"],
            "refers_to" => &["refersTo"],
            _ => &[],
        };
        // A column that is said to hold something else holds only that.
        let is_free = |name: &&str| !self.columns.iter().any(|(_, column)| column == name);
        std::iter::once(field).chain(others.iter().copied()).filter(is_free).collect()
    }

    /// Whether a file with a heading is of no use without a column for the field.
    pub(super) fn needs_column(&self, field: &str) -> bool {
        match field {
            "actor" | "recipients" | "time" => true,
            "kind" if self.kind.is_none() => true,
            _ => self.columns.iter().any(|(name, _)| name == field),
        }
    }

    /// What a line with these fields amounts to, and how many of its ids and words were cleaned. `number` and `text` are what an id is made of when it has none.
    pub(super) fn line(&self, mut fields: Fields, number: i64, text: &str) -> (Line, u64) {
        match clean(&mut fields) {
            Ok(count) => (self.clean_line(fields, number, text), count),
            Err(reason) => (Line::Rejected(reason), 0),
        }
    }

    fn clean_line(&self, mut fields: Fields, number: i64, text: &str) -> Line {
        let recipients = fields.remove("recipients").unwrap_or_default();
        let topics = fields.remove("topics").unwrap_or_default();
        if let Some((field, _)) = fields.iter().find(|(_, values)| values.len() > 1) {
            return Line::Rejected(format!("{field} must be one value"));
        }
        let mut fields: HashMap<&str, String> = fields
            .into_iter()
            .filter_map(|(field, values)| Some((field, values.into_iter().next()?)))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        let actor = fields.remove("actor").unwrap_or_default();
        if !actor.is_empty() && recipients.iter().all(|recipient| *recipient == actor) && !recipients.is_empty() {
            return Line::TowardSelf;
        }
        let id = fields.remove("id").unwrap_or_else(|| self.made_id(number, text));
        let made = self.interaction(id, actor, recipients, topics, &fields);
        made.map_or_else(Line::Rejected, |interaction| Line::Interaction(Box::new(interaction)))
    }

    fn interaction(
        &self,
        interaction_id: String,
        actor: String,
        recipients: Vec<String>,
        topics: Vec<String>,
        fields: &HashMap<&str, String>,
    ) -> Result<pb::Interaction, String> {
        let text = |field: &str| fields.get(field).cloned().unwrap_or_default();
        let time = |field: &str| {
            let parse = |text: &String| time::parse(text).map_err(|error| format!("{field}: {error}"));
            fields.get(field).map(parse).transpose().map(|time| time.map(client::to_wire))
        };
        let channel = fields.get("channel").or(self.channel.as_ref()).cloned().unwrap_or_default();
        Ok(pb::Interaction {
            interaction_id,
            actor,
            recipients,
            interaction_time: time("time")?,
            kind: self.kind(fields.get("kind"))?.number().into(),
            effort: effort(fields)?,
            audience_count: fields
                .get("audience_count")
                .map_or(Ok(0), |text| text.parse().map_err(|_| "audience_count must be a whole number"))?,
            channel,
            topics,
            goal: text("goal"),
            unprompted: fields.get("unprompted").map_or(Ok(false), |text| {
                text.to_lowercase().parse().map_err(|_| "unprompted must be true or false")
            })?,
            due_time: time("due_time")?,
            refers_to: text("refers_to"),
        })
    }

    fn kind(&self, text: Option<&String>) -> Result<Kind, String> {
        let Some(text) = text else {
            return self.kind.ok_or_else(|| "the line names no kind, and --kind is not given".to_owned());
        };
        match self.kinds.iter().find(|(word, _)| word == text) {
            Some((_, kind)) => Ok(*kind),
            None => kind_named(text).map_err(|error| format!("kind is not known; --kinds can map it; {error}")),
        }
    }

    fn made_id(&self, number: i64, text: &str) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.id_prefix.as_bytes()).update(&[0]).update(&number.to_le_bytes()).update(text.as_bytes());
        let digest = hasher.finalize().to_hex();
        format!("import-{}", digest.chars().take(32).collect::<String>())
    }
}

/// Takes characters out of ids and words that the server refuses, and normalizes the rest: what a person reads stays. Tells how
/// many values that changed, or which field has nothing left.
fn clean(fields: &mut Fields) -> Result<u64, String> {
    let mut count = 0;
    for (field, values) in fields.iter_mut().filter(|(field, _)| WORDS.contains(*field)) {
        for value in values.iter_mut().filter(|value| !value.is_empty()) {
            let Cow::Owned(clean) = cleaned(value) else { continue };
            if clean.is_empty() {
                return Err(format!("{field} holds nothing but white space and characters that show nothing"));
            }
            (*value, count) = (clean, count + 1);
        }
    }
    Ok(count)
}

/// The effort, which may be given in minutes, or as a duration.
fn effort(fields: &HashMap<&str, String>) -> Result<Option<prost_types::Duration>, String> {
    let seconds = match (fields.get("effort_minutes"), fields.get("effort")) {
        (Some(_), Some(_)) => return Err("effort and effort_minutes must not both be given".to_owned()),
        (Some(minutes), None) => minutes.parse::<f64>().map_err(|_| "effort_minutes must be a number")? * 60.0,
        (None, Some(text)) => seconds(text)
            .ok_or("effort must be a duration such as 2700s, 45m or 1h30m; effort_minutes is a number of minutes")?,
        (None, None) => return Ok(None),
    };
    let effort = std::time::Duration::try_from_secs_f64(seconds).ok().and_then(|effort| effort.try_into().ok());
    effort.map(Some).ok_or_else(|| "the effort must be at least 0".to_owned())
}

/// The seconds of a duration such as `2700s`, `45m`, `1h30m` or, as the API's JSON has it, `90.5s`.
fn seconds(text: &str) -> Option<f64> {
    let (mut rest, mut seconds) = (text, 0.0);
    for (unit, of_unit) in [('h', 3600.0), ('m', 60.0), ('s', 1.0)] {
        if let Some((number, behind)) = rest.split_once(unit) {
            let is_plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            seconds += number.parse::<f64>().ok().filter(|_| is_plain)? * of_unit;
            rest = behind.trim_start();
        }
    }
    (rest.is_empty() && !text.is_empty()).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_hours_minutes_and_seconds() {
        for (text, expected) in [
            ("2700s", 2700.0),
            ("45m", 2700.0),
            ("1h30m", 5400.0),
            ("1h 0m 1s", 3601.0),
            ("90.5s", 90.5),
            ("0.5h", 1800.0),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for text in ["", "45", "m", "h30m", "30m1h", "-5s", "1e3s", "infs", "45min", "1d", "1h30"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn an_effort_is_given_once() {
        let given = |fields: &[(&'static str, &str)]| {
            effort(&fields.iter().map(|(name, text)| (*name, (*text).to_owned())).collect())
        };
        let minutes = given(&[("effort_minutes", "45")]).unwrap();
        assert_eq!(minutes.map(|effort| effort.seconds), Some(2700));
        assert_eq!(given(&[("effort", "45m")]).unwrap(), minutes);
        assert_eq!(given(&[]), Ok(None));
        for (fields, words) in [
            (&[("effort", "45")][..], "effort must be a duration such as 2700s, 45m or 1h30m"),
            (&[("effort_minutes", "45m")], "effort_minutes must be a number"),
            (&[("effort", "45m"), ("effort_minutes", "45")], "effort and effort_minutes must not both be given"),
            (&[("effort_minutes", "-1")], "the effort must be at least 0"),
        ] {
            assert!(given(fields).unwrap_err().contains(words), "{words}");
        }
    }
}
