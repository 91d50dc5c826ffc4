//! Histories of two people, made up at random: who did what to whom and when, and how that scores.

use std::{collections::BTreeSet, time::Duration};

use proptest::{prelude::*, sample::select, test_runner::TestCaseResult};
use rapport::{
    domain::{InteractionId, Kind, Timestamp},
    scoring::{
        Act, Commitment, Interval, Outlook, Pair, PairFold, Policy, Rhythm, Side, Standing, fold_pair, fold_rhythm,
        person_days,
    },
};

/// The peer, who is first in every pair of things here.
pub(crate) const THEY: usize = 0;
/// The owner.
pub(crate) const YOU: usize = 1;

pub(crate) const HELP: [Kind; 5] =
    [Kind::Help, Kind::Introduction, Kind::Endorsement, Kind::PromiseKept, Kind::AskGranted];
/// What speaks for willingness and leaves nothing open.
pub(crate) const POSITIVE: [Kind; 10] = [
    Kind::Reaction,
    Kind::Message,
    Kind::Meeting,
    Kind::Idea,
    Kind::Gratitude,
    Kind::Help,
    Kind::Introduction,
    Kind::Endorsement,
    Kind::PromiseKept,
    Kind::AskGranted,
];
/// What speaks against it.
pub(crate) const NEGATIVE: [Kind; 4] = [Kind::PromiseBroken, Kind::AskDeclined, Kind::Promotion, Kind::Violation];

/// How far rounding may go.
pub(crate) const ROUNDING: f64 = 1e-12;
pub(crate) const DAY_MICROS: i64 = 86_400_000_000;
/// 2023-11-15, where histories begin.
const FIRST_DAY: i64 = 19_676;
const DAYS: i64 = 1_100;

pub(crate) fn policy() -> &'static Policy {
    &rapport::scoring::DEFAULT
}

pub(crate) fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// The moment that many days after the beginning.
pub(crate) fn day(days: i64) -> Timestamp {
    Timestamp::from_micros((FIRST_DAY + days) * DAY_MICROS).unwrap()
}

pub(crate) fn later(time: Timestamp, days: i64) -> Timestamp {
    time.saturating_add_micros(days * DAY_MICROS)
}

pub(crate) fn id(text: impl std::fmt::Display) -> InteractionId {
    InteractionId::parse(&text.to_string()).unwrap()
}

/// An act without anything out of the ordinary. Its id comes from its kind and its time.
pub(crate) fn act(kind: Kind, time: Timestamp) -> Act {
    Act {
        id: id(format_args!("{}-{}", kind.name(), time.micros())),
        time,
        kind,
        effort: None,
        group_size: 1,
        unprompted: false,
        serves_goal: false,
        due_time: None,
        refers_to: None,
    }
}

pub(crate) fn settling(kind: Kind, commitment: &Act, time: Timestamp) -> Act {
    Act { refers_to: Some(commitment.id.clone()), ..act(kind, time) }
}

/// What two people did, as of a time that is not earlier than any of it.
#[derive(Clone, Debug)]
pub(crate) struct History {
    /// By them toward you, and by you toward them.
    pub acts: [Vec<Act>; 2],
    /// What either did toward others.
    pub elsewhere: [Vec<(Timestamp, Kind)>; 2],
    /// What others did toward either.
    pub answers: [Vec<(Timestamp, Kind)>; 2],
    pub as_of: Timestamp,
}

/// A history folded, ready to be read.
pub(crate) struct Folded {
    pub fold: PairFold,
    pub rhythms: [Option<Rhythm>; 2],
    commitments: [Vec<Commitment>; 2],
}

impl Folded {
    pub(crate) fn pair(&self) -> Pair<'_> {
        let side = |who: usize| Side {
            tie: self.fold.ties[who].as_ref(),
            rhythm: self.rhythms[who].as_ref(),
            commitments: &self.commitments[who],
        };
        Pair { theirs: side(THEY), yours: side(YOU) }
    }
}

impl History {
    pub(crate) fn new(acts: [Vec<Act>; 2], as_of: Timestamp) -> Self {
        Self { acts, elsewhere: Default::default(), answers: Default::default(), as_of }
    }

    pub(crate) fn folded(&self) -> Folded {
        let fold = fold_pair([&self.acts[THEY], &self.acts[YOU]], policy());
        let commitments = [THEY, YOU].map(|who| fold.commitments[who].values().cloned().collect());
        let rhythms = [THEY, YOU].map(|who| self.rhythm(who));
        Folded { fold, rhythms, commitments }
    }

    fn rhythm(&self, who: usize) -> Option<Rhythm> {
        let of = |acts: &[(Timestamp, Kind)]| acts.iter().map(|(time, kind)| act(*kind, *time)).collect::<Vec<_>>();
        let (elsewhere, answers) = (of(&self.elsewhere[who]), of(&self.answers[who]));
        let sent = [&self.acts[who][..], &elsewhere];
        fold_rhythm(person_days(sent, [&self.acts[1 - who][..], &answers], policy()), policy())
    }

    /// Where nobody but each other ever acted toward the two.
    pub(crate) fn unanswered(mut self) -> Self {
        self.answers = Default::default();
        self
    }

    pub(crate) fn standing(&self) -> Standing {
        self.folded().pair().standing(self.as_of, policy())
    }

