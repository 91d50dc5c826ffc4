//! What breaks trust, what only pushes, and what was promised or asked.

use proptest::{prelude::*, sample::select};
use rapport::{
    domain::Kind,
    scoring::{Act, Outcome},
};

use crate::history::*;

const HARM: [Kind; 2] = [Kind::Promotion, Kind::Violation];
const FAILURES: [Kind; 2] = [Kind::PromiseBroken, Kind::AskDeclined];
const OUTCOMES: [Kind; 4] = [Kind::PromiseKept, Kind::PromiseBroken, Kind::AskGranted, Kind::AskDeclined];
const PUSHES: [Kind; 4] = [Kind::Reaction, Kind::Message, Kind::Meeting, Kind::Promotion];

proptest! {
    #![proptest_config(config(512))]

    #[test]
    fn a_violation_or_a_promotion_never_raises_either_willingness(
        history in histories(),
        harm in acts(&HARM),
        who in 0..2_usize,
    ) {
        let harm = history.one_more(who, harm);
        neither_higher(&history.with(who, harm), &history)?;
    }

    /// Compared with the same commitment released: that it is no longer open is no gain from breaking it.
    #[test]
    fn a_broken_promise_or_a_declined_ask_never_raises_either_willingness(
        history in histories(),
        failure in acts(&FAILURES),
        who in 0..2_usize,
    ) {
        let failure = history.one_more(who, failure);
        let release = Act { id: id("release"), kind: Kind::PromiseReleased, ..failure.clone() };
        neither_higher(&history.with(who, failure), &history.with(1 - who, release))?;
    }

    /// Of somebody whom nobody answers: what is sent into silence everywhere is evidence of nothing.
    #[test]
    fn one_way_pushes_never_raise_they_would_help(
        history in histories(),
        pushes in prop::collection::vec(acts(&PUSHES), 1..10),
        who in 0..2_usize,
    ) {
        let mut one_way = history.unanswered().silenced(1 - who);
        for (place, push) in pushes.into_iter().enumerate() {
            let push = Act { id: id(format_args!("push {place}")), ..one_way.one_more(who, push) };
            let pushed = one_way.with(who, push);
            no_higher(pushed.willingness(THEY), one_way.willingness(THEY))?;
            one_way = pushed;
        }
    }

    #[test]
    fn pushing_beyond_what_is_returned_never_raises_they_would_help(
        history in histories(),
        pushes in prop::collection::vec(acts(&PUSHES), 1..10),
    ) {
        let mut matched = history.clone().unanswered();
        matched.acts[YOU].extend(history.acts[THEY].iter().map(|act| Act { id: id(format_args!("{} back", act.id.as_str())), ..act.clone() }));
        for push in pushes {
            let pushed = matched.with(YOU, matched.one_more(YOU, push));
            no_higher(pushed.willingness(THEY), matched.willingness(THEY))?;
            matched = pushed;
        }
    }

    #[test]
    fn a_commitment_left_open_lowers_until_it_is_settled_or_released(
        history in histories(),
        (promised, who) in (any::<bool>(), 0..2_usize),
        (made_days, due_days, late_days) in (0..900_i64, 0..60_i64, 0..40_i64),
        outcome in select(&OUTCOMES[..]),
    ) {
        let (made, due) = (day(made_days), day(made_days + due_days));
        let settled = later(due, late_days);
        let history = history.at(history.as_of.max(later(settled, 1)));
        let (kind, opener) = if promised { (Kind::Promise, who) } else { (Kind::Ask, 1 - who) };
        let opening = Act { id: id("opening"), due_time: Some(due), ..act(kind, made) };
        let open = history.with(opener, opening.clone());
        let endless = history.with(opener, Act { due_time: Some(later(history.as_of, 1)), ..opening.clone() });
        let released = open.with(1 - who, settling(Kind::PromiseReleased, &opening, settled));
        let settlement = settling(outcome, &opening, settled);
        let came_out = open.with(who, settlement.clone());
        let never_opened = endless.with(who, settlement);
        prop_assert!(open.willingness(who).probability < endless.willingness(who).probability);
        for (with, without) in [(&released, &endless), (&came_out, &never_opened)] {
            neither_higher(with, without)?;
            neither_higher(without, with)?;
        }
    }

    #[test]
    fn only_the_earliest_outcome_counts_in_whatever_order_they_come(
        outcomes in prop::collection::vec((select(&OUTCOMES[..]), 0..5_i64), 1..6),
        made_days in 0..5_i64,
    ) {
        let promise = act(Kind::Promise, day(made_days));
        let outcomes: Vec<Act> = outcomes
            .into_iter()
            .enumerate()
            .map(|(place, (kind, days))| Act { id: id(place), ..settling(kind, &promise, day(days)) })
            .collect();
        let earliest = outcomes.iter().min_by_key(|act| (act.time, act.id.clone())).unwrap();
        let acts = [&outcomes[..], std::slice::from_ref(&promise)].concat();
        let folded = History::new([acts, Vec::new()], day(5)).folded();
        let kept = &folded.fold.commitments[THEY][&promise.id];
        let decided = Outcome { time: earliest.time, id: earliest.id.clone() };
        prop_assert_eq!(kept.outcome.as_ref(), Some(&decided));
        let evidence = folded.fold.ties[THEY].as_ref().unwrap().evidence;
        let counted = [evidence.kept, evidence.broken, evidence.granted, evidence.declined];
        for (kind, sum) in OUTCOMES.into_iter().zip(counted) {
            prop_assert_eq!(sum > 0.0, kind == earliest.kind);
        }
    }
}

/// What is done on the day of reading neither hastens nor delays how older evidence fades.
#[test]
fn harm_fades_no_faster_for_what_is_done_today() {
    let now = day(100).saturating_add_micros(1);
    let harmed = |kind: Kind| {
        let harm = |place: i64| Act { id: id(place), refers_to: Some(id("promise")), ..act(kind, day(99)) };
        History::new([(0..10).map(harm).collect(), Vec::new()], now)
    };
    for (kind, today) in [(Kind::PromiseBroken, Kind::Reaction), (Kind::Violation, Kind::Promotion)] {
        neither_higher(&harmed(kind).with(THEY, act(today, now)), &harmed(kind)).unwrap();
    }
}

/// Every day a message to each of thousands, whom nobody answers: to each of them they stay a stranger.
#[test]
fn a_bot_that_pushes_to_thousands_gains_nothing() {
    let days = || 0..200_i64;
    let pushes = days().map(|days| act(Kind::Message, day(days))).collect();
    let mut history = History::new([pushes, Vec::new()], day(200));
    let all = days().flat_map(|days| std::iter::repeat_n((day(days), Kind::Message), 50));
    history.elsewhere[THEY] = all.collect();
    let stranger = History::new(Default::default(), day(200));
    for who in [THEY, YOU] {
        assert_eq!(history.willingness(who), stranger.willingness(who));
    }
}
