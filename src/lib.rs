//! haul moves files over FTP, FTPS and SFTP: resumable, verified, atomic.
//!
//! The map, from the ground up; each module uses only those above it in this list:
//!
//! - [`error`]: the one error type and the table of what may be tried again.
//! - [`endpoint`]: from URL to [`endpoint::Endpoint`]; no network.
//! - [`config`]: the file of settings and `.netrc`: from text to values; no disk, no network.
//! - [`batch`]: job files and command scripts: from text to what is to be done; no disk, no network.
//! - [`transport`]: the seam, [`transport::Transport`], and its backends: local, FTP, SFTP over three SSH engines.
//! - [`transfer`]: moving files, protocol-blind: part files, journals, retries, verification.
//! - [`plan`]: deciding what to move: globs, walks, where things land.
//! - `api`: the same for programs, [`get`], [`put`], [`sync`] and [`list`]; thin, over `plan`.
//! - [`serve`]: embedded SFTP and FTP servers for a folder; beside `transfer`, used by nothing but `cli`.
//! - `cli`: the command line.
//!
//! # For programs
//!
//! [`get`], [`put`], [`sync`] and [`list`] are where to begin; the folder `examples` has programs that run as they are. What is promised
//! to stay as it is from one version to the next is told in `docs/decisions/0025-library.md`.
//!
//! ```no_run
//! # async fn example() -> haul::Result<()> {
//! let report = haul::get("sftp://me@host/pub/photos", "downloads/")
//!     .recursive(true)
//!     .password("open sesame")
//!     .on_event(|event| println!("{event:?}"))
//!     .run()
//!     .await?;
//! println!("{} files, {} failed", report.summary().done, report.failures().len());
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod api;
pub mod batch;
pub mod config;
pub mod endpoint;
pub mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod plan;
pub mod serve;
pub mod transfer;
pub mod transport;

pub use api::{Canceller, Events, Failure, List, Listed, Report, SyncReport, Transfer, TreeSync, get, list, put, sync};
pub use error::{Error, ErrorKind, Result};
pub use plan::Filter;
pub use plan::compare::{By, Links};
pub use plan::sync::Change;
pub use transfer::{Event, Outcome, Status, Summary};
pub use transport::{HostKeyPolicy, Secret};
