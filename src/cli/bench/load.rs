//! What is asked for: who acts toward whom, and whose connections are ranked. The same seed makes the same load.

use crate::rpc::pb;

/// A small generator of numbers that look random (SplitMix64: Steele, Lea and Flood, OOPSLA 2014).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to and without 1.
    fn part(&mut self) -> f64 {
        let [high, low] =
            [self.next() >> 44, (self.next() >> 32) & 0xffff_ffff].map(|bits| u32::try_from(bits).unwrap_or(0));
        (f64::from(high) + f64::from(low) / 4_294_967_296.0) / 1_048_576.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap_or(1)).unwrap_or(0)
    }
}

/// Persons by how often they come up: the one at place `n` in proportion to `1 / n^skew` (Zipf's law).
#[derive(Clone, Debug)]
pub(super) struct Crowd {
    /// The chance of each place and of those before it.
    up_to: Vec<f64>,
    /// All chance in as many equal parts as there are places: where each begins, and the first place that reaches into it (the
    /// guide table of Chen and Asau, 1974). Who is drawn is found there or a few places on.
    parts: Vec<(f64, usize)>,
}

impl Crowd {
    pub(super) fn new(persons: u32, skew: f64) -> Self {
        let mut total = 0.0;
        let mut up_to: Vec<f64> = (1..=persons)
            .map(|place| {
                total += f64::from(place).powf(-skew);
                total
            })
            .collect();
        for sum in &mut up_to {
            *sum /= total;
        }
        let mut place = 0;
        let part = |number| {
            let begin = f64::from(number) / f64::from(persons);
            while up_to[place] <= begin {
                place += 1;
            }
            (begin, place)
        };
        let parts = (0..persons).map(part).collect();
        Self { up_to, parts }
    }

    fn pick(&self, random: &mut Random) -> usize {
        let last = self.up_to.len() - 1;
        let part = random.below(self.parts.len());
        let ((begin, first), end) = (self.parts[part], self.parts.get(part + 1).map_or(1.0, |next| next.0));
        let chance = begin + random.part() * (end - begin);
        (first..last).find(|place| self.up_to[*place] > chance).unwrap_or(last)
    }
}

/// Who acts toward whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Anybody toward anybody.
    Spread,
    /// One person toward one other.
    OneTie,
    /// Anybody toward the same person.
    TowardOne,
}

/// A load: acts and questions, drawn at random.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub crowd: Crowd,
    pub shape: Shape,
    /// Whose connections are ranked.
    pub owners: Vec<String>,
    /// How many calls of a hundred are questions.
    pub ranks_percent: usize,
    /// What the ids of its acts begin with.
    pub run: String,
}

/// One call.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Record(Act),
    Rank(String),
}

/// One act.
#[derive(Clone, Debug)]
pub(super) struct Act {
    pub id: String,
    pub actor: String,
    pub recipient: String,
    pub kind: pb::InteractionKind,
}

/// Most acts are messages.
const KINDS: [pb::InteractionKind; 10] = {
    use pb::InteractionKind::{Gratitude, Help, Idea, Meeting, Message, Reaction};
    [Message, Message, Message, Message, Message, Reaction, Meeting, Help, Gratitude, Idea]
};

impl Load {
    /// The call of that number.
    pub(super) fn call(&self, random: &mut Random, number: u64) -> Call {
        if random.below(100) < self.ranks_percent {
            return Call::Rank(self.owners[random.below(self.owners.len())].clone());
        }
        Call::Record(self.act(random, number))
    }

    /// The act of that number.
    pub(super) fn act(&self, random: &mut Random, number: u64) -> Act {
        let (actor, recipient) = match self.shape {
            Shape::OneTie => ("one".to_owned(), "other".to_owned()),
            Shape::TowardOne => (person(self.crowd.pick(random)), self.owners[0].clone()),
            Shape::Spread => {
                let (actor, other) = (self.crowd.pick(random), self.crowd.pick(random));
                (person(actor), if other == actor { "nobody-else".to_owned() } else { person(other) })
            }
        };
        Act { id: format!("{}-{number}", self.run), actor, recipient, kind: KINDS[random.below(KINDS.len())] }
    }
}

fn person(place: usize) -> String {
    format!("person-{place}")
}

/// The acts by which a person comes to have so many connections: each did something, some were answered. Always the same, so
/// that recording them again records nothing.
pub(super) fn connecting(owner: &str, connections: u32) -> impl Iterator<Item = Act> {
    let owner = owner.to_owned();
    (0..connections).flat_map(move |number| {
        let mut random = Random::new(number.into());
        let (peer, owner) = (person(usize::try_from(number).unwrap_or(0)), owner.clone());
        let acts = 1 + random.below(3);
        (0..acts).map(move |act| {
            let returned = act > 0 && random.below(2) == 0;
            let (actor, recipient) =
                if returned { (owner.clone(), peer.clone()) } else { (peer.clone(), owner.clone()) };
            Act { id: format!("{owner}-{number}-{act}"), actor, recipient, kind: KINDS[random.below(KINDS.len())] }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_follows_zipfs_law() {
        let (crowd, mut random) = (Crowd::new(1000, 1.0), Random::new(1));
        let mut counts = vec![0_u32; 1000];
        for _ in 0..100_000 {
            counts[crowd.pick(&mut random)] += 1;
        }
        // The first comes up 1 / H(1000) = 13.4 % of the time, twice as often as the second.
        assert!((12_900..13_900).contains(&counts[0]), "{}", counts[0]);
        assert!((6_400..7_000).contains(&counts[1]), "{}", counts[1]);
        assert!(counts[999] < 60);
    }

    #[test]
    fn the_same_seed_makes_the_same_load() {
        let load = Load {
            crowd: Crowd::new(100, 0.5),
            shape: Shape::Spread,
            owners: vec!["owner".to_owned()],
            ranks_percent: 50,
            run: "run".to_owned(),
        };
        let calls = |seed| {
            let mut random = Random::new(seed);
            (0..100).map(|number| format!("{:?}", load.call(&mut random, number))).collect::<Vec<_>>()
        };
        assert_eq!(calls(7), calls(7));
        assert_ne!(calls(7), calls(8));
        let ranks = calls(7).iter().filter(|call| call.starts_with("Rank")).count();
        assert!((30..70).contains(&ranks), "{ranks}");
    }

    #[test]
    fn connections_are_made_by_acts_that_are_always_the_same() {
        let acts: Vec<_> = connecting("owner", 50).collect();
        let again: Vec<_> = connecting("owner", 50).collect();
        assert_eq!(format!("{acts:?}"), format!("{again:?}"));
        let peers: std::collections::BTreeSet<_> =
            acts.iter().flat_map(|act| [&act.actor, &act.recipient]).filter(|person| *person != "owner").collect();
        assert_eq!(peers.len(), 50);
    }
}
