//! The service as its callers see it: a real server over real connections on a real PostgreSQL.

#![allow(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::float_cmp,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test fails by panicking, and may look at the clock"
)]

mod access;
mod addresses;
mod answers;
mod as_of;
mod authority;
mod bench;
mod certificates;
mod cli;
mod client;
mod clocks;
mod collector;
mod connections;
mod contention;
mod distributed;
mod doctor;
mod errors;
mod evaluated;
mod failover;
mod faults;
mod feed;
mod freshness;
mod guarded;
mod harness;
mod history;
mod hostile;
mod import;
mod import_breaks;
mod kills;
mod large;
mod limits;
mod logs;
mod model;
mod oracle;
mod outages;
mod paging;
mod plans;
mod policies;
mod policy_commands;
mod private;
mod process;
mod program;
mod proxy;
mod rebuild;
mod recording;
mod replica;
mod roles;
mod silence;
mod standby;
mod standing;
mod starts;
mod storage;
mod streaming;
mod surface;
mod telemetry;
mod tokens;
mod upgrades;
mod wire;
