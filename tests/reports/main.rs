//! What is told of a run afterwards, and what limits it: reports, metrics, the system's log, schedules, rates.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[path = "../support/mod.rs"]
mod support;

mod compared;
mod failing;
mod limits;
mod page;
mod scene;
mod syslog;
mod told;
