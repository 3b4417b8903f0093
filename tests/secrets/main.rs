//! Settings and secrets as a user meets them: where they come from, where they go, and where they never turn up.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod keyring;
mod leaks;
mod names;
mod passwords;
mod settings;
mod stage;
