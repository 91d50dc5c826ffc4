//! What the numbers amount to: unknown is not zero, and each status has a history that a person would call by that name.

use proptest::prelude::*;
use rapport::{
    domain::{ConnectionStatus, Kind, Timestamp},
    scoring::{Act, Interval},
};

use crate::history::*;

fn is_unknown(history: &History) -> bool {
    let is_prior = |interval: Interval| {
        (interval.probability - policy().prior).abs() <= ROUNDING && interval.upper - interval.lower > 0.3
    };
    let standing = history.standing();
    is_prior(standing.they_would_help)
        && is_prior(standing.you_would_help)
        && standing.status == ConnectionStatus::Unknown
}

proptest! {
    #![proptest_config(config(128))]

    #[test]
    fn no_evidence_is_unknown_however_busy_the_two_are_elsewhere(history in histories()) {
        prop_assert!(is_unknown(&history.silenced(THEY).silenced(YOU)));
    }
}

/// The same act on each of these days.
fn on_days(kind: Kind, days: impl IntoIterator<Item = i64>) -> Vec<Act> {
    days.into_iter().map(|days| act(kind, day(days))).collect()
}

fn status(acts: [Vec<Act>; 2], as_of: Timestamp) -> ConnectionStatus {
    History::new(acts, as_of).standing().status
}

#[test]
fn strangers_are_unknown() {
    assert!(is_unknown(&History::new(Default::default(), day(0))));
}

#[test]
fn a_favour_and_a_few_messages_are_budding() {
    let acts = [on_days(Kind::Help, [95]), on_days(Kind::Message, [80, 90, 95, 99])];
    assert_eq!(status(acts, day(100)), ConnectionStatus::Budding);
}

#[test]
fn three_favours_within_a_month_lift_a_stranger_tenfold() {
    let acts = [on_days(Kind::Help, [75, 85, 95]), Vec::new()];
    let willingness = History::new(acts, day(100)).standing().they_would_help;
    assert!(willingness.probability > 10.0 * policy().prior, "{willingness:?}");
}

#[test]
fn helping_somebody_who_only_takes_is_one_sided() {
    let acts = [on_days(Kind::Reaction, [50, 99]), on_days(Kind::Help, [40, 50, 60, 70, 80, 85, 90, 95, 99])];
    assert_eq!(status(acts, day(100)), ConnectionStatus::OneSided);
}

#[test]
fn helping_each_other_is_real() {
    let acts = [on_days(Kind::Help, [60, 75, 90, 98]), on_days(Kind::Help, [55, 70, 85, 99])];
    assert_eq!(status(acts, day(100)), ConnectionStatus::Real);
}

#[test]
fn friends_who_lost_touch_are_fading() {
    let acts = [on_days(Kind::Help, [60, 75, 90, 98]), on_days(Kind::Help, [55, 70, 85, 99])];
    assert_eq!(status(acts, day(500)), ConnectionStatus::Fading);
}

#[test]
fn friends_of_whom_one_reports_the_other_are_broken() {
    let mut acts = [on_days(Kind::Help, [60, 75, 90]), on_days(Kind::Help, [55, 70, 85])];
    acts[YOU].extend(on_days(Kind::Violation, [99]));
    assert_eq!(status(acts, day(100)), ConnectionStatus::Broken);
}

#[test]
fn a_stranger_who_keeps_promoting_is_broken() {
    let acts = [on_days(Kind::Promotion, 90..99), Vec::new()];
    assert_eq!(status(acts, day(100)), ConnectionStatus::Broken);
}
