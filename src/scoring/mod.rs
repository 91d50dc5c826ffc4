//! The pure core: from what people did for each other to whom one can count on, and why.
//!
//! Nothing here reads a clock, waits, or knows of a database or a wire format: time is an argument, and the same acts
//! give the same numbers in whatever order they arrive.
//!
//! # How to read a score
//!
//! A willingness is the probability that one person goes out of their way for another within 30 days. Each has a
//! `probability`, the best estimate, and an interval from `lower` to `upper` that claims 80 %. Rankings go by `lower`: what a
//! person can count on, not what might be. `mutual` is the harmonic mean of both willingnesses of a pair, high only when both
//! are.
//!
//! - **A probability of 0.0014 with the interval 0 to 0.36 means "unknown"**: the belief about a stranger. Evidence narrows the
//!   interval.
//! - **Help counts as it is.** Attention counts as far as it is returned, or as far as others answer the person who pays it. A
//!   message to thousands that nobody answers counts nothing.
//! - **Acts of both persons elsewhere count too**: they tell whether a person is around at all, and how much of the other's
//!   life the tie is.
//! - **Silence moves a score back toward 0.0014.** A no moves a score below: an ask declined, or a promise or an ask left open
//!   past the day it was due. Broken trust moves it further below.
//! - **Lively weeks and old friendships both show.** The age of the latest day that counts, and the sum over a year, count side
//!   by side. Outcomes of promises and asks fade with a half-life of a year, harm with a half-life of two years. Ages are whole
//!   UTC days, so between two midnights only new records change a score.
//!
//! The status is the first of these that applies. The thresholds are those of the built-in policy:
//!
//! | status | condition |
//! |---|---|
//! | `BROKEN` | a willingness is below 0.0014, and promises broken, promotions and violations count for at least 1 trial in it |
//! | `REAL` | both probabilities are at least 0.11: within half a year an act is likelier than not |
//! | `FADING` | both were at the latest interaction, with both persons as much around as they last were |
//! | `ONE_SIDED` | one of them is at least 0.11 |
//! | `BUDDING` | one of them is at least 0.03: within two years an act is likelier than not |
//! | `UNKNOWN` | none of the above |
//!
//! # The model
//!
//! **Days.** Everything that one person does toward another on one UTC day is gathered in a [`DayCell`] first. A day counts
//! as active, and as a day of help, to the degree `w` of its best act, at most 1: however many messages it held, it is one
//! day. An act toward many is divided by their number. The `m` minutes of help of a day earn the credit
//! `w · ln(1 + m / (w · s)) / ln(1 + 30 / s)` with `s` = 15 minutes, which is 1 for half an hour: concave, so splitting an act
//! earns nothing, and in total no more for many than for one.
//!
//! **Ties.** A [`Tie`] keeps the sum of its days `Σ f(d) · 2^(−age(d) / H)`, of attention `a` and of help `h`, for half-lives
//! `H` of 1, 7, 30 and 365 days. Such sums can be brought forward and added to in any order (*forward decay*: Cormode,
//! Shkapenyuk, Srivastava and Xu, ICDE 2009). How promises and asks came out decays with a half-life of a year, harm with
//! one of two. Ages are whole UTC days: between two midnights nothing changes but by what is recorded.
//!
//! **Rhythms.** A person's [`Rhythm`] keeps the same sums over all ties of theirs: tie-days sent, received, and of help. Seen
//! from one pair, what that pair did is taken out of it, so that nothing done within a pair changes what it is set against;
//! that is what ties keep the clocks between the shortest and the longest for.
//!
//! **What counts.** Of x toward y, help counts as it is, and attention as far as it is returned, or as far as others answer x:
//!
//! ```text
//! c(x→y) = max(h(x→y), min(a(x→y), a(y→x) + φ(x) · a(x→y)))      φ(x) = min(1, 3 · received(x) / sent(x))
//! ```
//!
//! where `φ` looks at others than y on the longest clock. Somebody who pushes to thousands and is answered by nobody has
//! `φ` = 0, and gains nothing by it anywhere.
//!
//! **Intensity.** The [`Terms`] are logarithms `ln(1 + v / ε)` of
//!
//! | terms | of | `ε` |
//! |---|---|---|
//! | `own_share_365`, `other_share_365` | `c(x→y)` and `c(y→x)`, divided by 1 + what y sends to and receives from others | 0.3 |
//! | `own_365` | `c(x→y)` | 0.3 days |
//! | `help_365` | `h(x→y)` | 0.3 days |
//! | `last` | `1 / (1 + age)`, with the age of the latest day that counts, of either | 0.01 |
//! | `around_7`, `around_30`, `around_365` | what x sends to others | 1 tie-day |
//! | `helping_30`, `helping_365` | x's help to anybody | 1 tie-day |
//! | `other_sent_30`, `other_received_30` | what goes on around y: it moves probabilities, not rankings | 1 tie-day |
//!
//! The age is `−log2(c(x→y) + c(y→x))`, at least 0, on the clock that halves every day: within one day, it is that of the
//! latest day, and a day that counts little is as good as an older one.
//!
//! Their weights are the `w ≥ 0` of the [`Policy`]; with them the expected number of effortful acts of x toward y within
//! the horizon (30 days unless the policy says otherwise) is
//!
//! ```text
//! λ = λ0 + S / (S + 0.01) · exp(b + Σ w·term)      S = c(x→y) + c(y→x) on the longest clock
//! ```
//!
//! a log-linear (Cobb-Douglas) rate above that of strangers, `λ0`, to which it returns as evidence fades. The chance of at
//! least one such act, if they come as a Poisson process, is `1 − exp(−λ)`.
//!
//! **Willingness.** The belief is a Beta distribution with `b0` fixed and `a = b0 · (exp(λ) − 1)`, whose mean is that
//! chance, and which grows sharper with evidence. Promises kept and asks granted add to `a`; promises broken, asks declined,
//! commitments left open, promotions and violations add to `b`. Reported are the mean `a / (a + b)` and the 80 % score
//! interval for `a` successes in `a + b` trials (Wilson, JASA 1927); rankings go by its lower end.
//!
//! **The event.** A willingness of x toward y is the probability that x, within the horizon, does something for y: help, an
//! introduction, an endorsement, a promise kept or an ask granted; in a history that knows no help, any act toward y but a
//! reaction.
//!
//! Every way in which `a` or `b` changes is monotone, and with it the laws: more help never lowers a willingness, a
//! violation never raises one, silence leads back to the prior, and only a no or broken trust leads below it.
//!
//! **State.** A tie keeps 14 sums, 3 numbers of its open day and 17 counters, a rhythm 12 sums: 204 and 96 bytes of numbers.
//! An act changes one tie and two rhythms, however long their histories. How the weights of [`DEFAULT`] were found, and how
//! they do on real histories, is told in [`evaluation`](crate::evaluation).

mod commitment;
mod credit;
mod document;
mod explain;
mod fold;
mod policy;
mod rank;
mod rhythm;
mod standing;
mod terms;
mod tie;
mod willingness;

pub use commitment::{Commitment, CommitmentKey, Effect, Outcome};
pub use credit::{Act, CELL_LEN, DayCell, DayEvidence};
pub use document::DocumentFault;
pub use explain::{Factor, Part, Source, Weighed, explain, heaviest};
pub use fold::{PairFold, agree, fold_pair, fold_rhythm, fold_tie, person_days};
pub use policy::{BUILT_IN_PREFIX, CLOCKS, DEFAULT, KindPolicy, Policy};
pub use rank::{RankKey, rank_key};
pub use rhythm::{PersonDay, RHYTHM_LEN, Rhythm};
pub use standing::{Outlook, Pair, Side, Standing};
pub use terms::{FIRST_AROUND, FIRST_OCCASION, HELP, TERM_NAMES, TERMS, Terms};
pub use tie::{EVIDENCE_LEN, Evidence, Tie};
pub use willingness::{Interval, Steps, Tally};
