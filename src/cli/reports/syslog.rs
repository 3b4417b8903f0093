//! Plain lines for the system's log: on standard error where the journal reads it, as sd-daemon(3) has it, else through a
//! socket, as RFC 3164 and syslog(3) have it.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use haul::transport::escape;
use haul::{Error, ErrorKind, Result};
use jiff::Zoned;

use super::End;
use super::job::{Job, Totals};
use super::record::{Problem, Record};
use crate::cli::format::{bytes, duration, files, rate};
use crate::cli::interrupted::shown;
use crate::cli::report::Exit;
use crate::cli::screen::{Level, Screen};

const USUAL: &str = "/dev/log";
/// The facility `user`.
const USER: u8 = 1;
/// A line is at most this long, in bytes: some daemons cut off more.
const LONGEST: usize = 2000;

/// Where lines go.
#[derive(Debug)]
pub(super) struct Syslog {
    to: To,
    /// Lines that could not be sent.
    lost: u64,
}

#[derive(Debug)]
enum To {
    /// Standard error, which tells of failures already.
    Journal(Arc<Screen>),
    Socket(UnixDatagram, PathBuf),
}

impl Syslog {
    /// Finds the log.
    ///
    /// # Errors
    /// `Usage` when nobody listens.
    pub(super) fn open(socket: &Path, screen: &Arc<Screen>) -> Result<Self> {
        let is_named = socket != Path::new("auto");
        if !is_named && journal_reads_stderr() {
            screen.speak_journal();
            return Ok(Self { to: To::Journal(Arc::clone(screen)), lost: 0 });
        }
        let path = if is_named { socket } else { Path::new(USUAL) };
        let failed = |e| {
            let error = Error::io("reach the system's log", e).at(path.display()).with_kind(ErrorKind::Usage);
            error.with_hint("--syslog=SOCKET names another")
        };
        let connected = connect(path).map_err(failed)?;
        Ok(Self { to: To::Socket(connected, path.to_owned()), lost: 0 })
    }

    /// Tells of a file, if it failed.
    pub(super) fn file(&mut self, record: &Record<'_>) {
        if let (Some(error), To::Socket(..)) = (&record.error, &self.to) {
            let file = if record.source.is_empty() { record.destination } else { record.source };
            self.send(Level::Error, &format!("{}: failed: {}: {}", record.job, shown(file), told(error)));
        }
    }

    /// Tells of an attempt that will be repeated.
    pub(super) fn retrying(&mut self, job: &str, source: &str, attempt: u32, error: &Error) {
        let why = Problem::new(error).message;
        self.send(Level::Warning, &format!("{job}: retrying: {} after attempt {attempt}: {why}", shown(source)));
    }

    /// Tells of a job that is tried once more.
    pub(super) fn again(&mut self, job: &Job) {
        self.send(Level::Warning, &format!("{}: failed, attempt {} follows", job.name, job.attempts));
    }

    /// Tells of a job that is not run.
    pub(super) fn unrun(&mut self, name: &str, status: &str, reason: &str) {
        let level = if status == "skipped" { Level::Info } else { Level::Warning };
        self.send(level, &format!("{name}: {status}: {reason}"));
    }

    /// Tells of a job that has ended.
    pub(super) fn job(&mut self, job: &Job, exit: Exit) {
        if let (Some(error), To::Socket(..)) = (&job.error, &self.to) {
            self.send(Level::Error, &format!("{}: {}", job.name, told(error)));
        }
        let time = job.ended.map_or(0.0, |ended| super::since(job.started, ended));
        self.total(&job.name, &job.totals, std::time::Duration::from_secs_f64(time), exit);
    }

    /// Tells of the end.
    pub(super) fn end(&mut self, name: &str, end: &End<'_>) {
        if end.jobs.len() > 1 {
            let name = format!("{name}: {} jobs", end.jobs.len());
            self.total(&name, &end.totals(), end.elapsed(), end.exit);
        }
        if self.lost > 0 {
            let lost = self.lost;
            self.send(Level::Warning, &format!("{lost} lines before this one are lost: the log took no more"));
        }
    }

    fn total(&mut self, name: &str, totals: &Totals, time: std::time::Duration, exit: Exit) {
        let level = match exit {
            Exit::Done => Level::Info,
            Exit::Stopped => Level::Warning,
            _ => Level::Error,
        };
        let mut text = format!("{name}: exit status {}: {}", exit.code(), files(totals.files));
        for (status, number) in &totals.statuses {
            text.push_str(&format!(", {number} {status}"));
        }
        if totals.equal > 0 {
            text.push_str(&format!(", {} equal", totals.equal));
        }
        if totals.retries > 0 {
            text.push_str(&format!(", {} retries", totals.retries));
        }
        text.push_str(&format!(", {} moved in {}", bytes(totals.transferred), duration(time)));
        if totals.transferred > 0 {
            text.push_str(&format!(" ({})", rate(totals.transferred, time)));
        }
        self.send(level, &text);
    }

    fn send(&mut self, level: Level, text: &str) {
        let text = escape(text.as_bytes());
        match &mut self.to {
            To::Journal(screen) => screen.line_of(level, &format!("haul: {text}")),
            To::Socket(socket, path) => {
                let line = line(level, &Zoned::now(), std::process::id(), &text);
                let sent = socket.send(line.as_bytes()).or_else(|error| {
                    // The daemon may have been restarted. One that is too slow holds up nobody.
                    if error.kind() == std::io::ErrorKind::WouldBlock {
                        return Err(error);
                    }
                    *socket = connect(path)?;
                    socket.send(line.as_bytes())
                });
                self.lost += u64::from(sent.is_err());
            }
        }
    }
}

fn connect(path: &Path) -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn told(problem: &Problem) -> String {
    match &problem.hint {
        Some(hint) => format!("{} (hint: {hint})", problem.message),
        None => problem.message.clone(),
    }
}

/// Makes a line as syslog(3) does: daemons know the host themselves.
fn line(level: Level, now: &Zoned, process: u32, text: &str) -> String {
    let mut line = format!("<{}>{} haul[{process}]: {text}", USER * 8 + level as u8, now.strftime("%b %e %H:%M:%S"));
    let mut end = line.len().min(LONGEST);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.truncate(end);
    line
}

/// Returns whether standard error is the stream that the journal has given us.
fn journal_reads_stderr() -> bool {
    let Some(stream) = std::env::var("JOURNAL_STREAM").ok() else { return false };
    let Ok(stat) = rustix::fs::fstat(std::io::stderr()) else { return false };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_daemons_read_them() {
        let now = "2026-11-05T08:09:01[UTC]".parse().unwrap();
        assert_eq!(line(Level::Error, &now, 7, "a: failed"), "<11>Nov  5 08:09:01 haul[7]: a: failed");
        assert_eq!(line(Level::Info, &now, 7, ""), "<14>Nov  5 08:09:01 haul[7]: ");
        assert!(line(Level::Info, &now, 7, &"é".repeat(LONGEST)).len() <= LONGEST);
    }
}
