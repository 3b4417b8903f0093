//! What to do about a full disk: how much is needed, and how much is free.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::run::Context;
use super::types::{Job, Location};
use crate::error::{Error, ErrorKind};

/// Adds to an error what the user can do about it, where it is about room. `needed` is what is still to be moved, if
/// known; `kept` is the part, where a later run goes on with it.
pub(super) fn advise(error: Error, ctx: &Context, job: &Job, needed: Option<u64>, kept: Option<&Location>) -> Error {
    let journals = ctx.journals.display().to_string();
    if error.path().is_some_and(|path| path.starts_with(&journals)) {
        return advise_about_state(error, &ctx.options.state_dir);
    }
    if error.kind() != ErrorKind::NoSpace {
        return error;
    }
    if let Some(source) = std::error::Error::source(&error).and_then(|e| e.downcast_ref::<std::io::Error>())
        && source.kind() == std::io::ErrorKind::FileTooLarge
    {
        return error.with_hint("the file is longer than this file system or `ulimit -f` allows");
    }
    let again = match kept {
        Some(part) => format!("it goes on where it stopped, with {}", part.path),
        None => "nothing of it is left there".to_owned(),
    };
    let needed = needed.filter(|&bytes| bytes > 0).map(|bytes| format!("{bytes} bytes more"));
    let free = free(&job.destination).filter(|_| needed.is_some()).map(|bytes| format!("{bytes} are free"));
    let numbers: Vec<_> = [needed, free].into_iter().flatten().collect();
    let numbers = if numbers.is_empty() { String::new() } else { format!(" ({})", numbers.join("; ")) };
    error.with_hint(format!("make room{numbers}, then run the same command again: {again}"))
}

/// Adds to an error about the state folder where else the state could be.
pub(super) fn advise_about_state(error: Error, state: &Path) -> Error {
    error.with_hint(format!(
        "haul keeps journals in {}, which needs room and permission to write; XDG_STATE_HOME names another place",
        state.display()
    ))
}

/// Returns how many bytes this user may still write where a file of this machine goes.
fn free(at: &Location) -> Option<u64> {
    if !at.transport.capabilities().local {
        return None;
    }
    let parent = at.path.parent()?;
    let disk = rustix::fs::statvfs(Path::new(OsStr::from_bytes(parent.as_bytes()))).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}
