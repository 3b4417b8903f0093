//! Filters: what of a tree is moved, and what of it is never looked at.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod git;
mod here;
mod scene;
mod servers;
#[path = "../support/mod.rs"]
mod support;
