//! What is known of a pair, as the numbers that a policy weighs. The formulas are in the module above.

use super::{CLOCKS, Evidence, rhythm::Elsewhere};

/// How many terms there are.
pub const TERMS: usize = 12;

/// Their names in a policy's document, in order.
pub const TERM_NAMES: [&str; TERMS] = [
    "own_share_365",
    "other_share_365",
    "own_365",
    "help_365",
    "last",
    "around_7",
    "around_30",
    "around_365",
    "helping_30",
    "helping_365",
    "other_sent_30",
    "other_received_30",
];

/// The term of help alone.
pub const HELP: usize = 3;

/// From which term on they tell how much is going on around somebody beside the pair: around x first.
pub const FIRST_AROUND: usize = 5;

/// From which term on they tell how much is going on around the other one: the same for all who are compared for that
/// person, so that they move probabilities and not rankings.
pub const FIRST_OCCASION: usize = 10;

/// What added days count against on the way to the logarithm, in days, for evidence within a tie.
const EVIDENCE_SCALE: f64 = 0.3;
/// Likewise, as a share of what the other one exchanges with everybody.
const SHARE_SCALE: f64 = 0.3;
/// What the share is taken of, in tie-days, beside what the other one exchanges with others.
const SHARE_FLOOR_DAYS: f64 = 1.0;
/// What `1 / (1 + days since the last evidence)` counts against.
const LAST_SCALE: f64 = 0.01;
/// What tie-days with anybody count against.
const RHYTHM_SCALE: f64 = 1.0;
/// From how many days of evidence on the longest clock it is worth half its name.
const RAMP_DAYS: f64 = 0.01;

/// What is known for one willingness: of x toward y.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The terms, each at least 0, in the order of [`TERM_NAMES`].
    pub values: [f64; TERMS],
    /// How much evidence there is at all, 0 to below 1; 0 without any.
    pub ramp: f64,
    /// How much of x's own evidence is help, 0 to 1, on the longest clock.
    pub help_part: f64,
    /// How much of the term `last` is due to x, 0 to 1; the rest is due to y.
    pub last_part: f64,
    /// The evidence that counts, on the longest clock: of x toward y, and back.
    pub counted: [f64; 2],
}

/// Evidence of one toward the other that counts: help as it is, and attention as far as it was returned, or as far as the
/// person's attention is returned by others.
fn counted(own: &Evidence, back: &Evidence, elsewhere: &Elsewhere) -> [f64; CLOCKS] {
    let answered = elsewhere.answered();
    std::array::from_fn(|clock| {
        let (attention, returned) = (own.attention[clock], back.attention[clock]);
        own.help[clock].max(attention.min(returned + answered * attention))
    })
}

/// One over one more than the days since there was evidence, from its sum on the shortest clock: that halves every day,
/// so that its logarithm tells the age of the latest day, and of less than a whole one counts as of an older one.
fn lastness(evidence: f64) -> f64 {
    1.0 / (1.0 - evidence.log2().min(0.0))
}

impl Terms {
    /// The terms of x with evidence `own` toward y with evidence `other` back, and what either does elsewhere.
    pub(super) fn new(own: &Evidence, other: &Evidence, x: &Elsewhere, y: &Elsewhere) -> Self {
        let [given, received] = [counted(own, other, x), counted(other, own, y)];
        let [day, week, month, year] = [0, 1, 2, 3];
        let exchanged = SHARE_FLOOR_DAYS + y.sent[year] + y.received[year];
        let share = |days: f64| (days / exchanged / SHARE_SCALE).ln_1p();
        let evidence = |days: f64| (days / EVIDENCE_SCALE).ln_1p();
        let rhythm = |days: f64| (days / RHYTHM_SCALE).ln_1p();
        let (total, latest) = (given[year] + received[year], given[day] + received[day]);
        let part = |of: f64, all: f64| if all > 0.0 { of / all } else { 0.0 };
        Self {
            values: [
                share(given[year]),
                share(received[year]),
                evidence(given[year]),
                evidence(own.help[year]),
                (lastness(latest) / LAST_SCALE).ln_1p(),
                rhythm(x.sent[week]),
                rhythm(x.sent[month]),
                rhythm(x.sent[year]),
                rhythm(x.helped[month]),
                rhythm(x.helped[year]),
                rhythm(y.sent[month]),
                rhythm(y.received[month]),
            ],
            ramp: total / (total + RAMP_DAYS),
            help_part: part(own.help[year], given[year]),
            last_part: part(given[day], latest),
            counted: [given[year], received[year]],
        }
    }
}
