//! Numbers for Prometheus: <https://prometheus.io/docs/instrumenting/exposition_formats/>, read by the textfile collector
//! of node_exporter.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use haul::Result;
use jiff::Timestamp;

use super::job::Job;
use super::target::{PUBLIC, Target};
use super::{End, since};

/// The longest file of an earlier run that is read.
const LONGEST: u64 = 4 << 20;
const LAST_SUCCESS: &str = "haul_last_success_timestamp_seconds";
/// What is written for every job, also where there is none of it: a number that is missing can't be compared.
const STATUSES: [&str; 6] = ["done", "equal", "failed", "interrupted", "planned", "skipped"];

/// Numbers to be written at the end.
#[derive(Debug)]
pub(super) struct Metrics {
    to: Target,
    run: String,
    before: Before,
}

/// What an earlier run of the same name left, by job.
type Before = BTreeMap<String, Vec<Sample>>;

/// A line of an earlier run.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sample {
    family: String,
    /// What became of the files that it counts, if it counts files.
    status: Option<String>,
    /// The number as it stands there.
    value: String,
}

impl Metrics {
    /// Reads what an earlier run left, and begins anew.
    pub(super) fn open(path: &Path, run: &str) -> Result<Self> {
        let to = Target::open(path, PUBLIC)?;
        let mut text = String::new();
        if let Ok(file) = fs::File::open(to.path()) {
            let _ = file.take(LONGEST).read_to_string(&mut text);
        }
        Ok(Self { to, run: run.to_owned(), before: before(&text, run) })
    }

    /// Writes the numbers.
    pub(super) fn close(self, end: &End<'_>) -> Result<()> {
        let text = text(&end.jobs, &self.before, &self.run, end.ended.as_second());
        self.to.write_all(text.as_bytes())
    }
}

/// The numbers of one job, with what became of the files that each counts, if it counts files.
type Values<'a> = Vec<(Option<&'a str>, String)>;

/// Writes the numbers of jobs. Those of a job that was not run stay as they were.
fn text(jobs: &[&Job], before: &Before, run: &str, now: i64) -> String {
    let mut text = String::new();
    let mut family = |name: &str, help: &str, samples: &dyn Fn(&Job) -> Values<'_>| {
        let mut lines = String::new();
        for job in jobs {
            let old = before.get(&job.name).into_iter().flatten().filter(|sample| sample.family == name);
            let old = old.map(|sample| (sample.status.as_deref(), sample.value.clone()));
            let new = if job.has_run() { samples(job) } else { Vec::new() };
            let is_kept = !job.has_run() || (name == LAST_SUCCESS && new.is_empty());
            for (status, value) in if is_kept { old.collect() } else { new } {
                let status = status.map_or_else(String::new, |status| format!(",{}", label("status", status)));
                let labels = format!("{},{}{status}", label("run", run), label("haul_job", &job.name));
                lines.push_str(&format!("{name}{{{labels}}} {value}\n"));
            }
        }
        if !lines.is_empty() {
            text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n{lines}"));
        }
    };
    let one = |value: String| vec![(None, value)];
    let seconds = |job: &Job| job.ended.map_or(0.0, |ended| since(job.started, ended));
    let ended = |job: &Job| job.ended.map_or(now, Timestamp::as_second);
    let code = |job: &Job| job.exit.map(crate::cli::report::Exit::code);
    family("haul_last_run_timestamp_seconds", "When the last run ended.", &|job| one(ended(job).to_string()));
    family(LAST_SUCCESS, "When a run ended the last time with exit status 0.", &|job| match code(job) {
        Some(0) => one(ended(job).to_string()),
        _ => Vec::new(),
    });
    family("haul_run_duration_seconds", "How long the last run took.", &|job| one(format!("{:.3}", seconds(job))));
    family("haul_run_exit_status", "The exit status of the last run.", &|job| {
        code(job).map(|code| (None, code.to_string())).into_iter().collect()
    });
    family("haul_run_files", "Files of the last run, by what became of them.", &files);
    family("haul_run_bytes", "Bytes of the files that the last run has done.", &|job| {
        one(job.totals.bytes.to_string())
    });
    family("haul_run_transferred_bytes", "Bytes that the last run moved.", &|job| {
        one(job.totals.transferred.to_string())
    });
    family("haul_run_retries", "Attempts of the last run that were repeated.", &|job| {
        one(job.totals.retries.to_string())
    });
    text
}

