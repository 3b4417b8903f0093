//! Moving files, protocol-blind.
//!
//! A [`Task`] says what to make where; [`run`] carries out a stream of them and tells an [`Observer`] what happens.
//! One file goes: entry known or one `stat` → journal → part file opened at the offset that is proven → copy → finish →
//! verify → rename into place. The parts: `run` (many tasks at once) → `job` (one file: skip, attempts, retries) →
//! `attempt` (one try) → `streams` (of one file, over `segments`) → `copy` (the one loop that moves bytes), with `journal`,
//! `proof`, `part`, `verify`, `rate` and `lock` beside them. What is left of earlier runs: `leftover` (of this transfer),
//! `interrupted` (of any), `settled` and `aftermath` (what the power may have taken). `single` streams one file to or
//! from a pipe.

mod aftermath;
mod attempt;
mod blocks;
mod controller;
mod copy;
mod descriptors;
mod folder;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod installation;
mod interrupted;
mod job;
mod journal;
mod lanes;
mod leftover;
mod lock;
mod memory;
mod notes;
mod part;
mod proof;
mod rate;
mod retry;
mod room;
mod run;
mod segments;
mod settled;
mod single;
mod streams;
mod taken;
mod types;
mod verify;

pub use folder::Folder;
pub use interrupted::{About, Interrupted, State, interrupted};
pub use memory::remembered_connections;
pub use notes::{Request, Stopped};
pub(crate) use part::is_part_name;
pub(crate) use retry::Budget;
pub use run::run;
pub use settled::Boot;
pub use single::{read_out, write_in};
pub use types::{Event, Existing, Job, Location, Observer, Options, Outcome, Status, Summary, Task, Verified, Verify};
