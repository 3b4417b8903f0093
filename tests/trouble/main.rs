//! Trouble on this machine and on the server's: no room, no permission, no way to write, and somebody who meddles.
//!
//! For each: a clear error with the right exit status, or a clean restart; never a wrong file, and nothing left behind
//! that no message names. What needs mounts or another user runs in a mount namespace of its own (`support/disk.rs`), and
//! is skipped where root isn't there. Errors of the device itself come from an ext4 whose image has no room to grow, as
//! device-mapper can't be counted on where tests run, and from a transport that gives them (`tests/transfer/trouble.rs`).
//! Quotas need a kernel that counts them: a limit on the size of files stands for them, whose error takes the same way.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![allow(clippy::case_sensitive_file_extension_comparisons)]

#[path = "../support/mod.rs"]
mod support;

mod disks;
mod meddling;
mod scene;
