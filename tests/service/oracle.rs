//! What the pure core says of a whole history at once: the connections that the service has to show, whatever order,
//! batches and servers it was recorded in.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use rapport::{
    domain::{ConnectionStatus, InteractionId, Kind, PersonId, RankOrder, Timestamp},
    rpc::pb,
    scoring::{
        Act, Commitment, DEFAULT, Outlook, Pair, Rhythm, Side, Source, Standing, Tie, explain, fold_pair, fold_rhythm,
        heaviest, person_days, rank_key,
    },
};

/// How far numbers may differ by rounding.
pub const CLOSE: f64 = 1e-9;

/// All that was accepted.
#[derive(Default)]
pub struct Oracle {
    acts: HashMap<(String, String), Vec<Act>>,
    persons: BTreeSet<String>,
}

pub fn from_wire(time: prost_types::Timestamp) -> Timestamp {
    Timestamp::from_seconds(time.seconds, time.nanos).unwrap()
}

pub fn to_wire(time: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = time.seconds_and_nanos();
    prost_types::Timestamp { seconds, nanos }
}

fn act_of(interaction: &pb::Interaction) -> Act {
    let effort = interaction.effort.map(|effort| {
        Duration::from_micros(effort.seconds as u64 * 1_000_000 + u64::from(effort.nanos.unsigned_abs() / 1000))
    });
    let audience = interaction.audience_count as u32;
    Act {
        id: InteractionId::parse(&interaction.interaction_id).unwrap(),
        time: from_wire(interaction.interaction_time.unwrap()),
        kind: Kind::from_number(interaction.kind).unwrap(),
        effort,
        group_size: if audience == 0 { interaction.recipients.len() as u32 } else { audience },
        unprompted: interaction.unprompted,
        serves_goal: !interaction.goal.is_empty(),
        due_time: interaction.due_time.map(from_wire),
        refers_to: InteractionId::parse(&interaction.refers_to).ok(),
    }
}

/// What is known of one pair as of a time, folded.
struct Folded {
    acts: [Vec<Act>; 2],
    ties: [Option<Tie>; 2],
    commitments: [Vec<Commitment>; 2],
    rhythms: [Option<Rhythm>; 2],
}

impl Folded {
    fn pair(&self) -> Pair<'_> {
        let side = |of: usize| Side {
            tie: self.ties[of].as_ref(),
            rhythm: self.rhythms[of].as_ref(),
            commitments: &self.commitments[of],
        };
        Pair { theirs: side(0), yours: side(1) }
    }
}

