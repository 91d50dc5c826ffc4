//! One interaction: drafted by a caller, parsed with every fault collected, and from then on known to be sound.

use std::time::Duration;

use super::{Channel, Faults, Goal, InteractionId, Kind, PersonId, Timestamp, Topic, WordError};

/// The most recipients of one interaction.
pub const MAX_RECIPIENTS: usize = 100;
/// How many faulty recipients are named one by one; errors of more would be larger than many clients take.
const MAX_NAMED_RECIPIENTS: usize = 16;
/// The most topics of one interaction.
pub const MAX_TOPICS: usize = 16;
/// The longest effort, in days.
pub const MAX_EFFORT_DAYS: u64 = 30;
/// The largest audience.
pub const MAX_AUDIENCE: u32 = 1_000_000_000;

/// An interaction as a caller describes it, nothing checked yet but what the wire's types check.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// The caller's id, if any.
    pub interaction_id: Option<String>,
    /// Who acted.
    pub actor: String,
    /// Toward whom.
    pub recipients: Vec<String>,
    /// When.
    pub interaction_time: Option<Timestamp>,
    /// What was done.
    pub kind: Option<Kind>,
    /// The actor's own time it took.
    pub effort: Option<Duration>,
    /// How many people it reached; 0 for the recipients alone.
    pub audience_count: i64,
    /// Where; empty for not said.
    pub channel: String,
    /// About what.
    pub topics: Vec<String>,
    /// For which goal of the recipient; empty for none.
    pub goal: String,
    /// Whether nobody had asked for it.
    pub unprompted: bool,
    /// When it falls due.
    pub due_time: Option<Timestamp>,
    /// Which interaction it refers to; empty for none.
    pub refers_to: String,
}

/// One directed act by an actor toward one or more recipients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interaction {
    /// Unique within the tenant.
    pub id: InteractionId,
    /// Who acted.
    pub actor: PersonId,
    /// Toward whom: at least one, in order of bytes, all different, never the actor.
    pub recipients: Vec<PersonId>,
    /// When.
    pub time: Timestamp,
    /// What was done.
    pub kind: Kind,
    /// The actor's own time it took, in whole microseconds.
    pub effort: Option<Duration>,
    /// How many people it reached, at least the recipients.
    pub group_size: u32,
    /// Where.
    pub channel: Option<Channel>,
    /// About what, in order of bytes, all different.
    pub topics: Vec<Topic>,
    /// For which goal of the recipient.
    pub goal: Option<Goal>,
    /// Whether nobody had asked for it.
    pub unprompted: bool,
    /// When it falls due; only of a promise or an ask.
    pub due_time: Option<Timestamp>,
    /// Which interaction it refers to.
    pub refers_to: Option<InteractionId>,
}

impl Interaction {
    /// The interaction in `draft`, or every fault of it, with fields named below `interaction`. `latest` is the latest time
    /// it may have happened; `made_id` makes its id when the caller gave none; `faults` are those that are known already.
    pub fn parse(
        draft: &Draft,
        latest: Timestamp,
        made_id: impl FnOnce() -> Result<InteractionId, WordError>,
        mut faults: Faults,
    ) -> Result<Self, Faults> {
        let id = draft.interaction_id.as_deref().map_or_else(made_id, InteractionId::parse);
        let id = faults.take("interaction.interaction_id", id);
        let actor = faults.take("interaction.actor", PersonId::parse(&draft.actor));
        let recipients = parse_recipients(draft, &mut faults);
        let time = parse_time(draft, latest, &mut faults);
        let kind = faults.take("interaction.kind", draft.kind.ok_or("must be one of the named kinds"));
        let effort = parse_effort(draft, &mut faults);
        let group_size = parse_group_size(draft, &mut faults);
        let channel = parse_optional(&draft.channel, "interaction.channel", Channel::parse, &mut faults);
        let topics = parse_topics(&draft.topics, &mut faults);
        let goal = parse_optional(&draft.goal, "interaction.goal", Goal::parse, &mut faults);
        let due_time = parse_due(draft, &mut faults);
        let refers_to = parse_refers_to(draft, &mut faults);
        let sound = (|| {
            Some(Self {
                id: id?,
                actor: actor?,
                recipients,
                time: time?,
                kind: kind?,
                effort,
                group_size,
                channel,
                topics,
                goal,
                unprompted: draft.unprompted,
                due_time,
                refers_to,
            })
        })();
        faults.or(sound)
    }

