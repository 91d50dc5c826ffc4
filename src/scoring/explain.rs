//! Why a willingness is what it is: signed parts that add up to it, and the acts that weigh most in each.
//!
//! The parts follow the steps of the model. Evidence is added group by group in a fixed order (prior, gains, quiet,
//! successes, failures, harm); what a group changes is shared out within it in proportion to what each factor put in.

use std::collections::HashMap;

use crate::domain::{InteractionId, Kind, Timestamp};

use super::{
    Act, Commitment, CommitmentKey, FIRST_AROUND, FIRST_OCCASION, Pair, Policy, Steps, TERMS, Terms,
    credit::shows_around, tie::decay,
};

/// A kind of evidence for or against willingness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Factor {
    /// What is believed of a stranger.
    Prior,
    /// Help.
    Help,
    /// Attention that was returned.
    Exchange,
    /// What the other one did before.
    Goodwill,
    /// How much is going on around somebody, toward others and from them.
    Around,
    /// Promises kept.
    PromisesKept,
    /// Asks granted.
    AsksGranted,
    /// Promises broken.
    PromisesBroken,
    /// Asks declined.
    AsksDeclined,
    /// Commitments left open.
    LeftOpen,
    /// Self-serving pushes.
    Promotions,
    /// Breaches of trust reported.
    Violations,
}

/// Whose acts a part rests on, seen from the one whose willingness it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Nobody's.
    Nobody,
    /// Their own.
    Own,
    /// The other's.
    Other,
    /// Both's.
    Both,
}

/// One signed part of a willingness.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// What kind of evidence.
    pub factor: Factor,
    /// Whose acts.
    pub source: Source,
    /// Its share of the probability, in [−1, 1].
    pub contribution: f64,
}

/// The parts of both willingnesses of a pair, the peer's first. Parts that change nothing are left out.
pub fn explain(pair: &Pair<'_>, as_of: Timestamp, policy: &Policy) -> [Vec<Part>; 2] {
    pair.steps(as_of, policy).map(|steps| parts(&steps, policy))
}

fn parts(steps: &Steps, policy: &Policy) -> Vec<Part> {
    use Factor::{AsksDeclined, AsksGranted, LeftOpen, PromisesBroken, PromisesKept, Promotions, Violations};
    use Source::{Other, Own};
    let [prior, gained, kept, failed, harmed] = steps.probabilities(policy);
    let tally = &steps.tally;
    let mut parts = vec![Part { factor: Factor::Prior, source: Source::Nobody, contribution: prior }];
    let mut share_out = |change: f64, inputs: &[(Factor, Source, f64)]| {
        let total: f64 = inputs.iter().map(|(.., amount)| amount).sum();
        let noticed = inputs.iter().filter(|(.., amount)| *amount > 0.0);
        parts.extend(noticed.map(|&(factor, source, amount)| Part {
            factor,
            source,
            contribution: change * (amount / total),
        }));
    };
    if steps.terms.ramp > 0.0 {
        share_out(gained - prior, &gains(&steps.terms, policy));
    }
    share_out(kept - gained, &[(PromisesKept, Own, tally.kept), (AsksGranted, Own, tally.granted)]);
    share_out(
        failed - kept,
        &[(PromisesBroken, Own, tally.broken), (AsksDeclined, Own, tally.declined), (LeftOpen, Own, tally.left_open)],
    );
    share_out(
        harmed - failed,
        &[
            (Promotions, Own, tally.promotions[0]),
            (Promotions, Other, tally.promotions[1]),
            (Violations, Own, tally.violations[0]),
            (Violations, Other, tally.violations[1]),
        ],
    );
    parts
}

/// What speaks for a willingness, in the logarithm of its intensity.
fn gains(terms: &Terms, policy: &Policy) -> [(Factor, Source, f64); 5] {
    let weighed: [f64; TERMS] = std::array::from_fn(|term| policy.weights[term] * terms.values[term]);
    let sum = |from: usize, to: usize| weighed[from..to].iter().sum::<f64>();
    let [own_share, other_share, own_days, help, last, ..] = weighed;
    // What is there is never without any part in it.
    let [given, received] = terms.counted.map(|days| days * f64::EPSILON);
    let own = own_share + own_days + terms.last_part * last + given;
    let other = other_share + (1.0 - terms.last_part) * last + received;
    [
        (Factor::Help, Source::Own, own * terms.help_part + help),
        (Factor::Exchange, Source::Both, own * (1.0 - terms.help_part)),
        (Factor::Goodwill, Source::Other, other),
        (Factor::Around, Source::Own, sum(FIRST_AROUND, FIRST_OCCASION)),
        (Factor::Around, Source::Other, sum(FIRST_OCCASION, TERMS)),
    ]
}

