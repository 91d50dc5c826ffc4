//! The order of a ranking. It is a total order: the derived `Ord` of the key is the rule, and the peer's id comes last.

use std::cmp::Reverse;

use crate::domain::{PersonId, RankOrder, Timestamp};

use super::Standing;

/// Where a connection stands in a ranking: the smallest key comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RankKey {
    /// What the order goes by, highest first: the bits of a score, which order like the score for numbers from 0 up, or
    /// the microseconds of a time.
    pub primary: Reverse<u64>,
    /// The lower bound of what is mutual, likewise, among equals.
    pub secondary: Reverse<u64>,
    /// The peer.
    pub peer: PersonId,
}

/// The key of one connection in an order.
pub fn rank_key(order: RankOrder, standing: &Standing, last_time: Option<Timestamp>, peer: &PersonId) -> RankKey {
    let primary = match order {
        RankOrder::LastInteraction => last_time.map_or(0, |time| time.micros().unsigned_abs()),
        _ => standing.score(order).to_bits(),
    };
    RankKey { primary: Reverse(primary), secondary: Reverse(standing.mutual.lower.to_bits()), peer: peer.clone() }
}

impl Standing {
    /// The lower bound that an order goes by; that of what is mutual when it goes by time.
    pub fn score(&self, order: RankOrder) -> f64 {
        match order {
            RankOrder::TheyWouldHelp => self.they_would_help.lower,
            RankOrder::YouWouldHelp => self.you_would_help.lower,
            RankOrder::Mutual | RankOrder::LastInteraction => self.mutual.lower,
        }
    }
}
