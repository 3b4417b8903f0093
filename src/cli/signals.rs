//! Ctrl-C, SIGTERM and SIGHUP: once stops in order, twice at once. Ctrl-Z: the terminal is the shell's meanwhile. SIGUSR1:
//! the rate limit is read again.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use futures_util::FutureExt;
use haul::{Error, Result};
use nix::sys::signal::{SigSet, Signal as Kind, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::context::Context;
use super::report::Exit;
use super::{prompt, terminal};

/// Signals this close together are one: `timeout` sends its own to the process and then to its group.
const TOGETHER: Duration = Duration::from_millis(100);
/// How long an orderly stop may take before the user is told how to hurry it.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the bars may take to be out of the way.
const CLEARING: Duration = Duration::from_millis(100);

/// Keeps SIGTSTP and SIGCONT for [`watch`]; called before there are threads, which do the same then. Programs that haul starts don't.
///
/// A handler could not stop the program as the system does by itself, which leaves those alone that nobody could continue.
pub(crate) fn hold_back_stops() {
    // Without it, Ctrl-Z leaves the terminal as it is during a run.
    let _ = held_back().thread_block();
}

/// Keeps SIGUSR1 until [`watch`] hears it: whoever sends it early must not end the program. Called first of all.
pub(crate) fn hold_back_early() {
    let _ = early().thread_block();
}

/// Watches for signals until the program ends, on a thread of its own: it answers even if all others are stuck.
pub(crate) fn watch(context: &Arc<Context>) -> Result<()> {
    let failed = |e| Error::io("watch for signals", e);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let ignored = ignored_signals();
    let inside = runtime.enter();
    let mut signals = Vec::new();
    {
        // A file that may not grow further (`ulimit -f`) is an error like any other, and no end of the program.
        let _inside = runtime.enter();
        let _handled = signal(SignalKind::from_raw(nix::libc::SIGXFSZ)).map_err(failed)?;
    }
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        // `nohup haul …` and `haul … &` in a script start us with a signal ignored: it stays so.
        if !is_ignored(ignored, kind) {
            signals.push(signal(kind).map_err(failed)?);
        }
    }
    let mut again = match is_ignored(ignored, SignalKind::user_defined1()) {
        true => None,
        false => Some(signal(SignalKind::user_defined1()).map_err(failed)?),
    };
    drop(inside);
    let _ = early().thread_unblock();
    let stopped = Arc::clone(context);
    let wait = move || {
        runtime.block_on(async {
            tokio::join!(stop(&stopped, &mut signals), read_again(&stopped, again.as_mut()));
        });
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).map_err(failed)?;
    let held_back = SignalFd::with_flags(&held_back(), SfdFlags::SFD_CLOEXEC).map_err(|e| failed(e.into()))?;
    let context = Arc::clone(context);
    let wait = move || pause(&context, &held_back);
    std::thread::Builder::new().name("stops".into()).spawn(wait).map_err(failed)?;
    Ok(())
}

async fn stop(context: &Arc<Context>, signals: &mut [Signal]) {
    any(signals).await;
    context.limits.stopped_by_signal();
    context.cancel.cancel();
    tokio::time::sleep(TOGETHER).await;
    for signal in &mut *signals {
        let _ = signal.recv().now_or_never();
    }
    tokio::select! {
        () = any(signals) => {}
        () = tokio::time::sleep(PATIENCE) => {
            // Where nobody takes what is written, the next signal counts even so.
            let told = Arc::clone(context);
            let tell = move || told.note("haul: stopping in order; press Ctrl-C again to stop at once");
            let _ = std::thread::Builder::new().spawn(tell);
            any(signals).await;
        }
    }
    prompt::restore_terminal();
    terminal::unhush();
    context.recorder.close_soon(Exit::Interrupted);
    with_bars_away(context, || std::process::exit(Exit::Interrupted.code().into()));
}

/// Reads the settings again with each SIGUSR1, elsewhere: a disk that hangs must not keep Ctrl-C from being heard.
async fn read_again(context: &Arc<Context>, signal: Option<&mut Signal>) {
    let Some(signal) = signal else { return };
    while signal.recv().await.is_some() {
        let context = Arc::clone(context);
        let _ = std::thread::Builder::new().spawn(move || context.limits.read_again(&context));
    }
}

async fn any(signals: &mut [Signal]) {
    if signals.is_empty() {
        std::future::pending::<()>().await;
    }
    let waits = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
    futures_util::future::select_all(waits).await;
}

/// Gives the terminal back while the program is stopped, and takes it again.
fn pause(context: &Arc<Context>, held_back: &SignalFd) {
    while let Ok(Some(signal)) = held_back.read_signal() {
        if i32::try_from(signal.ssi_signo) == Ok(Kind::SIGTSTP as i32) {
            prompt::let_go();
            terminal::let_go();
            with_bars_away(context, stop_here);
        }
        // It may not have stopped at all; and it may have gone on after a SIGSTOP, or be back from the background.
        terminal::take_back();
        prompt::take_back();
    }
}

/// Stops the program as the system does, unless nobody could continue it.
fn stop_here() {
    let mut stop = SigSet::empty();
    stop.add(Kind::SIGTSTP);
    if raise(Kind::SIGTSTP).is_ok() && stop.thread_unblock().is_ok() {
        // Here it was stopped, and goes on.
        let _ = stop.thread_block();
    }
}

/// Runs something once the bars are away, or can't be: somebody may be answering a question, and they are away then.
fn with_bars_away(context: &Arc<Context>, action: impl FnOnce()) {
    let ((cleared, is_cleared), (done, is_done)) = (mpsc::channel(), mpsc::channel::<()>());
    let screen = Arc::clone(&context.screen);
    let clear = move || {
        screen.suspend(|| {
            let _ = cleared.send(());
            let _ = is_done.recv();
        });
    };
    if std::thread::Builder::new().spawn(clear).is_ok() {
        let _ = is_cleared.recv_timeout(CLEARING);
    }
    action();
    drop(done);
}

/// SIGTSTP, and the SIGCONT behind it: that one goes on with the program even so.
fn held_back() -> SigSet {
    [Kind::SIGTSTP, Kind::SIGCONT].into_iter().collect()
}

/// SIGUSR1.
fn early() -> SigSet {
    [Kind::SIGUSR1].into_iter().collect()
}

fn is_ignored(ignored: u64, kind: SignalKind) -> bool {
    ignored >> (kind.as_raw_value() - 1) & 1 == 1
}

/// Returns the set of ignored signals, bit `n - 1` for signal `n`; Linux alone tells it without a system call that
/// safe Rust lacks.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
