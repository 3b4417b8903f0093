//! Signals, what they leave behind, and going on with it by `haul resume`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are outside of tests

mod clearing;
mod forget;
mod list;
mod options;
mod resume;
mod scene;
mod signals;
#[allow(dead_code)] // it has more than is needed here
#[path = "../secrets/stage.rs"]
mod stage;
#[allow(unreachable_pub)] // other tests have it in a module
#[path = "../support/data.rs"]
#[allow(dead_code)] // each suite uses a part of it
mod support;
mod terminal;
