//! Keeping score act by act, as the store does it, comes to the same as folding the whole history at once.

use std::collections::BTreeMap;

use proptest::{prelude::*, sample::Index};
use rapport::{
    domain::{InteractionId, Kind, Timestamp},
    scoring::{Act, Commitment, CommitmentKey, DayCell, Effect, PersonDay, Rhythm, Tie, fold_tie},
};

use crate::history::*;

/// What is kept of a pair, and the ledger it can be derived from again.
#[derive(Default)]
struct Kept {
    ledger: [Vec<Act>; 2],
    /// Of each: what others did toward them, and what they did toward others.
    elsewhere: [[Vec<Act>; 2]; 2],
    ties: [Option<Tie>; 2],
    rhythms: [Option<Rhythm>; 2],
    commitments: [BTreeMap<InteractionId, Commitment>; 2],
}

impl Kept {
    fn record(&mut self, who: usize, act: &Act) {
        let effect = CommitmentKey::of(act).map_or(Effect::None, |key| {
            let committed = if key.actor_is_committed { who } else { 1 - who };
            self.commitments[committed].entry(key.id).or_default().take_in(act, policy())
        });
        let day = act.time.day();
        let mut tie = self.ties[who].take().unwrap_or_else(|| Tie::empty(act.time));
        let earlier = tie.cell_of(day).unwrap_or_else(|| {
            let mut cell = DayCell::default();
            self.ledger[who].iter().filter(|act| act.time.day() == day).for_each(|act| cell.gather(act, policy()));
            cell
        });
        let gained = tie.absorb_day(day, earlier, [(act, effect == Effect::Decides)], policy());
        self.ledger[who].push(act.clone());
        let again = effect == Effect::Overrules;
        self.ties[who] = if again { fold_tie(&self.ledger[who], policy()) } else { Some(tie) };
        let sent = PersonDay { sent: gained.active, helped: gained.helped, received: 0.0 };
        self.record_day(who, act.time, &sent);
        self.record_day(1 - who, act.time, &PersonDay { received: gained.active, ..PersonDay::default() });
    }

    fn record_day(&mut self, who: usize, time: Timestamp, gained: &PersonDay) {
        self.rhythms[who].get_or_insert_with(|| Rhythm::empty(time)).absorb(time, gained, policy());
    }

    /// What one of the two did toward others, or others toward them; all of it is of one tie.
    fn record_elsewhere(&mut self, who: usize, sent: bool, time: Timestamp, kind: Kind) {
        let acts = &mut self.elsewhere[who][usize::from(sent)];
        let of_day = |acts: &[Act]| {
            let mut cell = DayCell::default();
            acts.iter().filter(|act| act.time.day() == time.day()).for_each(|act| cell.gather(act, policy()));
            cell.evidence(policy())
        };
        let before = of_day(acts);
        acts.push(act(kind, time));
        let after = of_day(acts);
        let (active, helped) = (after.active - before.active, after.helped - before.helped);
        let gained = if sent {
            PersonDay { sent: active, helped, received: 0.0 }
        } else {
            PersonDay { received: active, ..PersonDay::default() }
        };
        self.record_day(who, time, &gained);
    }

