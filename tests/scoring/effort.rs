//! What going out of one's way earns: more of it more, splitting and broadcasting it nothing more.

use std::time::Duration;

use proptest::{prelude::*, sample::subsequence};
use rapport::{
    domain::Kind,
    scoring::{Act, fold_tie},
};

use crate::history::*;

/// Asks that were answered yes, then no, on the days before `as_of`, by them.
fn answered(yes: &[i64], no: &[i64]) -> History {
    let as_of = day(1_000);
    let answers =
        yes.iter().map(|days| (Kind::AskGranted, days)).chain(no.iter().map(|days| (Kind::AskDeclined, days)));
    let (mut asks, mut replies) = (Vec::new(), Vec::new());
    for (place, (kind, days)) in answers.enumerate() {
        let ask = Act { id: id(format_args!("ask {place}")), ..act(Kind::Ask, later(as_of, -days)) };
        replies.push(Act { id: id(format_args!("answer {place}")), ..settling(kind, &ask, ask.time) });
        asks.push(ask);
    }
    History::new([replies, asks], as_of)
}

proptest! {
    #![proptest_config(config(512))]

    #[test]
    fn more_help_never_lowers_either_willingness(history in histories(), help in acts(&HELP), who in 0..2_usize) {
        let help = history.one_more(who, help);
        neither_higher(&history, &history.with(who, help))?;
    }

    #[test]
    fn generosity_is_never_punished_for_being_unreturned(
        history in histories(),
        favours in prop::collection::vec(acts(&HELP[..3]), 1..5),
    ) {
        let mut generous = history.silenced(THEY);
        for favour in favours {
            let favour = generous.one_more(YOU, favour);
            let more = generous.with(YOU, favour);
            neither_higher(&generous, &more)?;
            generous = more;
        }
    }

    #[test]
    fn broadcasting_earns_no_more_in_total_than_speaking_to_one(broadcast in acts(&POSITIVE), group_size in group()) {
        let evidence = |group_size: u32| {
            let tie = fold_tie(&[Act { group_size, ..broadcast.clone() }], policy()).unwrap();
            tie.evidence_at(later(broadcast.time, 1), policy()).to_array()
        };
        for (each, one) in evidence(group_size).into_iter().zip(evidence(1)) {
            prop_assert!(f64::from(group_size) * each <= one * (1.0 + 1e-9), "{group_size} times {each} is over {one}");
        }
    }

    #[test]
    fn broadcasting_gains_no_more_with_any_recipient_than_speaking_to_them(
        history in histories(),
        broadcast in acts(&POSITIVE),
        group_size in group(),
        who in 0..2_usize,
    ) {
        let broadcast = history.one_more(who, Act { group_size, ..broadcast });
        let spoken = Act { group_size: 1, ..broadcast.clone() };
        neither_higher(&history.with(who, broadcast), &history.with(who, spoken))?;
    }

    #[test]
    fn splitting_an_act_never_pays(
        history in histories(),
        whole in acts(&Kind::ALL),
        seconds in 0..86_400_u64,
        percent in 0..=100_u64,
        who in 0..2_usize,
    ) {
        let first = seconds * percent / 100;
        let part = |name: &str, seconds: u64| Act {
            id: id(name),
            effort: Some(Duration::from_secs(seconds)),
            ..history.one_more(who, whole.clone())
        };
        let split = history.with(who, part("one more", first)).with(who, part("one more again", seconds - first));
        neither_higher(&split, &history.with(who, part("one more", seconds)))?;
    }
}

fn group() -> impl Strategy<Value = u32> {
    prop_oneof![2..20_u32, 20..=1_000_000_000_u32]
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn a_thousand_reactions_do_not_outrank_three_favours(
        reaction_days in prop::collection::vec(0..1_000_i64, 1_000),
        favour_days in subsequence((0..30_i64).collect::<Vec<_>>(), 3),
    ) {
        let as_of = day(1_000);
        let on_days = |kind: Kind, days: Vec<i64>| days.into_iter().map(|days| act(kind, later(as_of, -days))).collect();
        let reactions: Vec<Act> = on_days(Kind::Reaction, reaction_days);
        let favours: Vec<Act> = on_days(Kind::Help, favour_days);
        let [reactions, favours] = [reactions, favours].map(|acts| History::new([acts, Vec::new()], as_of).standing());
        prop_assert!(favours.they_would_help.lower > reactions.they_would_help.lower);
        prop_assert!(favours.they_would_help.probability > reactions.they_would_help.probability);
        prop_assert!(favours.mutual.lower > reactions.mutual.lower);
    }

    #[test]
    fn one_lucky_favour_never_beats_eighteen_of_twenty(
        lucky in 0..365_i64,
        yes in prop::collection::vec(0..365_i64, 18),
        no in prop::collection::vec(0..365_i64, 2),
    ) {
        let (one, many) = (answered(&[lucky], &[]).willingness(THEY), answered(&yes, &no).willingness(THEY));
        prop_assert!(many.lower > one.lower, "{} is not over {}", many.lower, one.lower);
    }
}
