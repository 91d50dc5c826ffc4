//! Random histories: everything callers send, sound or not, in the order they send it. The same seed makes the same one.

use prost_types::Timestamp;
use rapport::{domain::Kind, rpc::pb};

use crate::harness::{after, unix_now};

/// All who ever act or are acted toward; ids are text of any script.
pub const PERSONS: [&str; 7] = ["ada", "bob", "cleo", "dörte", "李雷", "Ωmega é", "zoë 🦀"];
/// How much of the past a history covers, in days.
const DAYS: u64 = 60;

/// A source of numbers that are the same for the same seed: `SplitMix64`.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for place in (1..items.len()).rev() {
            items.swap(place, self.below(place as u64 + 1) as usize);
        }
    }
}

/// One thing to send, and whether it can be accepted at all.
#[derive(Clone)]
pub struct Item {
    pub interaction: pb::Interaction,
    pub sound: bool,
}

/// A history of about that many interactions, with repetitions, conflicts and faulty ones among them, shuffled.
pub fn history(seed: u64, interactions: u64) -> Vec<Item> {
    let mut maker = Maker { dice: Dice::new(seed), today: unix_now() / 86_400, opened: Vec::new() };
    let mut items = Vec::new();
    for number in 0..interactions {
        let interaction = maker.interaction(number);
        if maker.dice.percent(12) {
            items.push(Item { interaction: maker.said_again(&interaction), sound: true });
        }
        if maker.dice.percent(6) {
            items.push(Item { interaction: maker.changed(&interaction), sound: true });
        }
        if maker.dice.percent(6) {
            items.push(Item { interaction: maker.faulty(&interaction, number), sound: false });
        }
        items.push(Item { interaction, sound: true });
    }
    maker.dice.shuffle(&mut items);
    items
}

struct Maker {
    dice: Dice,
    today: i64,
    opened: Vec<pb::Interaction>,
}

impl Maker {
    fn interaction(&mut self, number: u64) -> pb::Interaction {
        let kind = *self.dice.pick(&Kind::ALL);
        let (actor, recipients, refers_to) = self.parties(kind);
        let time = self.time();
        let made = pb::Interaction {
            interaction_id: if number.is_multiple_of(5) { format!("行{number}") } else { format!("i{number}") },
            actor,
            audience_count: if self.dice.percent(15) {
                (recipients.len() as u64 + self.dice.below(40)) as i64
            } else {
                0
            },
            recipients,
            interaction_time: Some(time),
            kind: kind.number().into(),
            effort: self.dice.percent(40).then(|| self.effort()),
            channel: (*self.dice.pick(&["", "email", "chat"])).to_owned(),
            topics: if self.dice.percent(30) { vec!["rust".to_owned(), "münze".to_owned()] } else { Vec::new() },
            goal: (*self.dice.pick(&["", "", "learn rust"])).to_owned(),
            unprompted: self.dice.percent(30),
            due_time: (kind.opens() && self.dice.percent(60)).then(|| self.due(time)),
            refers_to,
        };
        if kind.opens() {
            self.opened.push(made.clone());
        }
        made
    }

    /// Who acts toward whom about what. Outcomes are mostly about something that was promised or asked before, at times
    /// about nothing that anybody knows of, and at times said by somebody whom it does not concern.
    fn parties(&mut self, kind: Kind) -> (String, Vec<String>, String) {
        let about = if kind.settles() && !self.opened.is_empty() && self.dice.percent(90) {
            Some(self.dice.pick(&self.opened.clone()).clone())
        } else {
            None
        };
        match about {
            Some(about) if self.dice.percent(90) => {
                let counterpart = self.dice.pick(&about.recipients).clone();
                let committed_acts = kind.is_outcome() == (about.kind == i32::from(Kind::Promise.number()));
                if committed_acts && self.dice.percent(30) {
                    (about.actor, about.recipients, about.interaction_id)
                } else if committed_acts {
                    (about.actor, vec![counterpart], about.interaction_id)
                } else {
                    (counterpart, vec![about.actor], about.interaction_id)
                }
            }
            about => {
                let id = about.map_or_else(|| "nothing".to_owned(), |about| about.interaction_id);
                let (actor, recipients) = self.anybody();
                (actor, recipients, if kind.settles() || self.dice.percent(5) { id } else { String::new() })
            }
        }
    }