fn files(job: &Job) -> Values<'_> {
    let others = job.totals.statuses.keys().copied().filter(|status| !STATUSES.contains(status));
    let number = |status| if status == "equal" { job.totals.equal() } else { job.totals.of(status) };
    STATUSES.into_iter().chain(others).map(|status| (Some(status), number(status).to_string())).collect()
}

fn label(name: &str, value: &str) -> String {
    format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// Reads the numbers of an earlier run; what it can't read says nothing.
fn before(text: &str, run: &str) -> Before {
    let mut before = Before::new();
    for line in text.lines().filter(|line| line.starts_with("haul_")) {
        let Some((family, rest)) = line.split_once('{') else { continue };
        let Some((labels, value)) = labels(rest) else { continue };
        let is_number = value.starts_with(|c: char| c.is_ascii_digit())
            && value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let of = |name: &str| labels.get(name).cloned();
        if let (true, Some(job)) = (is_number && of("run").as_deref() == Some(run), of("haul_job")) {
            let sample = Sample { family: family.to_owned(), status: of("status"), value: value.to_owned() };
            before.entry(job).or_default().push(sample);
        }
    }
    before
}

/// Reads labels up to the brace, and returns what stands behind it.
fn labels(text: &str) -> Option<(BTreeMap<&str, String>, &str)> {
    let (mut labels, mut rest) = (BTreeMap::new(), text);
    loop {
        let (name, behind) = rest.split_once("=\"")?;
        let (mut value, mut chars) = (String::new(), behind.chars());
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => value.push(match chars.next()? {
                    'n' => '\n',
                    other => other,
                }),
                other => value.push(other),
            }
        }
        labels.insert(name, value);
        rest = chars.as_str();
        match rest.strip_prefix("} ") {
            Some(value) => return Some((labels, value)),
            None => rest = rest.strip_prefix(',')?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::job::Unrun;
    use super::*;
    use crate::cli::report::Exit;
    use proptest::prelude::*;

    fn job(name: &str, exit: Exit) -> Job {
        let mut job = Job::new(name.into());
        job.end(exit, None);
        job
    }

    fn successes(before: &Before) -> Vec<(&String, &str)> {
        let all = before.iter().flat_map(|(job, samples)| samples.iter().map(move |sample| (job, sample)));
        all.filter(|(_, sample)| sample.family == LAST_SUCCESS).map(|(job, sample)| (job, &*sample.value)).collect()
    }

    #[test]
    fn the_last_success_outlives_failures() {
        let good = text(&[&job("a", Exit::Done)], &Before::new(), "r", 0);
        let first = before(&good, "r");
        assert_eq!(successes(&first).len(), 1);
        let bad = text(&[&job("a", Exit::Failed), &job("b", Exit::Stopped)], &first, "r", 0);
        assert_eq!(successes(&before(&bad, "r")), successes(&first));
        assert!(bad.contains("haul_run_exit_status{run=\"r\",haul_job=\"b\"} 5\n"), "{bad}");
        assert!(before(&good, "another").is_empty());
        assert!(
            before("haul_x{run=\"r\",haul_job=\"a\"} -1\nx{run=\"r\",haul_job=\"b\"} 1\nhaul_x{run=\"r", "r")
                .is_empty()
        );
    }

    /// Neither a failure nor a run: the numbers of the time before stay.
    #[test]
    fn what_was_not_run_changes_no_number() {
        let (done, mut left, mut dry) = (job("a", Exit::Failed), job("a", Exit::Done), job("a", Exit::Done));
        left.leave(Unrun { status: "left", reason: "it was not begun".into() });
        dry.is_dry = true;
        let first = text(&[&done], &Before::new(), "r", 0);
        assert_eq!(text(&[&left], &before(&first, "r"), "r", 9), first);
        assert_eq!(text(&[&dry], &before(&first, "r"), "r", 9), first);
        assert_eq!(text(&[&left], &Before::new(), "r", 9), "");
    }

    proptest! {
        #[test]
        fn any_name_of_a_job_is_written_and_read_back(name in "[a\"\\\\n\n} ,=\\PC]{0,12}") {
            let text = text(&[&job(&name, Exit::Done)], &Before::new(), &name, 0);
            let read = before(&text, &name);
            prop_assert_eq!(read.keys().collect::<Vec<_>>(), [&name]);
            prop_assert_eq!(successes(&read).len(), 1);
            prop_assert!(text.lines().all(|line| line.starts_with("# ") || line.starts_with("haul_")));
        }

        #[test]
        fn any_file_is_read(text in "(haul_x\\{(run=\"r\",)?|[\"{},= \\\\na1]|\\PC){0,30}") {
            let _ = before(&text, "r");
        }
    }
}
