//! `haul sync`: one tree becomes equal to another, wherever they are, and nothing is lost on the way.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[path = "../support/mod.rs"]
mod support;

mod deleting;
mod equal;
mod faults;
mod kinds;
mod scene;
mod servers;
mod unreadable;
