//! The pure core: from what people did for each other to whom one can count on, and why.
//!
//! Nothing here reads a clock, waits, or knows of a database or a wire format: time is an argument, and the same acts
//! give the same numbers in whatever order they arrive.
//!
//! # The model
//!
//! **Days.** Everything that one person does toward another on one UTC day is gathered in a [`DayCell`] first. Minutes of
//! effort are divided by the size of the group an act reached, and presence is capped for the day. A day counts as active,
//! as a day of help and as one of ideas to the degree `w` of its best act, at most 1, and each sum `m` of minutes earns the
//! credit `w · ln(1 + m / (w · s))`: concave, so splitting an act earns nothing, and in total no more for many than for one.
//!
//! **Ties.** A [`Tie`] keeps the sum of its days' evidence `Σ f(d) · 2^(−age(d) / H)` for each clock, with half-lives `H` of
//! 3, 30 and 365 days. Such sums can be brought forward and added to in any order (*forward decay*: Cormode, Shkapenyuk,
//! Srivastava and Xu, ICDE 2009). How promises and asks came out decays with a half-life of a year, harm with one of two.
//!
//! **Intensity.** With `E` the evidence at the as-of time and `w ≥ 0` the weights of the [`Policy`], the willingness of x
//! toward y starts from
//!
//! ```text
//! S = q_help · Σ w·(help days, help, ideas of x toward y)
//!   + q_all  · Σ w·min(active days, presence of x toward y and of y toward x)
//!   +          Σ w·(help days, help, ideas of y toward x)            (goodwill earned)
//! λ = λ0 + κ · ln(1 + S / κ)
//! ```
//!
//! `λ` stands for the expected number of effortful acts over the coming 30 days, and the prior belief is the chance of at
//! least one of a Poisson number of them, `1 − exp(−λ)`. `q` dims what x showed y by x's own [`Rhythm`]: who has gone quiet
//! toward everybody is less likely to help. `min` lets attention count only as far as it was returned.
//!
//! **Willingness.** The belief is a Beta distribution with `b0` fixed and `a = b0 · (exp(λ) − 1)`, whose mean is that prior
//! belief, and which grows sharper with evidence. Promises kept and asks granted add to `a`; promises broken, asks declined,
//! commitments left open, promotions and violations add to `b`. Reported are the mean `a / (a + b)` and the 80 % score
//! interval for `a` successes in `a + b` trials (Wilson, JASA 1927); rankings go by its lower end.
//!
//! Every way in which `a` or `b` changes is monotone, and with it the laws: more help never lowers a willingness, a
//! violation never raises one, silence leads back to the prior, and only a no or broken
//! trust leads below it.

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
pub use policy::{CLOCKS, DEFAULT, KindPolicy, Policy};
pub use rank::{RankKey, rank_key};
pub use rhythm::{PersonDay, RHYTHM_LEN, Rhythm};
pub use standing::{Pair, Side, Standing};
pub use terms::{FIRST_OCCASION, HELP, TERM_NAMES, TERMS, Terms};
pub use tie::{EVIDENCE_LEN, Evidence, Tie};
pub use willingness::{Interval, Steps, Tally};
