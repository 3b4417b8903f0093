//! Ctrl-C, SIGTERM and SIGHUP: once stops in order, twice at once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use haul::{Error, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::context::Context;
use super::prompt::restore_terminal;
use super::report::Exit;

/// Signals this close together are one: `timeout` sends its own to the process and then to its group.
const TOGETHER: Duration = Duration::from_millis(100);
/// How long an orderly stop may take before the user is told how to hurry it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Watches for signals until the program ends, on a thread of its own: it answers even if all others are stuck.
pub(crate) fn watch(context: &Arc<Context>) -> Result<()> {
    let failed = |e| Error::io("watch for signals", e);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let ignored = ignored_signals();
    let mut signals = Vec::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        // `nohup haul …` and `haul … &` in a script start us with a signal ignored: it stays so.
        if ignored >> (kind.as_raw_value() - 1) & 1 == 0 {
            let _inside = runtime.enter();
            signals.push(signal(kind).map_err(failed)?);
        }
    }
    let context = Arc::clone(context);
    let wait = move || runtime.block_on(stop(&context, &mut signals));
    std::thread::Builder::new().name("signals".into()).spawn(wait).map_err(failed)?;
    Ok(())
}

async fn stop(context: &Context, signals: &mut [Signal]) {
    any(signals).await;
    context.cancel.cancel();
    tokio::time::sleep(TOGETHER).await;
    for signal in &mut *signals {
        let _ = signal.recv().now_or_never();
    }
    tokio::select! {
        () = any(signals) => {}
        () = tokio::time::sleep(PATIENCE) => {
            context.note("haul: stopping in order; press Ctrl-C again to stop at once");
            any(signals).await;
        }
    }
    restore_terminal();
    context.screen.take_down();
    std::process::exit(Exit::Interrupted.code().into());
}

async fn any(signals: &mut [Signal]) {
    if signals.is_empty() {
        std::future::pending::<()>().await;
    }
    let waits = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
    futures_util::future::select_all(waits).await;
}

/// Returns the set of ignored signals, bit `n - 1` for signal `n`; Linux alone tells it without a system call that
/// safe Rust lacks.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
