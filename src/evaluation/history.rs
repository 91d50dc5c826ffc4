//! A recorded history, and what of it is known at a time: who did what to whom, before a cut and after it.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::{
    domain::{Kind, PersonId, Timestamp},
    scoring::{Act, Commitment, Pair, Policy, Rhythm, Side, Steps, Tie, fold_pair, fold_rhythm, person_days},
};

use super::number;

/// Connections from which on a person is asked about.
pub const MIN_CONNECTIONS: usize = 5;
/// Between which shares of a history it is cut.
const CUT_RANGE: [f64; 2] = [0.30, 0.97];
const DAY_MICROS: i64 = 86_400_000_000;

/// A person, by their place among those of its [`History`].
pub type Person = u32;

/// Everything that a tenant's people did, by tie and time.
#[derive(Debug, Default)]
pub struct History {
    persons: Vec<PersonId>,
    places: HashMap<PersonId, Person>,
    ties: BTreeMap<(Person, Person), Vec<Act>>,
    times: Vec<Timestamp>,
}

/// What counts as having happened after a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer helped the person: kinds of help, a promise kept, an ask granted.
    Help,
    /// The peer acted toward the person with some effort: anything but reactions and what speaks against somebody. For
    /// histories without help.
    Act,
}

impl Event {
    /// What it is, as the end of "somebody who …".
    pub fn name(self) -> &'static str {
        match self {
            Self::Help => "helps the person",
            Self::Act => "acts toward the person",
        }
    }

    fn is(self, kind: Kind, policy: &Policy) -> bool {
        match self {
            Self::Help => kind.helps(),
            Self::Act => policy.kind(kind).day_weight >= 0.5,
        }
    }
}

/// One connection of a person, as known at a cut, and what became of it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The person.
    pub owner: Person,
    /// The other one.
    pub peer: Person,
    /// What the willingness of the peer toward the person rests on.
    pub steps: Steps,
    /// Days from the cut to the first event, if there is one.
    pub event_after: Option<f64>,
}

impl Candidate {
    /// Whether an event lies within that many days after the cut.
    pub fn happened(&self, horizon_days: f64) -> bool {
        self.event_after.is_some_and(|days| days <= horizon_days)
    }
}

/// What is known at a cut of everybody with enough connections, ordered by person and peer.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The cut.
    pub time: Timestamp,
    /// The connections.
    pub candidates: Vec<Candidate>,
}

impl Snapshot {
    /// The connections of each person.
    pub fn persons(&self) -> impl Iterator<Item = &[Candidate]> {
        self.candidates.chunk_by(|one, other| one.owner == other.owner)
    }
}

/// One tie and its person's side, folded up to a cut.
type Folded = HashMap<(Person, Person), (Option<Tie>, Vec<Commitment>)>;

impl History {
    /// Adds an act.
    pub fn add(&mut self, actor: &PersonId, recipient: &PersonId, act: Act) {
        let (actor, recipient) = (self.place(actor), self.place(recipient));
        self.times.push(act.time);
        self.ties.entry((actor, recipient)).or_default().push(act);
    }

    /// Puts everything in the order of time; to be called once all is added.
    #[must_use]
    pub fn in_order(mut self) -> Self {
        self.times.sort_unstable();
        self.ties
            .values_mut()
            .for_each(|acts| acts.sort_by(|one, other| (one.time, &one.id).cmp(&(other.time, &other.id))));
        self
    }

    fn place(&mut self, person: &PersonId) -> Person {
        if let Some(place) = self.places.get(person) {
            return *place;
        }
        let place = u32::try_from(self.persons.len()).unwrap_or(u32::MAX);
        self.persons.push(person.clone());
        self.places.insert(person.clone(), place);
        place
    }

    /// A person's id.
    pub fn id(&self, person: Person) -> Option<&PersonId> {
        self.persons.get(usize::try_from(person).ok()?)
    }