impl Oracle {
    pub fn new<'a>(accepted: impl IntoIterator<Item = &'a pb::Interaction>) -> Self {
        let mut oracle = Self::default();
        for interaction in accepted {
            let act = act_of(interaction);
            oracle
                .persons
                .extend([interaction.actor.clone()].into_iter().chain(interaction.recipients.iter().cloned()));
            for recipient in &interaction.recipients {
                let key = (interaction.actor.clone(), recipient.clone());
                oracle.acts.entry(key).or_default().push(act.clone());
            }
        }
        oracle
    }

    /// How many ties there are, and how many rhythms.
    pub fn len(&self) -> (usize, usize) {
        (self.acts.len(), self.persons.len())
    }

    /// When everything happened.
    pub fn times(&self) -> Vec<Timestamp> {
        self.acts.values().flatten().map(|act| act.time).collect()
    }

    fn folded(&self, owner: &str, peer: &str, as_of: Timestamp) -> Folded {
        let acts = [(peer, owner), (owner, peer)].map(|(actor, recipient)| {
            let acts = self.acts.get(&(actor.to_owned(), recipient.to_owned()));
            acts.into_iter().flatten().filter(|act| act.time <= as_of).cloned().collect::<Vec<_>>()
        });
        let fold = fold_pair([&acts[0], &acts[1]], &DEFAULT);
        let rhythms = [peer, owner].map(|person| self.rhythm(person, as_of));
        let commitments = fold.commitments.map(|commitments| commitments.into_values().collect());
        Folded { acts, ties: fold.ties, commitments, rhythms }
    }

    fn rhythm(&self, person: &str, as_of: Timestamp) -> Option<Rhythm> {
        let ties = |side: fn(&(String, String)) -> &String| {
            let of_person = self.acts.iter().filter(move |(key, _)| side(key) == person);
            let until = |acts: &Vec<Act>| acts.iter().filter(|act| act.time <= as_of).cloned().collect::<Vec<_>>();
            of_person.map(|(_, acts)| until(acts)).collect::<Vec<_>>()
        };
        let (sent, received) = (ties(|(actor, _)| actor), ties(|(_, recipient)| recipient));
        let [sent, received] = [&sent, &received].map(|ties| ties.iter().map(Vec::as_slice));
        fold_rhythm(person_days(sent, received, &DEFAULT), &DEFAULT)
    }

    /// One connection as of a time.
    pub fn connection(&self, owner: &str, peer: &str, as_of: Timestamp) -> pb::Connection {
        let folded = self.folded(owner, peer, as_of);
        let pair = folded.pair();
        let standing = pair.standing(as_of, &DEFAULT);
        let willingness = |interval: rapport::scoring::Interval| {
            let (probability, lower, upper) = (interval.probability, interval.lower, interval.upper);
            Some(pb::Willingness { probability, lower, upper })
        };
        pb::Connection {
            peer: peer.to_owned(),
            they_would_help: willingness(standing.they_would_help),
            you_would_help: willingness(standing.you_would_help),
            mutual: willingness(standing.mutual),
            status: status(standing.status).into(),
            first_interaction_time: pair.first_time().map(to_wire),
            last_interaction_time: pair.last_time().map(to_wire),
            their_interaction_counts: counts(&folded.acts[0]),
            your_interaction_counts: counts(&folded.acts[1]),
            reasons: reasons(&folded, as_of),
        }
    }

    /// A person's ranking as of a time: the peers in order, each with the number that the order goes by.
    pub fn ranking(&self, owner: &str, as_of: Timestamp, order: RankOrder) -> Vec<String> {
        let mut keys: Vec<_> = self
            .persons
            .iter()
            .filter_map(|peer| {
                let folded = self.folded(owner, peer, as_of);
                let pair = folded.pair();
                let Standing { they_would_help, you_would_help, mutual, .. } = pair.standing(as_of, &DEFAULT);
                let outlook = Outlook { they_would_help, you_would_help, mutual };
                let peer = PersonId::parse(peer).unwrap();
                pair.last_time().map(|last| rank_key(order, &outlook, Some(last), &peer))
            })
            .collect();
        keys.sort();
        keys.iter().map(|key| key.peer.as_str().to_owned()).collect()
    }
}

fn counts(acts: &[Act]) -> Vec<pb::InteractionCount> {
    let count = |kind: Kind| acts.iter().filter(|act| act.kind == kind).count() as i64;
    let all = Kind::ALL.iter().map(|kind| pb::InteractionCount { kind: kind.number().into(), count: count(*kind) });
    all.filter(|counted| counted.count > 0).collect()
}

fn status(status: ConnectionStatus) -> pb::ConnectionStatus {
    match status {
        ConnectionStatus::Unknown => pb::ConnectionStatus::Unknown,
        ConnectionStatus::OneSided => pb::ConnectionStatus::OneSided,
        ConnectionStatus::Budding => pb::ConnectionStatus::Budding,
        ConnectionStatus::Real => pb::ConnectionStatus::Real,
        ConnectionStatus::Fading => pb::ConnectionStatus::Fading,
        ConnectionStatus::Broken => pb::ConnectionStatus::Broken,
    }
}

