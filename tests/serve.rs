//! The embedded servers as their clients see them: OpenSSH's `sftp`, `lftp` and `curl`, whichever are installed, and
//! clients that do by hand what no program does.
//!
//! A client that isn't installed skips its test, loudly; `HAUL_TEST_NO_SKIP=1` makes that a failure.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "serve/clients.rs"]
mod clients;
#[path = "serve/ftp.rs"]
mod ftp;
#[path = "serve/guarding.rs"]
mod guarding;
#[path = "serve/limits.rs"]
mod limits;
#[path = "serve/packets.rs"]
mod packets;
#[path = "serve/raw.rs"]
mod raw;
#[path = "serve/scene.rs"]
mod scene;
#[path = "serve/sftp.rs"]
mod sftp;
