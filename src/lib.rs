//! Rapport keeps track of real relationships: who would go out of their way for whom.
//!
//! Callers record what people do for and to each other; Rapport ranks each person's connections by that evidence and says
//! why.
//!
//! # The house
//!
//! Calls flow `rpc → service → store → scoring → domain`, and each module knows only the modules after it:
//!
//! | module | content |
//! |---|---|
//! | [`rpc`] | the wire: converts requests and answers, names status codes |
//! | [`service`] | the use cases |
//! | [`store`] | all SQL |
//! | [`scoring`] | the pure model with its formulas, and how to read a score |
//! | [`domain`] | the nouns |
//! | [`evaluation`] | how well the model does, and how policies are judged and fitted |
//! | [`access`] | who may call what |
//! | [`client`] | a client for programs in Rust |
//! | [`cli`] | the commands |
//! | [`app`] | wires the modules together as [`config`] says |
//! | [`embedded`] | the private PostgreSQL, for operators who bring no database |
//! | [`telemetry`] | logs, traces and metrics |
//!
//! # Words
//!
//! - A **tenant** is one calling application's closed world. A **person** in it is an id that the application chose.
//! - An **interaction** is one act of an *actor* toward one or more *recipients*. The **ledger** is the append-only table of
//!   interactions: the truth from which everything else can be rebuilt.
//! - A **tie** is the evidence of one actor toward one recipient; the evidence fades. A **commitment** is a promise or an ask,
//!   with its outcome.
//! - A **connection** is what an *owner* sees of a *peer*: the tie each way, the scores and the reasons.
//! - A **hub** is a person with very many ties.

pub mod access;
pub mod app;
pub mod cli;
pub mod client;
pub mod config;
pub mod domain;
pub mod embedded;
pub mod evaluation;
mod files;
pub mod rpc;
pub mod scoring;
pub mod service;
pub mod store;
pub mod telemetry;

#[cfg(test)]
mod testing;

use std::{error::Error, iter::successors};

/// What caused an error, down to the first cause.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(error.source(), |cause: &&'a (dyn Error + 'static)| (*cause).source())
}

/// What went wrong, down to the first cause. A cause that was told already is not told again.
fn in_full(error: &(dyn Error + 'static)) -> String {
    causes(error).map(ToString::to_string).fold(error.to_string(), |sentence, cause| {
        if sentence.contains(&cause) { sentence } else { format!("{sentence}: {cause}") }
    })
}