    /// Somebody, and one to five others. The last two persons never act toward the first, so that some ties are one-way.
    fn anybody(&mut self) -> (String, Vec<String>) {
        let actor = self.dice.below(PERSONS.len() as u64) as usize;
        let mut others: Vec<&str> = PERSONS
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != actor && !(actor >= 5 && *other == 0))
            .map(|(_, person)| *person)
            .collect();
        self.dice.shuffle(&mut others);
        let many = if self.dice.percent(70) { 1 } else { 2 + self.dice.below(4) as usize };
        others.truncate(many);
        (PERSONS[actor].to_owned(), others.into_iter().map(str::to_owned).collect())
    }

    /// Mostly on a few crowded days, seldom years ago or a little ahead of the clock.
    fn time(&mut self) -> Timestamp {
        let age = match self.dice.below(20) {
            0 => 300 + self.dice.below(1500),
            1..=9 => 1 + self.dice.below(DAYS),
            _ => [1, 2, 5, 6, 30][self.dice.below(5) as usize],
        };
        let nanos = (self.dice.below(1000) * 1_000_000 + self.dice.below(1_000_000)) as i32;
        if self.dice.percent(1) {
            return Timestamp { seconds: unix_now() + 200, nanos };
        }
        // Midnights are where one day ends and another begins.
        let second = if self.dice.percent(5) { 0 } else { self.dice.below(86_400) as i64 };
        let nanos = if second == 0 { 0 } else { nanos };
        Timestamp { seconds: (self.today - age as i64) * 86_400 + second, nanos }
    }

    fn effort(&mut self) -> prost_types::Duration {
        prost_types::Duration { seconds: self.dice.below(10_000) as i64, nanos: self.dice.below(1_000_000_000) as i32 }
    }

    fn due(&mut self, time: Timestamp) -> Timestamp {
        let days = self.dice.below(30) as i64;
        after(time, days * 86_400 + self.dice.below(1000) as i64)
    }

    /// The same content in other words.
    fn said_again(&mut self, interaction: &pb::Interaction) -> pb::Interaction {
        let mut again = interaction.clone();
        self.dice.shuffle(&mut again.recipients);
        again.topics.reverse();
        let named = again.recipients.len() as i64;
        if again.audience_count == 0 || again.audience_count == named {
            again.audience_count = named - again.audience_count;
        }
        again
    }

    fn changed(&mut self, interaction: &pb::Interaction) -> pb::Interaction {
        let mut other = interaction.clone();
        match self.dice.below(4) {
            0 => other.unprompted = !other.unprompted,
            1 => "another".clone_into(&mut other.goal),
            2 => other.audience_count = other.audience_count.max(other.recipients.len() as i64) + 1,
            _ => other.interaction_time = other.interaction_time.map(|time| after(time, -1)),
        }
        other
    }

    fn faulty(&mut self, interaction: &pb::Interaction, number: u64) -> pb::Interaction {
        let mut faulty = pb::Interaction { interaction_id: format!("faulty{number}"), ..interaction.clone() };
        match self.dice.below(6) {
            0 => faulty.interaction_time = Some(Timestamp { seconds: unix_now() + 3600, nanos: 0 }),
            1 => faulty.recipients.push(faulty.actor.clone()),
            2 => "e\u{301}va".clone_into(&mut faulty.actor),
            3 => "e\u{301}".clone_into(&mut faulty.interaction_id),
            4 => faulty.kind = 0,
            _ => faulty.recipients.clear(),
        }
        faulty
    }
}
