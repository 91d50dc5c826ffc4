//! Rapport keeps track of real relationships: who would go out of their way for whom.
//!
//! Callers record what people do for and to each other; Rapport ranks each person's connections by that evidence and says
//! why. Calls flow `rpc → service → store → scoring → domain`: the wire is converted in [`rpc`], use cases are in
//! [`service`], SQL in [`store`], the pure model with its formulas in [`scoring`], the nouns in [`domain`]; how well the model
//! does is measured by [`evaluation`]. Who may call what is decided by [`access`]. [`client`] calls a server. [`app`] wires them
//! together as [`config`] says, over a database of the operator's or the private one of [`embedded`].

pub mod access;
pub mod app;
pub mod cli;
pub mod client;
pub mod config;
pub mod domain;
pub mod embedded;
pub mod evaluation;
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
