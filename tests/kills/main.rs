//! SIGKILL at any instant, of haul and of the server: then the same command again, and the file is whole.
//!
//! A few instants a way in the suite. `HAUL_CHAOS_KILLS=200` is the long form; `HAUL_SEED` repeats a failure.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[path = "../support/mod.rs"]
mod support;

mod haul;
mod left;
mod moment;
mod scene;
mod server;

/// How many instants each way is tried at.
fn kills(quick: u32) -> u32 {
    std::env::var("HAUL_CHAOS_KILLS").map_or(quick, |text| text.parse().expect("HAUL_CHAOS_KILLS is a number"))
}
