//! haul moves files over FTP, FTPS and SFTP: resumable, verified, atomic.
//!
//! The map, from the ground up; each module uses only those above it in this list:
//!
//! - [`error`]: the one error type and the table of what may be tried again.
//! - [`endpoint`]: from URL to [`endpoint::Endpoint`]; no network.
//! - [`config`]: the file of settings and `.netrc`: from text to values; no disk, no network.
//! - [`transport`]: the seam, [`transport::Transport`], and its backends: local, FTP, SFTP over three SSH engines.
//! - [`transfer`]: moving files, protocol-blind: part files, journals, retries, verification.
//! - [`plan`]: deciding what to move: globs, walks, where things land.
//! - [`serve`]: embedded SFTP and FTP servers for a folder; beside `transfer`, used by nothing but `cli`.
//! - `cli`: the command line.

#![forbid(unsafe_code)]

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

pub use error::{Error, ErrorKind, Result};