    fn agrees_with(&self, history: &History) -> Result<(), TestCaseError> {
        let folded = history.folded();
        prop_assert_eq!(&self.commitments, &folded.fold.commitments);
        for who in [THEY, YOU] {
            match (&self.ties[who], &folded.fold.ties[who]) {
                (Some(kept), Some(folded)) => prop_assert!(kept.agrees_with(folded), "{kept:?}\nis not {folded:?}"),
                (kept, folded) => prop_assert_eq!(kept, folded),
            }
            match (&self.rhythms[who], &folded.rhythms[who]) {
                (Some(kept), Some(folded)) => prop_assert!(kept.agrees_with(folded), "{kept:?}\nis not {folded:?}"),
                (kept, folded) => prop_assert_eq!(kept, folded),
            }
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Entry {
    Here(usize, Act),
    Elsewhere(usize, bool, Timestamp, Kind),
}

fn record_all(entries: &[Entry]) -> Kept {
    let mut kept = Kept::default();
    for entry in entries {
        match entry {
            Entry::Here(who, act) => kept.record(*who, act),
            Entry::Elsewhere(who, sent, time, kind) => kept.record_elsewhere(*who, *sent, *time, *kind),
        }
    }
    kept
}

fn entries(history: &History) -> Vec<Entry> {
    let sides = || [THEY, YOU].into_iter();
    let here = sides().flat_map(|who| history.acts[who].iter().map(move |act| Entry::Here(who, act.clone())));
    let elsewhere = sides().flat_map(|who| {
        let sent = history.elsewhere[who].iter().map(move |(time, kind)| Entry::Elsewhere(who, true, *time, *kind));
        sent.chain(history.answers[who].iter().map(move |(time, kind)| Entry::Elsewhere(who, false, *time, *kind)))
    });
    here.chain(elsewhere).collect()
}

/// A history and what it consists of, in any order.
fn shuffled() -> impl Strategy<Value = (History, Vec<Entry>)> {
    histories().prop_flat_map(|history| {
        let entries = entries(&history);
        (Just(history), Just(entries).prop_shuffle())
    })
}

/// Several outcomes of few promises, so that they overrule each other.
fn contested() -> impl Strategy<Value = (History, Vec<Entry>)> {
    shuffled().prop_map(|(mut history, mut entries)| {
        let few = |act: &mut Act| {
            if act.kind.settles() {
                act.refers_to = Some(id(format_args!("promise {}", act.time.micros() % 3)));
            }
        };
        history.acts.iter_mut().flatten().for_each(few);
        for entry in &mut entries {
            if let Entry::Here(_, act) = entry {
                few(act);
            }
        }
        (history, entries)
    })
}

proptest! {
    #![proptest_config(config(512))]

    #[test]
    fn arrival_in_any_order_comes_to_the_same((history, entries) in prop_oneof![shuffled(), contested()]) {
        record_all(&entries).agrees_with(&history)?;
    }

    #[test]
    fn the_order_of_a_history_does_not_matter_to_its_fold((history, entries) in prop_oneof![shuffled(), contested()]) {
        let mut other = History::new(Default::default(), history.as_of);
        for entry in entries {
            match entry {
                Entry::Here(who, act) => other.acts[who].push(act),
                Entry::Elsewhere(who, true, time, kind) => other.elsewhere[who].push((time, kind)),
                Entry::Elsewhere(who, false, time, kind) => other.answers[who].push((time, kind)),
            }
        }
        neither_higher(&history, &other)?;
        neither_higher(&other, &history)?;
    }

    #[test]
    fn retracting_an_act_returns_the_state_that_never_knew_it(
        (history, entries) in prop_oneof![shuffled(), contested()],
        retracted in any::<Index>(),
    ) {
        prop_assume!(history.acts.iter().any(|acts| !acts.is_empty()));
        let acts: Vec<_> = history.acts.iter().flatten().collect();
        let retracted = retracted.get(&acts).id.clone();
        let mut without = history.clone();
        without.acts.iter_mut().for_each(|acts| acts.retain(|act| act.id != retracted));
        let mut unknowing = entries;
        unknowing.retain(|entry| !matches!(entry, Entry::Here(_, act) if act.id == retracted));
        record_all(&unknowing).agrees_with(&without)?;
    }
}

#[test]
fn retracting_an_outcome_opens_its_commitment_again() {
    let promise = Act { due_time: Some(day(10)), ..act(Kind::Promise, day(1)) };
    let open = History::new([vec![promise.clone()], Vec::new()], day(20));
    let kept = open.with(THEY, settling(Kind::PromiseKept, &promise, day(5)));
    let left_open =
        |history: &History| history.folded().fold.commitments[THEY][&promise.id].left_open(history.as_of, policy());
    assert!(left_open(&open) > 0.9);
    assert_eq!(left_open(&kept), 0.0);
    let mut retracted = kept;
    retracted.acts[THEY].retain(|act| act.kind != Kind::PromiseKept);
    assert_eq!(retracted.folded().fold, open.folded().fold);
}
