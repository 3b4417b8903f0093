//! `haul digest` and `haul check`: checksums that others read, lists that others wrote, trees that differ.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)] // helpers of tests are outside of tests

mod digest;
mod library;
mod scene;
#[path = "../transfer/server.rs"]
#[allow(dead_code, clippy::case_sensitive_file_extension_comparisons)] // it has more than is needed here
mod server;
#[allow(dead_code)] // it has more than is needed here
#[path = "../secrets/stage.rs"]
mod stage;
mod sums;
#[path = "../support/mod.rs"]
mod support;
mod trees;
