//! Moving files, protocol-blind.
//!
//! A [`Task`] says what to make where; [`run`] carries out a stream of them and tells an [`Observer`] what happens.
//! One file goes: entry known or one `stat` → journal → part file opened at the offset that is proven → copy → finish →
//! verify → rename into place. The parts: `run` (many tasks at once) → `job` (one file: skip, attempts, retries) →
//! `attempt` (one try) → `streams` (of one file, over `segments`) → `copy` (the one loop that moves bytes), with `journal`,
//! `proof`, `part`, `verify`, `rate` (by a `timetable`) and `lock` beside them. What is left of earlier runs: `leftover` (of this transfer),
//! `interrupted` (of any), `settled` and `aftermath` (what the power may have taken). `single` streams one file to or
//! from a pipe. `digester` tells what a file's contents come to, and moves nothing.

mod aftermath;
mod attempt;
mod backup;
mod blocks;
mod controller;
mod copy;
mod descriptors;
mod digester;
mod displaced;
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
mod state_dir;
mod streams;
mod taken;
mod timetable;
mod types;
mod verify;
mod within;

pub use backup::Backup;
pub use digester::{Asked, Digested, Digester};
pub(crate) use displaced::{displace, displaced, name_before, put_back};
pub use folder::Folder;
pub use interrupted::{About, Interrupted, State, interrupted};
pub use memory::remembered_connections;
pub use notes::{Request, Stopped};
pub(crate) use part::is_part_name;
pub use rate::{Allowance, Limiter};
pub(crate) use retry::Budget;
pub use run::run;
pub use settled::Boot;
pub(crate) use settled::may_have_lost_files;
pub use single::{read_out, write_in};
pub use state_dir::usual_state_dir;
pub use timetable::{Timetable, time as time_of_day};
pub use types::{Event, Existing, Job, Location, Observer, Options, Outcome, Status, Summary, Task, Verified, Verify};
pub(crate) use verify::common_algorithms;
