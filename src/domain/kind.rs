//! The kinds of interaction and the groups they form.

/// What an interaction is. The numbers are those of the wire and of the database, and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A like, a follow, a nod.
    Reaction = 1,
    /// A message sent.
    Message = 2,
    /// A call, a meeting, joint work.
    Meeting = 3,
    /// A worthwhile idea or piece of information shared.
    Idea = 4,
    /// Thanks.
    Gratitude = 5,
    /// Something done for the recipient.
    Help = 6,
    /// Bringing the recipient together with somebody.
    Introduction = 7,
    /// Speaking up for the recipient.
    Endorsement = 8,
    /// The actor promises the recipient something.
    Promise = 9,
    /// The actor kept a promise to the recipient.
    PromiseKept = 10,
    /// The actor broke a promise to the recipient.
    PromiseBroken = 11,
    /// The actor lets the recipient off a promise.
    PromiseReleased = 12,
    /// The actor asks the recipient for something.
    Ask = 13,
    /// The actor says yes to an ask of the recipient.
    AskGranted = 14,
    /// The actor says no to an ask of the recipient.
    AskDeclined = 15,
    /// The actor pushes something self-serving at the recipient.
    Promotion = 16,
    /// The actor, harmed by the recipient, reports it.
    Violation = 17,
}

/// What kinds have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KindGroup {
    /// Attention: cheap, capped per pair and day.
    Presence,
    /// Ideas and thanks.
    Ideas,
    /// Going out of one's way.
    Help,
    /// Promises and what became of them.
    Promises,
    /// Asks and what became of them.
    Asks,
    /// What breaks trust.
    Harm,
}

impl Kind {
    /// How many there are.
    pub const COUNT: usize = 17;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Reaction,
        Self::Message,
        Self::Meeting,
        Self::Idea,
        Self::Gratitude,
        Self::Help,
        Self::Introduction,
        Self::Endorsement,
        Self::Promise,
        Self::PromiseKept,
        Self::PromiseBroken,
        Self::PromiseReleased,
        Self::Ask,
        Self::AskGranted,
        Self::AskDeclined,
        Self::Promotion,
        Self::Violation,
    ];

    /// The kind of that number.
    pub fn from_number(number: i32) -> Option<Self> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        Self::ALL.get(index).copied()
    }

    /// Its number, from 1.
    pub fn number(self) -> u8 {
        #[expect(clippy::as_conversions, reason = "the discriminant of a repr(u8) enum")]
        let number = self as u8;
        number
    }

    /// Its place in arrays with one entry a kind.
    pub fn index(self) -> usize {
        usize::from(self.number()) - 1
    }

    /// Its name in capitals, as callers write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reaction => "REACTION",
            Self::Message => "MESSAGE",
            Self::Meeting => "MEETING",
            Self::Idea => "IDEA",
            Self::Gratitude => "GRATITUDE",
            Self::Help => "HELP",
            Self::Introduction => "INTRODUCTION",
            Self::Endorsement => "ENDORSEMENT",
            Self::Promise => "PROMISE",
            Self::PromiseKept => "PROMISE_KEPT",
            Self::PromiseBroken => "PROMISE_BROKEN",
            Self::PromiseReleased => "PROMISE_RELEASED",
            Self::Ask => "ASK",
            Self::AskGranted => "ASK_GRANTED",
            Self::AskDeclined => "ASK_DECLINED",
            Self::Promotion => "PROMOTION",
            Self::Violation => "VIOLATION",
        }
    }

    /// Its group.
    pub fn group(self) -> KindGroup {
        match self {
            Self::Reaction | Self::Message | Self::Meeting => KindGroup::Presence,
            Self::Idea | Self::Gratitude => KindGroup::Ideas,
            Self::Help | Self::Introduction | Self::Endorsement => KindGroup::Help,
            Self::Promise | Self::PromiseKept | Self::PromiseBroken | Self::PromiseReleased => KindGroup::Promises,
            Self::Ask | Self::AskGranted | Self::AskDeclined => KindGroup::Asks,
            Self::Promotion | Self::Violation => KindGroup::Harm,
        }
    }

    /// Whether it is an act of going out of one's way: help, a promise kept, an ask granted.
    pub fn helps(self) -> bool {
        self.group() == KindGroup::Help || matches!(self, Self::PromiseKept | Self::AskGranted)
    }

    /// Whether it opens a commitment: something that has yet to be kept or answered.
    pub fn opens(self) -> bool {
        matches!(self, Self::Promise | Self::Ask)
    }

    /// Whether it settles a commitment, and so has to say which.
    pub fn settles(self) -> bool {
        self.is_outcome() || self == Self::PromiseReleased
    }

    /// Whether it tells how a commitment came out.
    pub fn is_outcome(self) -> bool {
        matches!(self, Self::PromiseKept | Self::PromiseBroken | Self::AskGranted | Self::AskDeclined)
    }

    /// Whether the one who acted is the one committed; else the recipient is.
    pub fn actor_is_committed(self) -> bool {
        self == Self::Promise || self.is_outcome()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_places_agree() {
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), index);
            assert_eq!(Kind::from_number(i32::from(kind.number())), Some(kind));
        }
        assert_eq!((Kind::from_number(0), Kind::from_number(18)), (None, None));
    }
}
