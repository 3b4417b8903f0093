//! The report for programs: one object, whose files are written as they end.

use haul::Result;
use jiff::Timestamp;
use serde::Serialize;

use super::job::{Job, Totals};
use super::record::{Problem, Record, instant, rate};
use super::target::Target;
use super::{About, End, since};
use crate::cli::json::{line, milliseconds};

/// A report being written.
#[derive(Debug)]
pub(super) struct Spool {
    to: Target,
    files: u64,
}

#[derive(Serialize)]
struct Head<'a> {
    haul: &'a str,
    host: &'a str,
    name: &'a str,
    command: &'a str,
    operands: &'a [String],
    options: &'a [String],
    dry_run: bool,
    started: String,
}

#[derive(Serialize)]
struct Tail<'a> {
    jobs: Vec<JobObject<'a>>,
    totals: TotalsObject<'a>,
    ended: String,
    seconds: f64,
    exit_status: u8,
}

#[derive(Serialize)]
struct JobObject<'a> {
    name: &'a str,
    status: &'static str,
    reason: Option<&'a str>,
    attempts: u32,
    started: String,
    ended: Option<String>,
    seconds: Option<f64>,
    exit_status: Option<u8>,
    totals: TotalsObject<'a>,
    error: Option<&'a Problem>,
}

#[derive(Serialize)]
struct TotalsObject<'a> {
    files: u64,
    statuses: &'a std::collections::BTreeMap<&'static str, u64>,
    bytes: u64,
    transferred: u64,
    rate: Option<u64>,
    retries: u64,
    resumed: u64,
    equal: u64,
    verified: VerifiedObject,
}

#[derive(Serialize)]
struct VerifiedObject {
    digest: u64,
    overlap: u64,
    size: u64,
}

impl Spool {
    /// Begins a report.
    pub(super) fn open(mut to: Target, about: &About, started: Timestamp) -> Result<Self> {
        let head = Head {
            haul: env!("CARGO_PKG_VERSION"),
            host: &about.host,
            name: &about.name,
            command: &about.command,
            operands: &about.operands,
            options: &about.options,
            dry_run: about.dry_run,
            started: instant(started),
        };
        to.write(&inside(&head)?);
        to.write(b",\n\"files\":[");
        Ok(Self { to, files: 0 })
    }

    /// Writes one file down.
    pub(super) fn take(&mut self, record: &Record<'_>) {
        let mut text = if self.files == 0 { b"\n".to_vec() } else { b",\n".to_vec() };
        // It holds nothing that JSON has no form for.
        if line(&mut text, record).is_ok() {
            text.pop();
            self.to.write(&text);
            self.files += 1;
        }
    }

    /// Ends the report and gives it its name.
    pub(super) fn close(mut self, end: &End<'_>) -> Result<()> {
        let totals = end.totals();
        let tail = Tail {
            jobs: end.jobs.iter().map(|job| job_object(job, end)).collect(),
            totals: totals_object(&totals, since(end.started, end.ended)),
            ended: instant(end.ended),
            seconds: milliseconds(since(end.started, end.ended)),
            exit_status: end.exit.code(),
        };
        self.to.write(b"\n],\n");
        let text = inside(&tail)?;
        // Without the brace that the head has opened.
        self.to.write(&text[1..]);
        self.to.write(b"}\n");
        self.to.close()
    }
}

fn job_object<'a>(job: &'a Job, end: &End<'_>) -> JobObject<'a> {
    let seconds = job.ended.map(|ended| since(job.started, ended));
    JobObject {
        name: &job.name,
        status: job.status(end.exit),
        reason: job.unrun.as_ref().map(|unrun| unrun.reason.as_str()),
        attempts: if job.unrun.is_some() { 0 } else { job.attempts },
        started: instant(job.started),
        ended: job.ended.map(instant),
        seconds: seconds.map(milliseconds),
        exit_status: job.exit.map(crate::cli::report::Exit::code),
        totals: totals_object(&job.totals, seconds.unwrap_or_default()),
        error: job.error.as_ref(),
    }
}

fn totals_object(totals: &Totals, seconds: f64) -> TotalsObject<'_> {
    TotalsObject {
        files: totals.files,
        statuses: &totals.statuses,
        bytes: totals.bytes,
        transferred: totals.transferred,
        rate: rate(totals.transferred, seconds),
        retries: totals.retries,
        resumed: totals.resumed,
        equal: totals.equal(),
        verified: VerifiedObject { digest: totals.by_digest, overlap: totals.by_overlap, size: totals.by_size },
    }
}

/// Returns an object without its last brace.
fn inside(object: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    line(&mut text, object)?;
    text.truncate(text.len() - "}\n".len());
    Ok(text)
}
