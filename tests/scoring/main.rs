//! The laws of scoring, each a property of every history: whatever people do for and to each other, these hold. No
//! database, no clock. What a history is and how it is read is in `history`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::float_cmp,
    reason = "a test fails by panicking, and what is exact is compared exactly"
)]

mod effort;
mod history;
mod meaning;
mod numbers;
mod record;
mod trust;