    /// A digest of everything that the caller said: equal exactly when the content is equal.
    pub fn fingerprint(&self) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&bytes.len().to_le_bytes());
            hasher.update(bytes);
        };
        part(self.actor.as_str().as_bytes());
        part(&self.time.micros().to_le_bytes());
        part(&[self.kind.number(), u8::from(self.unprompted)]);
        part(&self.effort.map(|effort| effort.as_nanos().to_le_bytes().to_vec()).unwrap_or_default());
        part(&self.group_size.to_le_bytes());
        part(&self.due_time.map(|due| due.micros().to_le_bytes().to_vec()).unwrap_or_default());
        part(self.channel.as_ref().map_or("", Channel::as_str).as_bytes());
        part(self.goal.as_ref().map_or("", Goal::as_str).as_bytes());
        part(self.refers_to.as_ref().map_or("", InteractionId::as_str).as_bytes());
        part(&self.recipients.len().to_le_bytes());
        self.recipients.iter().for_each(|recipient| part(recipient.as_str().as_bytes()));
        self.topics.iter().for_each(|topic| part(topic.as_str().as_bytes()));
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        fingerprint
    }
}

fn parse_recipients(draft: &Draft, faults: &mut Faults) -> Vec<PersonId> {
    if !(1..=MAX_RECIPIENTS).contains(&draft.recipients.len()) {
        faults.add("interaction.recipients", format!("must name 1 to {MAX_RECIPIENTS} persons"));
        return Vec::new();
    }
    let mut recipients = Vec::with_capacity(draft.recipients.len());
    let faults_before = faults.list().len();
    for (index, recipient) in draft.recipients.iter().enumerate() {
        let field = format_args!("interaction.recipients[{index}]");
        if !recipient.is_empty() && *recipient == draft.actor {
            faults.add(field, "must not be the actor");
        } else if draft.recipients[..index].contains(recipient) {
            faults.add(field, "must not be named twice");
        } else {
            recipients.extend(faults.take(field, PersonId::parse(recipient)));
        }
        if faults.list().len() - faults_before == MAX_NAMED_RECIPIENTS {
            break;
        }
    }
    recipients.sort_unstable();
    recipients
}

fn parse_time(draft: &Draft, latest: Timestamp, faults: &mut Faults) -> Option<Timestamp> {
    match draft.interaction_time {
        None => faults.add("interaction.interaction_time", "must be a time between 1970-01-01 and 9999-12-31"),
        Some(time) if time > latest => {
            faults.add("interaction.interaction_time", "must not lie further in the future than the server allows");
        }
        Some(time) => return Some(time),
    }
    None
}

fn parse_effort(draft: &Draft, faults: &mut Faults) -> Option<Duration> {
    let effort = draft.effort?;
    if effort > Duration::from_secs(MAX_EFFORT_DAYS * 86_400) {
        faults.add("interaction.effort", format!("must lie between 0 and {MAX_EFFORT_DAYS} days"));
    }
    Some(Duration::from_micros(u64::try_from(effort.as_micros()).unwrap_or(u64::MAX)))
}

fn parse_group_size(draft: &Draft, faults: &mut Faults) -> u32 {
    let named = u32::try_from(draft.recipients.len()).unwrap_or(u32::MAX);
    match u32::try_from(draft.audience_count) {
        Ok(0) => named,
        Ok(audience) if (named..=MAX_AUDIENCE).contains(&audience) => audience,
        _ => {
            faults.add(
                "interaction.audience_count",
                format!("must be 0, or from the number of recipients to {MAX_AUDIENCE}"),
            );
            named
        }
    }
}

fn parse_optional<T, E: std::fmt::Display>(
    text: &str,
    field: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
    faults: &mut Faults,
) -> Option<T> {
    if text.is_empty() { None } else { faults.take(field, parse(text)) }
}

fn parse_topics(topics: &[String], faults: &mut Faults) -> Vec<Topic> {
    if topics.len() > MAX_TOPICS {
        faults.add("interaction.topics", format!("must name at most {MAX_TOPICS} topics"));
        return Vec::new();
    }
    let mut parsed = Vec::with_capacity(topics.len());
    for (index, topic) in topics.iter().enumerate() {
        let field = format_args!("interaction.topics[{index}]");
        if topics[..index].contains(topic) {
            faults.add(field, "must not be named twice");
        } else {
            parsed.extend(faults.take(field, Topic::parse(topic)));
        }
    }
    parsed.sort_unstable();
    parsed
}

fn parse_due(draft: &Draft, faults: &mut Faults) -> Option<Timestamp> {
    let due = draft.due_time?;
    if draft.kind.is_some_and(|kind| !kind.opens()) {
        faults.add("interaction.due_time", "only a promise or an ask falls due");
    } else if draft.interaction_time.is_some_and(|time| due < time) {
        faults.add("interaction.due_time", "must not be earlier than interaction_time");
    }
    Some(due)
}

fn parse_refers_to(draft: &Draft, faults: &mut Faults) -> Option<InteractionId> {
    if draft.refers_to.is_empty() {
        if draft.kind.is_some_and(Kind::settles) {
            faults.add("interaction.refers_to", "must name the promise or the ask that this settles");
        }
        return None;
    }
    if draft.interaction_id.as_ref() == Some(&draft.refers_to) {
        faults.add("interaction.refers_to", "must not be the interaction itself");
    }
    faults.take("interaction.refers_to", InteractionId::parse(&draft.refers_to))
}
