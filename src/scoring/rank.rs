//! The order of a ranking. It is a total order: the derived `Ord` of the key is the rule, and the peer's id comes last.

use std::cmp::Reverse;

use crate::domain::{PersonId, RankOrder, Timestamp};

use super::Outlook;

/// Where a connection stands in a ranking: the smallest key comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RankKey {
    /// What the order goes by, highest first: the billionths of a score, or the microseconds of a time.
    pub primary: Reverse<u64>,
    /// The lower bound of what is mutual, likewise, among equals.
    pub secondary: Reverse<u64>,
    /// The peer.
    pub peer: PersonId,
}

/// The key of one connection in an order.
pub fn rank_key(order: RankOrder, outlook: &Outlook, last_time: Option<Timestamp>, peer: &PersonId) -> RankKey {
    let primary = match order {
        RankOrder::LastInteraction => last_time.map_or(0, |time| time.micros().unsigned_abs()),
        _ => billionths(outlook.score(order)),
    };
    RankKey { primary: Reverse(primary), secondary: Reverse(billionths(outlook.mutual.lower)), peer: peer.clone() }
}

/// A score as it is told apart from others. The same evidence, kept step by step or folded at once, differs by rounding;
/// the order must not, or a page would begin at another place than the one before it ended.
fn billionths(score: f64) -> u64 {
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a score lies within [0, 1]"
    )]
    let billionths = (score * 1e9).round() as u64;
    billionths
}

impl Outlook {
    /// The lower bound that an order goes by; that of what is mutual when it goes by time.
    pub fn score(&self, order: RankOrder) -> f64 {
        match order {
            RankOrder::TheyWouldHelp => self.they_would_help.lower,
            RankOrder::YouWouldHelp => self.you_would_help.lower,
            RankOrder::Mutual | RankOrder::LastInteraction => self.mutual.lower,
        }
    }
}