    pub(crate) fn outlook(&self) -> Outlook {
        self.folded().pair().outlook(self.as_of, policy())
    }

    /// The willingness of one of the two toward the other.
    pub(crate) fn willingness(&self, who: usize) -> Interval {
        let standing = self.standing();
        [standing.they_would_help, standing.you_would_help][who]
    }

    pub(crate) fn at(&self, as_of: Timestamp) -> Self {
        Self { as_of, ..self.clone() }
    }

    /// With one more act, no later than the history is read.
    pub(crate) fn with(&self, who: usize, act: Act) -> Self {
        let mut longer = self.clone();
        longer.acts[who].push(act);
        longer
    }

    /// Where one of the two never acted toward the other.
    pub(crate) fn silenced(mut self, who: usize) -> Self {
        self.acts[who].clear();
        self
    }

    /// `act` as one more by `who`: under its own id, and not later than the history is read. An outcome settles a
    /// commitment that they have not settled before, known or not: of two outcomes only the earlier one is evidence.
    pub(crate) fn one_more(&self, who: usize, act: Act) -> Act {
        let settled: BTreeSet<_> =
            self.acts[who].iter().filter(|act| act.kind.is_outcome()).filter_map(|act| act.refers_to.clone()).collect();
        let refers_to = act.refers_to.map(|known| if settled.contains(&known) { id("one of its own") } else { known });
        Act { id: id("one more"), time: act.time.min(self.as_of), refers_to, ..act }
    }
}

fn moments() -> impl Strategy<Value = Timestamp> {
    let days = prop_oneof![0..DAYS, (0..DAYS / 100).prop_map(|hundreds| hundreds * 100), DAYS - 3..DAYS];
    (days, 0..DAY_MICROS).prop_map(|(days, micros)| day(days).saturating_add_micros(micros))
}

fn efforts() -> impl Strategy<Value = Option<Duration>> {
    let seconds = prop_oneof![8 => 0..36_000_u64, 1 => Just(0), 1 => Just(30 * 86_400)];
    prop::option::of(seconds.prop_map(Duration::from_secs))
}

fn group_sizes() -> impl Strategy<Value = u32> {
    prop_oneof![5 => Just(1), 3 => 2..100_u32, 1 => 100..=1_000_000_000_u32]
}

/// An act of one of these kinds. What it refers to may be among the acts of a history, earlier or later, or not.
pub(crate) fn acts(kinds: &'static [Kind]) -> impl Strategy<Value = Act> {
    let circumstances = (any::<[bool; 2]>(), prop::option::of(0..60_i64), 0..48_u32, any::<bool>());
    (select(kinds), moments(), efforts(), group_sizes(), circumstances).prop_map(
        |(kind, time, effort, group_size, ([unprompted, serves_goal], due_days, other, refers))| Act {
            effort,
            group_size,
            unprompted,
            serves_goal,
            due_time: due_days.filter(|_| kind.opens()).map(|days| later(time, days)),
            refers_to: (kind.settles() || refers).then(|| id(other)),
            ..act(kind, time)
        },
    )
}

/// Up to 40 acts of any kind both ways.
pub(crate) fn histories() -> impl Strategy<Value = History> {
    histories_of(&Kind::ALL)
}

/// Up to 40 acts of these kinds both ways, read at the latest of them, later on its day, or up to two months later.
pub(crate) fn histories_of(kinds: &'static [Kind]) -> impl Strategy<Value = History> {
    let here = prop::collection::vec((0..2_usize, acts(kinds)), 0..40);
    let elsewhere = prop::collection::vec((0..2_usize, any::<bool>(), moments(), select(&Kind::ALL[..])), 0..10);
    let wait = prop_oneof![Just(0), 0..DAY_MICROS, 0..60 * DAY_MICROS];
    (here, elsewhere, wait).prop_map(|(here, elsewhere, wait)| {
        let mut history = History::new(Default::default(), day(0));
        for (place, (who, act)) in here.into_iter().enumerate() {
            history.as_of = history.as_of.max(act.time);
            let unknown =
                |known: &InteractionId| if *known == id(place) { id("never heard of") } else { known.clone() };
            let refers_to = act.refers_to.as_ref().map(unknown);
            history.acts[who].push(Act { id: id(place), refers_to, ..act });
        }
        for (who, sent, time, kind) in elsewhere {
            history.as_of = history.as_of.max(time);
            let acts = if sent { &mut history.elsewhere } else { &mut history.answers };
            acts[who].push((time, kind));
        }
        history.as_of = history.as_of.saturating_add_micros(wait);
        history
    })
}

/// None of the three numbers of `one` is higher than that of `other`.
pub(crate) fn no_higher(one: Interval, other: Interval) -> TestCaseResult {
    for (name, one, other) in [
        ("probability", one.probability, other.probability),
        ("lower", one.lower, other.lower),
        ("upper", one.upper, other.upper),
    ] {
        prop_assert!(one <= other + ROUNDING, "{name}: {one} is higher than {other}");
    }
    Ok(())
}

/// Neither willingness is higher in `one` than in `other`.
pub(crate) fn neither_higher(one: &History, other: &History) -> TestCaseResult {
    [THEY, YOU].into_iter().try_for_each(|who| no_higher(one.willingness(who), other.willingness(who)))
}
