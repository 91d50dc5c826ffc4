//! What single acts are worth, and how the acts of one pair on one day add up. How days add up over time is in `tie`.

use std::time::Duration;

use crate::domain::{InteractionId, Kind, KindGroup, Timestamp};

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
    /// The part of it that one recipient can take as meant for them, in (0, 1].
    pub(super) fn share(&self, policy: &Policy) -> f64 {
        share(self.group_size, policy)
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
        minutes * (1.0 + bonus) * self.share(policy)
    }
}

/// What one person did toward another on one day. Gathering acts into it does not depend on their order.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DayCell {
    /// How active a day it was, 0 to 1: the best of its acts, not their number.
    pub active: f64,
    /// How much a day of help it was, 0 to 1: the best of its acts.
    pub helped: f64,
    /// How much a day of ideas and thanks it was, 0 to 1: the best of its acts.
    pub shared: f64,
    /// Minutes of presence, uncapped.
    pub presence_minutes: f64,
    /// Minutes that went into ideas and thanks.
    pub idea_minutes: f64,
    /// Minutes that went into help.
    pub help_minutes: f64,
}

/// The evidence that one day amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct DayEvidence {
    pub active: f64,
    pub helped: f64,
    pub presence: f64,
    pub ideas: f64,
    pub help: f64,
}

/// How many numbers [`DayCell`] holds.
pub const CELL_LEN: usize = 6;

impl DayCell {
    /// All numbers in a fixed order, for storage.
    pub fn to_array(&self) -> [f64; CELL_LEN] {
        [self.active, self.helped, self.shared, self.presence_minutes, self.idea_minutes, self.help_minutes]
    }

    /// The numbers from that order.
    pub fn from_array([active, helped, shared, presence_minutes, idea_minutes, help_minutes]: [f64; CELL_LEN]) -> Self {
        Self { active, helped, shared, presence_minutes, idea_minutes, help_minutes }
    }

    /// Takes in one more act of the day.
    pub fn gather(&mut self, act: &Act, policy: &Policy) {
        let share = act.share(policy);
        self.active = self.active.max(share * policy.kind(act.kind).day_weight);
        if act.kind.helps() {
            self.helped = self.helped.max(share);
            self.help_minutes += act.minutes(policy);
        } else if act.kind.group() == KindGroup::Ideas {
            self.shared = self.shared.max(share);
            self.idea_minutes += act.minutes(policy);
        } else if act.kind.group() == KindGroup::Presence {
            self.presence_minutes += act.minutes(policy);
        }
    }

    pub(super) fn evidence(&self, policy: &Policy) -> DayEvidence {
        // A day that counts in part holds only as much: `w·ln(1 + m / (w·s))` is `1/n` of the whole for `1/n` of both,
        // so that a broadcast earns in total what one recipient would, and grows with `w` as with `m`.
        let credit = |worth: f64, minutes: f64| {
            if worth > 0.0 { worth * (minutes / (worth * policy.effort_scale_minutes)).ln_1p() } else { 0.0 }
        };
        DayEvidence {
            active: self.active,
            helped: self.helped,
            presence: credit(self.active, self.presence_minutes.min(self.active * policy.presence_cap_minutes)),
            ideas: credit(self.shared, self.idea_minutes),
            help: credit(self.helped, self.help_minutes),
        }
    }
}

/// The part of something meant for a group that each of them can take as meant for them, in (0, 1].
pub(super) fn share(group_size: u32, policy: &Policy) -> f64 {
    f64::from(group_size.max(1)).powf(-policy.group_power)
}

/// Whether an act of this kind shows that its actor is around.
pub(super) fn shows_around(kind: Kind, policy: &Policy) -> bool {
    policy.kind(kind).day_weight > 0.0
}
