//! Programs that are told how a job ended.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use haul::batch::Hook;
use haul::transport::escape;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::cli::context::Context;

/// So much of what a hook says is shown.
const MOST_SHOWN: usize = 64 << 10;
/// How long what a hook left running may hold up its output.
const LINGERING: Duration = Duration::from_millis(500);

/// Runs a hook with `result` on its standard input, and says what went wrong with it, if anything did.
///
/// What it writes is shown on standard error: standard output carries data only.
pub(super) async fn run(
    hook: &Hook,
    result: Vec<u8>,
    about: &[(&str, String)],
    timeout: Duration,
    context: &Arc<Context>,
) -> Result<(), String> {
    let mut command = match hook {
        Hook::Shell(line) => {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", line]);
            command
        }
        Hook::Words(words) => {
            let mut words = words.iter();
            let mut command = Command::new(words.next().map_or("", String::as_str));
            command.args(words);
            command
        }
    };
    // A password is for haul alone. In a group of its own, all that it starts can be ended with it.
    command.env_remove("HAUL_PASSWORD").envs(about.iter().map(|(name, value)| (*name, value))).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("can't be started: {e}"))?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let ended = tokio::select! {
        ended = talk(&mut child, result, context) => ended,
        () = tokio::time::sleep(timeout) => Err(format!("took longer than {} s and was ended", timeout.as_secs_f64())),
        () = context.cancel.cancelled() => Err("was ended with this run".into()),
    };
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("ended with {status}")),
        Err(why) => {
            if let Some(group) = group {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = child.wait().await;
            Err(why)
        }
    }
}

async fn talk(child: &mut Child, result: Vec<u8>, context: &Context) -> Result<ExitStatus, String> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let tell = async move {
        if let Some(mut stdin) = stdin {
            // It need not read it.
            let _ = stdin.write_all(&result).await;
        }
    };
    let show = async { tokio::join!(show(stdout, context), show(stderr, context)) };
    let (mut tell, mut show) = (std::pin::pin!(tell), std::pin::pin!(show));
    let (mut told, mut shown) = (false, false);
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.map_err(|e| format!("can't be waited for: {e}"))?,
            () = &mut tell, if !told => told = true,
            _ = &mut show, if !shown => shown = true,
        }
    };
    if !shown {
        let _ = tokio::time::timeout(LINGERING, show).await;
    }
    Ok(status)
}

async fn show(from: Option<impl AsyncRead + Unpin>, context: &Context) {
    let Some(mut from) = from else { return };
    let (mut line, mut buffer, mut left) = (Vec::new(), vec![0; 4096], MOST_SHOWN);
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        for &byte in &buffer[..length] {
            // What is too much is read, so that nobody waits, and not shown.
            match left.checked_sub(1) {
                Some(less) => left = less,
                None => continue,
            }
            match byte {
                b'\n' => context.screen.line(&escape(&std::mem::take(&mut line))),
                byte => line.push(byte),
            }
        }
    }
    if !line.is_empty() {
        context.screen.line(&escape(&line));
    }
}
