//! What the terminal is like, and keeping its echo from tearing the bars.

use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};

use rustix::process::getpgrp;
use rustix::termios::{LocalModes, OptionalActions, Termios, Winsize, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr};

/// The terminal as it was before [`hush`], and as it is since.
static BEFORE: Mutex<Option<(File, Termios, Termios)>> = Mutex::new(None);

/// Returns the columns of a terminal; one that doesn't know its size is asked through `COLUMNS`, and has 80 at last.
pub(crate) fn columns(size: Option<Winsize>) -> usize {
    let told = size.map(|size| usize::from(size.ws_col)).filter(|&columns| columns > 0);
    let named = || std::env::var("COLUMNS").ok()?.parse().ok().filter(|columns| (10..=10_000).contains(columns));
    told.or_else(named).unwrap_or(80)
}

/// Returns columns and rows of the terminal behind standard error.
pub(crate) fn size() -> (usize, usize) {
    let size = tcgetwinsize(io::stderr()).ok();
    let rows = size.map(|size| usize::from(size.ws_row)).filter(|&rows| rows > 0);
    (columns(size), rows.unwrap_or(24))
}

/// Returns whether bars can be drawn on standard error: a terminal with a cursor, and ours.
pub(crate) fn can_draw() -> bool {
    let ours = tcgetpgrp(io::stderr()).is_ok_and(|group| group == getpgrp());
    ours && std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// Returns whether the terminal shows more than ASCII.
pub(crate) fn is_utf8() -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"].iter().filter_map(std::env::var_os).find(|value| !value.is_empty());
    set.is_some_and(|value| {
        let value = value.to_string_lossy().to_ascii_lowercase();
        value.contains("utf-8") || value.contains("utf8")
    })
}

/// Keeps the terminal from writing `^C` into the bars.
pub(crate) fn hush() {
    let Ok(terminal) = File::options().read(true).write(true).open("/dev/tty") else { return };
    let Ok(before) = tcgetattr(&terminal) else { return };
    let mut hushed = before.clone();
    hushed.local_modes.remove(LocalModes::ECHOCTL);
    set(&terminal, &hushed);
    *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some((terminal, before, hushed));
}

/// Undoes [`hush`].
pub(crate) fn unhush() {
    if let Some((terminal, before, _)) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        set(&terminal, &before);
    }
}

/// Undoes [`hush`] for as long as the program is stopped.
pub(crate) fn let_go() {
    if let Some((terminal, before, _)) = &*BEFORE.lock().unwrap_or_else(PoisonError::into_inner) {
        set(terminal, before);
    }
}

/// Hushes again, if it was hushed before the program was stopped.
pub(crate) fn take_back() {
    if let Some((terminal, _, hushed)) = &*BEFORE.lock().unwrap_or_else(PoisonError::into_inner) {
        set(terminal, hushed);
    }
}

/// Sets the modes and returns whether that was done: in the background the kernel would stop us for it.
pub(crate) fn set(terminal: &File, modes: &Termios) -> bool {
    let ours = tcgetpgrp(terminal).is_ok_and(|group| group == getpgrp());
    ours && tcsetattr(terminal, OptionalActions::Now, modes).is_ok()
}
