//! That scores are sound numbers, fade as they should, rank totally, and split into parts that add up.

use std::{cmp::Ordering, time::Duration};

use proptest::{prelude::*, sample::select, test_runner::TestCaseResult};
use rapport::{
    domain::{Kind, PersonId, RankOrder, Timestamp},
    scoring::{Act, Factor, Interval, Outlook, Source, Standing, Weighed, explain, heaviest, rank_key},
};

use crate::history::*;

const ORDERS: [RankOrder; 4] =
    [RankOrder::Mutual, RankOrder::TheyWouldHelp, RankOrder::YouWouldHelp, RankOrder::LastInteraction];

fn sound(interval: Interval) -> TestCaseResult {
    let Interval { probability, lower, upper } = interval;
    prop_assert!((0.0..=1.0).contains(&lower) && lower <= probability && probability <= upper && upper <= 1.0);
    Ok(())
}

/// Less than rankings tell apart.
const HAIR: f64 = 1e-12;

/// How two scores are ordered by what rankings tell apart of them.
fn nine_decimals(one: f64, other: f64) -> Ordering {
    let [one, other] = [one, other].map(|score| (score * 1e9).round());
    one.total_cmp(&other)
}

/// Acts at the bounds of what an interaction may say, each of them up to 300 times.
fn extremes() -> impl Strategy<Value = History> {
    let latest = Timestamp::MAX.micros();
    let times = prop_oneof![Just(0), Just(latest), Just(day(0).micros()), 0..=latest, 0..DAY_MICROS]
        .prop_map(|micros| Timestamp::from_micros(micros).unwrap());
    let efforts = select(&[0, 1, 60, 30 * 86_400][..]).prop_map(Duration::from_secs);
    let sizes = select(&[1, 2, 100, 1_000_000_000_u32][..]);
    let many = (0..2_usize, select(&Kind::ALL[..]), times, efforts, sizes, any::<bool>(), 1..300_usize);
    (prop::collection::vec(many, 1..8), any::<bool>()).prop_map(|(many, forever)| {
        let mut history = History::new(Default::default(), Timestamp::MIN);
        for (place, (who, kind, time, effort, group_size, generous, times)) in many.into_iter().enumerate() {
            history.as_of = history.as_of.max(time);
            let one = Act { group_size, unprompted: generous, serves_goal: generous, ..act(kind, time) };
            history.acts[who].extend((0..times).map(|time| Act {
                id: id(format_args!("{place}.{time}")),
                effort: generous.then_some(effort),
                refers_to: Some(id(format_args!("{}.{time}", place / 2))),
                ..one.clone()
            }));
        }
        history.as_of = if forever { Timestamp::MAX } else { history.as_of };
        history
    })
}

/// Later times to read a history at, in order, up to a hundred years later.
fn times_after(history: &History, mut days: Vec<i64>) -> Vec<Timestamp> {
    days.sort_unstable();
    days.push(36_525);
    days.into_iter().map(|days| later(history.as_of, days)).collect()
}

