//! How two people stand with each other: both willingnesses, what is mutual in them, and what that amounts to.

use crate::domain::{ConnectionStatus, Timestamp};

use super::{Commitment, Evidence, Interval, Policy, Rhythm, Steps, Terms, Tie, rhythm::Elsewhere, willingness::Tally};

/// What one person of a pair has shown toward the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Side<'a> {
    /// The tie, if they ever acted toward the other.
    pub tie: Option<&'a Tie>,
    /// Their own rhythm, if they ever acted at all.
    pub rhythm: Option<&'a Rhythm>,
    /// What they committed to toward the other.
    pub commitments: &'a [Commitment],
}

/// A pair, as its owner sees it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pair<'a> {
    /// What the peer has shown toward the owner.
    pub theirs: Side<'a>,
    /// What the owner has shown toward the peer.
    pub yours: Side<'a>,
}

/// What can be expected of a pair at a point in time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// The willingness of the peer toward the owner.
    pub they_would_help: Interval,
    /// The willingness of the owner toward the peer.
    pub you_would_help: Interval,
    /// What is mutual in the two.
    pub mutual: Interval,
}

/// How a pair stands at a point in time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// The willingness of the peer toward the owner.
    pub they_would_help: Interval,
    /// The willingness of the owner toward the peer.
    pub you_would_help: Interval,
    /// What is mutual in the two.
    pub mutual: Interval,
    /// What it amounts to.
    pub status: ConnectionStatus,
}

impl Side<'_> {
    fn evidence(&self, as_of: Timestamp, policy: &Policy) -> Evidence {
        self.tie.map(|tie| tie.evidence_at(as_of, policy)).unwrap_or_default()
    }

    fn left_open(&self, as_of: Timestamp, policy: &Policy) -> f64 {
        self.commitments.iter().map(|commitment| commitment.left_open(as_of, policy)).sum()
    }
}

impl Pair<'_> {
    /// What can be expected of the pair at `as_of`, which is not earlier than any act in it; less work than how it stands.
    pub fn outlook(&self, as_of: Timestamp, policy: &Policy) -> Outlook {
        let [they, you] = self.steps(as_of, policy);
        Outlook::of([&they, &you], policy)
    }

    /// How the pair stands at `as_of`, which is not earlier than any act in it.
    pub fn standing(&self, as_of: Timestamp, policy: &Policy) -> Standing {
        let [they, you] = self.steps(as_of, policy);
        let Outlook { they_would_help, you_would_help, mutual } = Outlook::of([&they, &you], policy);
        let (they_probably, you_probably) = (they_would_help.probability, you_would_help.probability);
        let (lower, higher) = (they_probably.min(you_probably), they_probably.max(you_probably));
        let status = if they.is_broken(they_would_help.probability, policy)
            || you.is_broken(you_would_help.probability, policy)
        {
            ConnectionStatus::Broken
        } else if lower >= policy.real_from {
            ConnectionStatus::Real
        } else if self.was_real(policy) {
            ConnectionStatus::Fading
        } else if higher >= policy.real_from {
            ConnectionStatus::OneSided
        } else if higher >= policy.budding_from {
            ConnectionStatus::Budding
        } else {
            ConnectionStatus::Unknown
        };
        Standing { they_would_help, you_would_help, mutual, status }
    }

    /// Both willingnesses, step by step: the peer's, then the owner's.
    pub fn steps(&self, as_of: Timestamp, policy: &Policy) -> [Steps; 2] {
        let evidence = self.evidence(as_of, policy);
        let elsewhere = [0, 1].map(|own| self.elsewhere(own, as_of, &evidence, policy));
        let terms = terms(&evidence, &elsewhere);
        let open = [self.theirs.left_open(as_of, policy), self.yours.left_open(as_of, policy)];
        [0, 1].map(|own| Steps {
            terms: terms[own],
            tally: Tally::new(&evidence[own], &evidence[1 - own], open[own], policy),
        })
    }

    /// What the peer, or the owner, does beside the pair, whose evidence is that as of `as_of` too.
    fn elsewhere(&self, own: usize, as_of: Timestamp, evidence: &[Evidence; 2], policy: &Policy) -> Elsewhere {
        let of = |rhythm: &Rhythm| rhythm.elsewhere(as_of, &evidence[own], &evidence[1 - own], policy);
        [self.theirs, self.yours][own].rhythm.map_or(Elsewhere::default(), of)
    }

    fn evidence(&self, as_of: Timestamp, policy: &Policy) -> [Evidence; 2] {
        [self.theirs.evidence(as_of, policy), self.yours.evidence(as_of, policy)]
    }

    /// The latest act either way.
    pub fn last_time(&self) -> Option<Timestamp> {
        [self.theirs.tie, self.yours.tie].into_iter().flatten().map(|tie| tie.last_time).max()
    }

    /// The earliest act either way.
    pub fn first_time(&self) -> Option<Timestamp> {
        [self.theirs.tie, self.yours.tie].into_iter().flatten().map(|tie| tie.first_time).min()
    }

    /// Whether it was real when they last interacted, if both had been around as they were lately.
    fn was_real(&self, policy: &Policy) -> bool {
        let Some(then) = self.last_time() else { return false };
        let evidence = self.evidence(then, policy);
        let elsewhere = [0, 1].map(|own| {
            let around = [self.theirs, self.yours][own].rhythm.map_or(then, |rhythm| rhythm.last_time.max(then));
            self.elsewhere(own, around, &self.evidence(around, policy), policy)
        });
        let terms = terms(&evidence, &elsewhere);
        [0, 1].into_iter().all(|own| {
            let tally = Tally::new(&evidence[own], &evidence[1 - own], 0.0, policy);
            Steps { terms: terms[own], tally }.interval(policy).probability >= policy.real_from
        })
    }
}

impl Outlook {
    fn of([they, you]: [&Steps; 2], policy: &Policy) -> Self {
        let (they_would_help, you_would_help) = (they.interval(policy), you.interval(policy));
        Self { they_would_help, you_would_help, mutual: they_would_help.mutual(you_would_help) }
    }
}

/// What is known for both willingnesses, the peer's first.
fn terms(evidence: &[Evidence; 2], elsewhere: &[Elsewhere; 2]) -> [Terms; 2] {
    [0, 1].map(|own| Terms::new(&evidence[own], &evidence[1 - own], &elsewhere[own], &elsewhere[1 - own]))
}