fn reasons(folded: &Folded, as_of: Timestamp) -> Vec<pb::Reason> {
    use pb::{EvidenceSource, WillingnessDirection};
    let directions = [WillingnessDirection::TheyWouldHelp, WillingnessDirection::YouWouldHelp];
    let of_actor = [EvidenceSource::Peer, EvidenceSource::Owner];
    let mut reasons = Vec::new();
    for (whose, parts) in explain(&folded.pair(), as_of, &DEFAULT).into_iter().enumerate() {
        for part in parts {
            let own = folded.acts[whose].iter().map(|act| (act, Source::Own));
            let weighed = own.chain(folded.acts[1 - whose].iter().map(|act| (act, Source::Other)));
            let ids = heaviest(&part, weighed, as_of, &DEFAULT, 3);
            let source = match part.source {
                Source::Nobody => EvidenceSource::Nobody,
                Source::Both => EvidenceSource::Both,
                Source::Own => of_actor[whose],
                Source::Other => of_actor[1 - whose],
            };
            reasons.push(pb::Reason {
                willingness: directions[whose].into(),
                factor: pb::ReasonFactor::from_str_name(&factor_name(part.factor)).unwrap().into(),
                source: source.into(),
                contribution: part.contribution,
                interaction_ids: ids.iter().map(|id| id.as_str().to_owned()).collect(),
            });
        }
    }
    reasons
}

/// `PromisesKept` is `REASON_FACTOR_PROMISES_KEPT` on the wire, and so on.
fn factor_name(factor: rapport::scoring::Factor) -> String {
    format!("{factor:?}").chars().fold("REASON_FACTOR".to_owned(), |mut name, letter| {
        if letter.is_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
        name
    })
}

/// Fails unless two answers are the same but for rounding.
pub fn assert_same(found: &pb::Connection, wanted: &pb::Connection, context: &str) {
    let context = format!("{context}, peer {:?}\nfound  {found:?}\nwanted {wanted:?}", wanted.peer);
    let told = |connection: &pb::Connection| pb::Connection {
        they_would_help: None,
        you_would_help: None,
        mutual: None,
        reasons: Vec::new(),
        ..connection.clone()
    };
    assert_eq!(told(found), told(wanted), "{context}");
    assert_numbers(found, wanted, &context);
    let (found_reasons, wanted_reasons) = (by_part(found), by_part(wanted));
    for key in found_reasons.keys().chain(wanted_reasons.keys()) {
        match (found_reasons.get(key), wanted_reasons.get(key)) {
            (Some(found), Some(wanted)) => {
                assert!((found.contribution - wanted.contribution).abs() <= CLOSE, "{key:?} of {context}");
                assert_eq!(found.interaction_ids, wanted.interaction_ids, "{key:?} of {context}");
            }
            // A part that is nothing but rounding may be left out.
            (one, other) => {
                let contribution = one.or(other).unwrap().contribution;
                assert!(contribution.abs() <= CLOSE, "{key:?} of {context}");
            }
        }
    }
}

fn assert_numbers(found: &pb::Connection, wanted: &pb::Connection, context: &str) {
    let numbers = |connection: &pb::Connection| {
        [connection.they_would_help, connection.you_would_help, connection.mutual]
            .map(Option::unwrap)
            .map(|willingness| [willingness.probability, willingness.lower, willingness.upper])
    };
    let (found_numbers, wanted_numbers) = (numbers(found), numbers(wanted));
    for (found, wanted) in found_numbers.as_flattened().iter().zip(wanted_numbers.as_flattened()) {
        assert!((found - wanted).abs() <= CLOSE && (0.0..=1.0).contains(found), "{found} {wanted} {context}");
    }
    for (direction, [probability, ..]) in [(1, found_numbers[0]), (2, found_numbers[1])] {
        let parts = found.reasons.iter().filter(|reason| reason.willingness == direction);
        let sum: f64 = parts.map(|reason| reason.contribution).sum();
        assert!(found.reasons.is_empty() || (sum - probability).abs() <= CLOSE, "parts add up: {context}");
    }
}

fn by_part(connection: &pb::Connection) -> BTreeMap<(i32, i32, i32), &pb::Reason> {
    let parts: BTreeMap<_, _> =
        connection.reasons.iter().map(|reason| ((reason.willingness, reason.factor, reason.source), reason)).collect();
    assert_eq!(parts.len(), connection.reasons.len(), "each part stands once");
    parts
}