/// An act and whether it was done by the one whose willingness is explained.
pub type Weighed<'a> = (&'a Act, Source);

/// The up to `most` acts that weigh most in a part, heaviest first.
pub fn heaviest<'a>(
    part: &Part,
    acts: impl IntoIterator<Item = Weighed<'a>>,
    as_of: Timestamp,
    policy: &Policy,
    most: usize,
) -> Vec<InteractionId> {
    let acts: Vec<Weighed<'a>> = acts.into_iter().collect();
    let rests_on_commitments = matches!(
        part.factor,
        Factor::LeftOpen | Factor::PromisesKept | Factor::AsksGranted | Factor::PromisesBroken | Factor::AsksDeclined
    );
    let commitments = if rests_on_commitments { own_commitments(&acts, policy) } else { HashMap::new() };
    let counts = |act: &Act| match part.factor {
        Factor::LeftOpen => commitments.get(&act.id).is_some_and(|made| made.left_open(as_of, policy) > 0.0),
        Factor::PromisesKept | Factor::AsksGranted | Factor::PromisesBroken | Factor::AsksDeclined => {
            let settled = act.refers_to.as_ref().and_then(|id| commitments.get(id)?.outcome.as_ref());
            settled.is_some_and(|outcome| outcome.id == act.id)
        }
        _ => true,
    };
    let mut weighed: Vec<(f64, &Act)> = acts
        .iter()
        .filter(|(act, source)| belongs(part, act.kind, *source, policy) && counts(act))
        .map(|(act, _)| (weight(part.factor, act, as_of, policy), *act))
        .collect();
    weighed.sort_by(|(weight, act), (other_weight, other)| {
        other_weight.total_cmp(weight).then_with(|| other.time.cmp(&act.time)).then_with(|| act.id.cmp(&other.id))
    });
    weighed.into_iter().take(most).map(|(_, act)| act.id.clone()).collect()
}

/// What the one whose willingness it is committed to, by the promise or the ask.
fn own_commitments(acts: &[Weighed<'_>], policy: &Policy) -> HashMap<InteractionId, Commitment> {
    let mut commitments: HashMap<_, Commitment> = HashMap::new();
    for (act, source) in acts {
        if let Some(key) = CommitmentKey::of(act)
            && key.actor_is_committed == (*source == Source::Own)
        {
            commitments.entry(key.id).or_default().take_in(act, policy);
        }
    }
    commitments
}

fn belongs(part: &Part, kind: Kind, source: Source, policy: &Policy) -> bool {
    let of_factor = match part.factor {
        Factor::Prior | Factor::Around => false,
        Factor::Help => policy.kind(kind).help_weight > 0.0,
        Factor::Exchange | Factor::Goodwill => shows_around(kind, policy),
        Factor::PromisesKept => kind == Kind::PromiseKept,
        Factor::AsksGranted => kind == Kind::AskGranted,
        Factor::PromisesBroken => kind == Kind::PromiseBroken,
        Factor::AsksDeclined => kind == Kind::AskDeclined,
        Factor::LeftOpen => return left_open_source(kind) == Some(source),
        Factor::Promotions => kind == Kind::Promotion,
        Factor::Violations => kind == Kind::Violation,
    };
    of_factor && (part.source == Source::Both || part.source == source)
}

/// Who opens a commitment of the one whose willingness it is: they promise, the other asks.
fn left_open_source(kind: Kind) -> Option<Source> {
    match kind {
        Kind::Promise => Some(Source::Own),
        Kind::Ask => Some(Source::Other),
        _ => None,
    }
}

/// How much one act weighs in a factor by itself. Where days and effort count, it is its day's worth and its effort, faded
/// on the longest clock.
fn weight(factor: Factor, act: &Act, as_of: Timestamp, policy: &Policy) -> f64 {
    let age = act.time.day().age_at(as_of);
    match factor {
        Factor::PromisesKept | Factor::AsksGranted => return act.share() * decay(age, policy.outcome_half_life),
        Factor::PromisesBroken | Factor::AsksDeclined => return decay(age, policy.outcome_half_life),
        Factor::Promotions | Factor::Violations => return decay(age, policy.harm_half_life),
        _ => {}
    }
    let worth = act.share() * policy.kind(act.kind).day_weight.max(f64::EPSILON)
        + (act.minutes(policy) / policy.effort_scale_minutes).ln_1p();
    let [.., longest] = policy.half_lives;
    worth * decay(age, longest)
}