fn no_part_is_amiss(history: &History) -> TestCaseResult {
    let folded = history.folded();
    let (pair, standing) = (folded.pair(), history.standing());
    let probabilities = [standing.they_would_help.probability, standing.you_would_help.probability];
    for (who, (parts, probability)) in explain(&pair, history.as_of, policy()).iter().zip(probabilities).enumerate() {
        let sum: f64 = parts.iter().map(|part| part.contribution).sum();
        prop_assert!((sum - probability).abs() <= ROUNDING, "{sum} is not {probability}");
        for part in parts {
            let sign = match part.factor {
                Factor::Prior
                | Factor::Help
                | Factor::Exchange
                | Factor::Goodwill
                | Factor::Around
                | Factor::PromisesKept
                | Factor::AsksGranted => 1.0,
                Factor::PromisesBroken
                | Factor::AsksDeclined
                | Factor::LeftOpen
                | Factor::Promotions
                | Factor::Violations => -1.0,
            };
            prop_assert!(part.contribution * sign >= -ROUNDING, "the sign of {part:?} is wrong");
            let own = history.acts[who].iter().map(|act| (act, Source::Own));
            let given: Vec<Weighed<'_>> =
                own.chain(history.acts[1 - who].iter().map(|act| (act, Source::Other))).collect();
            let named = heaviest(part, given.iter().copied(), history.as_of, policy(), 3);
            prop_assert!(named.len() <= 3 && named.iter().all(|id| given.iter().any(|(act, _)| act.id == *id)));
            let rests_on_acts = !matches!(part.factor, Factor::Prior | Factor::Around);
            prop_assert_eq!(!named.is_empty(), rests_on_acts, "{:?}", part);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(config(48))]

    #[test]
    fn scores_are_sound_at_the_extremes(history in extremes()) {
        let Standing { they_would_help, you_would_help, mutual, .. } = history.standing();
        [they_would_help, you_would_help, mutual].into_iter().try_for_each(sound)?;
        prop_assert_eq!(history.outlook(), Outlook { they_would_help, you_would_help, mutual });
        no_part_is_amiss(&history)?;
    }

    #[test]
    fn ranks_are_a_total_order_with_the_peer_last(
        pairs in prop::collection::vec(histories(), 1..4),
        names in Just((0..12_usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let read = |history: &History| (history.outlook(), history.folded().pair().last_time());
        let (mut pairs, count) = (pairs.iter().map(read).collect::<Vec<_>>(), pairs.len());
        // The same again, but with nothing mutual: equals in three of the orders. And again, by a hair higher: equals in all.
        pairs.extend_from_within(..);
        pairs[count..].iter_mut().for_each(|(outlook, _)| outlook.mutual = Interval::default());
        pairs.extend_from_within(..count);
        pairs[2 * count..].iter_mut().for_each(|(outlook, _)| outlook.mutual.lower += HAIR);
        for order in ORDERS {
            let mut ranked: Vec<_> = names
                .iter()
                .map(|name| {
                    let (outlook, last_time) = pairs[name % pairs.len()];
                    let peer = PersonId::parse(&format!("peer {name}")).unwrap();
                    (rank_key(order, &outlook, last_time, &peer), outlook, last_time)
                })
                .collect();
            ranked.sort_by(|(one, ..), (other, ..)| one.cmp(other));
            for ((above, above_outlook, above_time), (below, below_outlook, below_time)) in
                ranked.iter().zip(&ranked[1..])
            {
                let higher = |score: fn(&Outlook) -> f64| nine_decimals(score(below_outlook), score(above_outlook));
                let primary = match order {
                    RankOrder::Mutual => higher(|outlook| outlook.mutual.lower),
                    RankOrder::TheyWouldHelp => higher(|outlook| outlook.they_would_help.lower),
                    RankOrder::YouWouldHelp => higher(|outlook| outlook.you_would_help.lower),
                    RankOrder::LastInteraction => below_time.cmp(above_time),
                };
                let secondary = higher(|outlook| outlook.mutual.lower);
                let rule = primary.then(secondary).then_with(|| above.peer.cmp(&below.peer));
                prop_assert_eq!(rule, Ordering::Less, "{:?}", order);
            }
        }
    }
}

proptest! {
    #![proptest_config(config(512))]

    #[test]
    fn scores_are_sound(history in histories()) {
        let Standing { they_would_help, you_would_help, mutual, .. } = history.standing();
        [they_would_help, you_would_help, mutual].into_iter().try_for_each(sound)?;
        prop_assert_eq!(history.outlook(), Outlook { they_would_help, you_would_help, mutual });
    }

    #[test]
    fn an_explanation_adds_up_and_names_what_was_done(history in histories()) {
        no_part_is_amiss(&history)?;
    }

    #[test]
    fn swapping_the_two_swaps_the_two_numbers(history in histories()) {
        let mut swapped = history.clone();
        swapped.acts.swap(THEY, YOU);
        swapped.elsewhere.swap(THEY, YOU);
        swapped.answers.swap(THEY, YOU);
        let (one, other) = (history.standing(), swapped.standing());
        prop_assert_eq!((one.they_would_help, one.you_would_help), (other.you_would_help, other.they_would_help));
        prop_assert_eq!((one.mutual, one.status), (other.mutual, other.status));
    }
}

proptest! {
    #![proptest_config(config(192))]

    #[test]
    fn silence_leads_back_to_the_prior_and_not_below(
        history in histories_of(&POSITIVE),
        days in prop::collection::vec(0..2_000_i64, 0..10),
    ) {
        for who in [THEY, YOU] {
            let mut before = history.willingness(who);
            for time in times_after(&history, days.clone()) {
                let now = history.at(time).willingness(who);
                no_higher(now, before)?;
                prop_assert!(now.probability >= policy().prior - ROUNDING);
                before = now;
            }
            prop_assert!((before.probability - policy().prior).abs() < 1e-6);
        }
    }

    #[test]
    fn broken_trust_recovers_toward_the_prior_and_not_above(
        history in histories_of(&NEGATIVE),
        days in prop::collection::vec(0..2_000_i64, 0..10),
    ) {
        for who in [THEY, YOU] {
            let mut before = history.willingness(who);
            for time in times_after(&history, days.clone()) {
                let now = history.at(time).willingness(who);
                no_higher(before, now)?;
                prop_assert!(now.probability <= policy().prior + ROUNDING);
                before = now;
            }
            prop_assert!((before.probability - policy().prior).abs() < 1e-6);
        }
    }
}
