//! What single acts are worth, and how the acts of one pair on one day add up. How days add up over time is in `tie`.

use std::time::Duration;

use crate::domain::{Interaction, InteractionId, Kind, Timestamp};

use super::Policy;

/// One interaction as far as it concerns one recipient.
#[derive(Clone, Debug, PartialEq)]
pub struct Act {
    /// The interaction.
    pub id: InteractionId,
    /// When.
    pub time: Timestamp,
    /// What was done.
    pub kind: Kind,
    /// The actor's own time it took.
    pub effort: Option<Duration>,
    /// How many people it reached, at least 1.
    pub group_size: u32,
    /// Whether nobody had asked for it.
    pub unprompted: bool,
    /// Whether it served a stated goal of the recipient.
    pub serves_goal: bool,
    /// When it falls due.
    pub due_time: Option<Timestamp>,
    /// Which interaction it refers to.
    pub refers_to: Option<InteractionId>,
}

impl Act {
    /// What an interaction is to each of its recipients.
    pub fn of(interaction: &Interaction) -> Self {
        Self {
            id: interaction.id.clone(),
            time: interaction.time,
            kind: interaction.kind,
            effort: interaction.effort,
            group_size: interaction.group_size,
            unprompted: interaction.unprompted,
            serves_goal: interaction.goal.is_some(),
            due_time: interaction.due_time,
            refers_to: interaction.refers_to.clone(),
        }
    }

    /// The part of it that one recipient can take as meant for them, in (0, 1].
    pub(super) fn share(&self) -> f64 {
        share(self.group_size)
    }

    /// Minutes of effort for this recipient: the actor's time, with the bonus that generous help earns.
    pub(super) fn minutes(&self, policy: &Policy) -> f64 {
        let minutes = self.effort.map_or(policy.kind(self.kind).default_minutes, |effort| effort.as_secs_f64() / 60.0);
        let bonus = if self.kind.helps() {
            f64::from(u8::from(self.unprompted)) * policy.unprompted_bonus
                + f64::from(u8::from(self.serves_goal)) * policy.goal_bonus
        } else {
            0.0
        };
        minutes * (1.0 + bonus) * self.share()
    }
}

/// What one person did toward another on one day. Gathering acts into it does not depend on their order.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DayCell {
    /// How active a day it was, 0 to 1: the best of its acts, not their number.
    pub active: f64,
    /// How much a day of help it was, 0 to 1: the best of its acts.
    pub helped: f64,
    /// Minutes that went into help.
    pub help_minutes: f64,
}

/// The evidence that one day amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DayEvidence {
    /// Attention: how active a day it was, 0 to 1.
    pub active: f64,
    /// Help: its credit, 1 for half an hour.
    pub help: f64,
    /// How much a day of help it was, 0 to 1.
    pub helped: f64,
}

impl DayEvidence {
    pub(super) fn minus(&self, earlier: &Self) -> Self {
        Self {
            active: self.active - earlier.active,
            help: self.help - earlier.help,
            helped: self.helped - earlier.helped,
        }
    }
}

/// How many numbers [`DayCell`] holds.
pub const CELL_LEN: usize = 3;

impl DayCell {
    /// All numbers in a fixed order, for storage.
    pub fn to_array(&self) -> [f64; CELL_LEN] {
        [self.active, self.helped, self.help_minutes]
    }

    /// The numbers from that order.
    pub fn from_array([active, helped, help_minutes]: [f64; CELL_LEN]) -> Self {
        Self { active, helped, help_minutes }
    }

    /// Takes in one more act of the day.
    pub fn gather(&mut self, act: &Act, policy: &Policy) {
        let (share, worth) = (act.share(), policy.kind(act.kind));
        self.active = self.active.max(share * worth.day_weight);
        if worth.help_weight > 0.0 {
            self.helped = self.helped.max(share * worth.help_weight);
            self.help_minutes += act.minutes(policy) * worth.help_weight;
        }
    }

    /// What the day amounts to.
    pub fn evidence(&self, policy: &Policy) -> DayEvidence {
        DayEvidence { active: self.active, help: self.credit(policy), helped: self.helped }
    }

    /// `w·ln(1 + m / (w·s)) / ln(1 + 30 / s)`. A day that counts in part holds only as much: the credit is `1/n` of the
    /// whole for `1/n` of both, so that a broadcast earns in total what one recipient would, and grows with `w` as with `m`.
    fn credit(&self, policy: &Policy) -> f64 {
        let scale = policy.effort_scale_minutes;
        let unit = (FULL_MINUTES / scale).ln_1p();
        if self.helped > 0.0 { self.helped * (self.help_minutes / (self.helped * scale)).ln_1p() / unit } else { 0.0 }
    }
}

/// The minutes of help whose credit is 1.
const FULL_MINUTES: f64 = 30.0;

/// The part of something meant for a group that each of them can take as meant for them, in (0, 1]: no more in total than
/// one would, or broadcasting would pay.
pub(super) fn share(group_size: u32) -> f64 {
    1.0 / f64::from(group_size.max(1))
}

/// Whether an act of this kind shows that its actor is around.
pub(super) fn shows_around(kind: Kind, policy: &Policy) -> bool {
    policy.kind(kind).day_weight > 0.0
}