    /// How many persons, acts and ties there are.
    pub fn len(&self) -> (usize, usize, usize) {
        (self.persons.len(), self.times.len(), self.ties.len())
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// The times of the first and of the last act.
    pub fn span(&self) -> Option<(Timestamp, Timestamp)> {
        Some((*self.times.first()?, *self.times.last()?))
    }

    /// Help where anybody ever helped, else acts.
    pub fn event(&self) -> Event {
        if self.ties.values().flatten().any(|act| act.kind.helps()) { Event::Help } else { Event::Act }
    }

    /// That many cuts, spread evenly over the acts between the 30th and the 97th percentile, or less far when a horizon of
    /// so many days would not fit behind the last one.
    pub fn cuts(&self, count: usize, horizon_days: f64) -> Vec<Timestamp> {
        let Some((_, last)) = self.span() else { return Vec::new() };
        let latest = last.saturating_add_micros(-days_to_micros(horizon_days));
        let known = self.times.partition_point(|time| *time <= latest);
        let [from, to] = CUT_RANGE;
        let to = to.min(number(known) / number(self.times.len()));
        let step = (to - from) / number(count.saturating_sub(1).max(1));
        let mut cuts: Vec<Timestamp> = (0..count)
            .filter_map(|place| {
                let quantile = from + step * number(place);
                self.times.get(share_of(self.times.len().saturating_sub(1), quantile)).copied()
            })
            .collect();
        cuts.dedup();
        if to > from { cuts } else { Vec::new() }
    }

    /// The ages in days, at `cut`, of what the peer did toward the owner, and of what the owner did toward the peer.
    pub fn ages(&self, owner: Person, peer: Person, cut: Timestamp) -> [Vec<f64>; 2] {
        [(peer, owner), (owner, peer)].map(|key| {
            let acts = self.ties.get(&key).map_or(&[][..], |acts| until(acts, cut));
            acts.iter().map(|act| micros_to_days(cut.micros() - act.time.micros())).collect()
        })
    }

    /// What is known at a cut, and what of it became true.
    pub fn snapshot(&self, cut: Timestamp, event: Event, policy: &Policy) -> Snapshot {
        let folded = self.folded(cut, policy);
        let rhythms = self.rhythms(cut, policy);
        let mut peers: BTreeMap<Person, HashSet<Person>> = BTreeMap::new();
        for (actor, recipient) in folded.iter().filter(|(_, (tie, _))| tie.is_some()).map(|(key, _)| *key) {
            peers.entry(actor).or_default().insert(recipient);
            peers.entry(recipient).or_default().insert(actor);
        }
        let mut candidates = Vec::new();
        for (owner, peers) in peers.into_iter().filter(|(_, peers)| peers.len() >= MIN_CONNECTIONS) {
            let mut peers: Vec<Person> = peers.into_iter().collect();
            peers.sort_unstable();
            candidates.extend(peers.into_iter().map(|peer| {
                let side = |actor: Person, recipient: Person| {
                    let found = folded.get(&(actor, recipient));
                    Side {
                        tie: found.and_then(|(tie, _)| tie.as_ref()),
                        rhythm: rhythms.get(&actor),
                        commitments: found.map_or(&[], |(_, commitments)| commitments),
                    }
                };
                let [steps, _] = Pair { theirs: side(peer, owner), yours: side(owner, peer) }.steps(cut, policy);
                Candidate { owner, peer, steps, event_after: self.event_after(owner, peer, cut, event, policy) }
            }));
        }
        Snapshot { time: cut, candidates }
    }

    fn event_after(&self, owner: Person, peer: Person, cut: Timestamp, event: Event, policy: &Policy) -> Option<f64> {
        let acts = self.ties.get(&(peer, owner))?;
        let later = acts.get(until(acts, cut).len()..)?;
        let first = later.iter().find(|act| event.is(act.kind, policy))?;
        Some(micros_to_days(first.time.micros() - cut.micros()))
    }

    fn folded(&self, cut: Timestamp, policy: &Policy) -> Folded {
        let of = |key: &(Person, Person)| self.ties.get(key).map_or(&[][..], |acts| until(acts, cut));
        let mut folded = Folded::new();
        for key in self.ties.keys() {
            let back = (key.1, key.0);
            if folded.contains_key(key) || (of(key).is_empty() && of(&back).is_empty()) {
                continue;
            }
            let fold = fold_pair([of(key), of(&back)], policy);
            for ((key, tie), commitments) in [*key, back].into_iter().zip(fold.ties).zip(fold.commitments) {
                let made = commitments.into_values().filter(|commitment| commitment.made_time.is_some());
                folded.insert(key, (tie, made.collect()));
            }
        }
        folded
    }

    fn rhythms(&self, cut: Timestamp, policy: &Policy) -> HashMap<Person, Rhythm> {
        let mut days: HashMap<Person, Vec<_>> = HashMap::new();
        for ((actor, recipient), acts) in &self.ties {
            let acts = until(acts, cut);
            days.entry(*actor).or_default().extend(person_days([acts], [], policy));
            days.entry(*recipient).or_default().extend(person_days([], [acts], policy));
        }
        days.into_iter().filter_map(|(person, days)| Some((person, fold_rhythm(days, policy)?))).collect()
    }
}

/// The acts up to a time, of acts in order.
fn until(acts: &[Act], cut: Timestamp) -> &[Act] {
    let end = acts.partition_point(|act| act.time <= cut);
    acts.get(..end).unwrap_or_default()
}

fn micros_to_days(micros: i64) -> f64 {
    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "within 2^53 µs to the microsecond")]
    let micros = micros as f64;
    micros / 86_400_000_000.0
}

/// So many days in microseconds.
pub(super) fn days_to_micros(days: f64) -> i64 {
    #[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "saturates")]
    let micros = (days * 86_400_000_000.0) as i64;
    micros.clamp(0, DAY_MICROS * 365_000)
}

fn share_of(count: usize, quantile: f64) -> usize {
    #[expect(
        clippy::as_conversions,
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place within the count"
    )]
    let place = (count as f64 * quantile.clamp(0.0, 1.0)) as usize;
    place
}
