//! The report for people: one page without scripts and without anything from elsewhere.

use std::time::Duration;

use jiff::Timestamp;

use super::job::{Job, Totals};
use super::record::{Problem, Record, rate};
use super::timeline::is_bad;
use super::{About, End, plot, since};
use crate::cli::format::{bytes, duration, files, local_second, path_of};
use crate::cli::interrupted::shown;
use crate::cli::report::Exit;

const STYLE: &str = include_str!("page.css");
/// So many files are listed; the rest is counted.
const MOST_BAD: usize = 1000;
const MOST_DONE: usize = 500;
const MOST_OTHERS: usize = 100;
const DRY: &str = "dry run: nothing was done";

/// The files that are listed.
#[derive(Debug, Default)]
pub(super) struct Shown {
    bad: Group,
    done: Group,
    others: Group,
}

#[derive(Debug, Default)]
struct Group {
    rows: Vec<Row>,
    all: u64,
}

/// A line of a table.
#[derive(Debug)]
struct Row {
    job: String,
    source: String,
    destination: String,
    status: &'static str,
    reason: Option<String>,
    bytes: Option<u64>,
    transferred: u64,
    rate: Option<u64>,
    started: Timestamp,
    took: Duration,
    retries: u32,
    resumed_from: Option<u64>,
    verified: &'static str,
    error: Option<Problem>,
}

impl Shown {
    /// Keeps a file, if there is room for it.
    pub(super) fn take(&mut self, record: &Record<'_>) {
        let (group, most) = match record.status {
            status if is_bad(status) || status == "interrupted" => (&mut self.bad, MOST_BAD),
            "done" => (&mut self.done, MOST_DONE),
            _ => (&mut self.others, MOST_OTHERS),
        };
        group.all += 1;
        if group.rows.len() < most {
            group.rows.push(Row::new(record));
        }
    }
}

impl Shown {
    /// Leaves out what an attempt came to that is followed by another; what it has moved stays.
    pub(super) fn forget(&mut self, job: &Job) {
        let (mut bad, mut others) = (0, 0);
        for (status, number) in &job.totals.statuses {
            match *status {
                status if is_bad(status) || status == "interrupted" => bad += number,
                "done" => {}
                _ => others += number,
            }
        }
        for (group, number) in [(&mut self.bad, bad), (&mut self.others, others)] {
            group.all -= number.min(group.all);
            group.rows.retain(|row| row.job != job.name);
        }
    }
}

impl Row {
    fn new(record: &Record<'_>) -> Self {
        Self {
            job: record.job.to_owned(),
            source: record.source.to_owned(),
            destination: record.destination.to_owned(),
            status: record.status,
            reason: record.reason.map(str::to_owned),
            bytes: record.bytes,
            transferred: record.transferred,
            rate: record.rate,
            started: record.started,
            took: Duration::from_secs_f64(record.seconds.max(0.0)),
            retries: record.retries,
            resumed_from: record.resumed_from,
            verified: record.verified(),
            error: record.error.clone(),
        }
    }
}

/// Makes text a part of a page: whatever it holds, it stays text.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // Neither shown nor allowed in a page, or shown as what it is not.
            c if !haul::transport::is_harmless(c) => safe.extend(c.escape_default()),
            c => safe.push(c),
        }
    }
    safe
}

/// Makes the page.
pub(super) fn page(about: &About, shown: &Shown, end: &End<'_>) -> String {
    let name = about.name.as_str();
    let mut page = String::new();
    page.push_str("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n");
    page.push_str(
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n",
    );
    let dry = if about.dry_run { format!(" {}", mark("", DRY)) } else { String::new() };
    let title = if about.dry_run { DRY } else { meaning(end.exit) };
    page.push_str(&format!("<title>{}: {title}</title>\n", escaped(name)));
    page.push_str(&format!("<style>\n{STYLE}</style>\n</head>\n<body>\n"));
    page.push_str(&format!("<h1>{} {}{}</h1>\n", escaped(name), mark(class_of(end.exit), meaning(end.exit)), dry));
    page.push_str(&format!("<p>{}</p>\n", escaped(&in_short(&end.totals(), end.elapsed()))));
    errors(&mut page, end);
    facts(&mut page, about, end);
    page.push_str(&format!("<h2>Timeline</h2>\n<div class=\"wide\">{}</div>\n", plot::draw(end)));
    jobs(&mut page, end);
    let several = end.jobs.len() > 1;
    group(&mut page, "What needs a look", &shown.bad, several);
    group(&mut page, "Moved", &shown.done, several);
    group(&mut page, "Left as they were", &shown.others, several);
    page.push_str(&format!("<footer>haul {}</footer>\n</body>\n</html>\n", env!("CARGO_PKG_VERSION")));
    page
}

fn in_short(totals: &Totals, time: Duration) -> String {
    let mut text = match totals.files {
        0 => "Nothing was moved".to_owned(),
        number => files(number),
    };
    for (status, number) in &totals.statuses {
        text.push_str(&format!(", {number} {status}"));
    }
    if totals.equal > 0 {
        text.push_str(&format!(", {} equal", totals.equal));
    }
    if totals.transferred > 0 {
        text.push_str(&format!("; {} moved", bytes(totals.transferred)));
        if let Some(rate) = rate(totals.transferred, time.as_secs_f64()) {
            text.push_str(&format!(", {}/s", bytes(rate)));
        }
    }
    if totals.retries > 0 {
        if totals.retried_files > 0 {
            text.push_str(&format!("; {} retried", files(totals.retried_files)));
        }
        text.push_str(&format!("; {} attempts more", totals.retries));
    }
    if totals.resumed > 0 {
        text.push_str(&format!("; {} went on from earlier", files(totals.resumed)));
    }
    text.push('.');
    text
}

/// What went wrong with whole jobs.
fn errors(page: &mut String, end: &End<'_>) {
    for job in &end.jobs {
        let Some(error) = &job.error else { continue };
        page.push_str(&format!("<p>{} {}: {}", mark("failed", "error"), escaped(&job.name), escaped(&error.message)));
        if let Some(hint) = &error.hint {
            page.push_str(&format!("<br/><span class=\"faint\">{}</span>", escaped(hint)));
        }
        page.push_str("</p>\n");
    }
}

fn facts(page: &mut String, about: &About, end: &End<'_>) {
    let command = std::iter::once(about.command.as_str()).chain(about.operands.iter().map(String::as_str));
    let command = command.collect::<Vec<_>>().join(" ");
    let totals = end.totals();
    let mut proven = Vec::new();
    for (number, how) in [
        (totals.by_digest, "by a digest of all of it"),
        (totals.by_overlap, "by size and overlap"),
        (totals.by_size, "by size"),
    ] {
        if number > 0 {
            proven.push(format!("{number} {how}"));
        }
    }
    page.push_str("<dl>\n");
    for (name, value, code) in [
        ("Command", format!("haul {command}"), true),
        ("Options", about.options.join(" "), true),
        ("Host", about.host.clone(), false),
        ("Started", local_second(end.started), false),
        ("Ended", format!("{} ({})", local_second(end.ended), duration(end.elapsed())), false),
        ("Verified", proven.join(", "), false),
        ("Exit status", format!("{}: {}", end.exit.code(), meaning(end.exit)), false),
    ] {
        let value = escaped(&value);
        if !value.is_empty() {
            let value = if code { format!("<code>{value}</code>") } else { value };
            page.push_str(&format!("<dt>{name}</dt><dd>{value}</dd>\n"));
        }
    }
    page.push_str("</dl>\n");
}

fn jobs(page: &mut String, end: &End<'_>) {
    if end.jobs.len() < 2 {
        return;
    }
    page.push_str(
        "<h2>Jobs</h2>\n<div class=\"wide\"><table>\n<tr><th>Job</th><th>End</th><th class=\"number\">Files</th>",
    );
    page.push_str("<th class=\"number\">Failed</th><th class=\"number\">Equal</th><th class=\"number\">Moved</th><th class=\"number\">Rate</th>");
    page.push_str("<th class=\"number\">Retries</th><th class=\"number\">Took</th></tr>\n");
    for job in &end.jobs {
        page.push_str(&job_row(job, end));
    }
    page.push_str("</table></div>\n");
}

fn job_row(job: &Job, end: &End<'_>) -> String {
    let exit = job.exit.unwrap_or(end.exit);
    let time = since(job.started, job.ended.unwrap_or(end.ended));
    let totals = &job.totals;
    let bad: u64 = totals.statuses.iter().filter(|(status, _)| is_bad(status)).map(|(_, number)| number).sum();
    // What was not run is grey.
    let how = match &job.unrun {
        Some(unrun) => format!("{}<span class=\"faint\">{}</span>", mark("", unrun.status), escaped(&unrun.reason)),
        None => mark(class_of(exit), meaning(exit)),
    };
    format!(
        "<tr><td>{}</td><td>{how}</td>{}{}{}{}{}{}{}</tr>\n",
        escaped(&job.name),
        number(&totals.files.to_string()),
        number(&bad.to_string()),
        number(&totals.equal().to_string()),
        number(&bytes(totals.transferred)),
        number(&per_second(rate(totals.transferred, time))),
        number(&totals.retries.to_string()),
        number(&if job.unrun.is_some() { String::new() } else { duration(Duration::from_secs_f64(time)) }),
    )
}

fn group(page: &mut String, title: &str, group: &Group, several: bool) {
    if group.rows.is_empty() {
        return;
    }
    page.push_str(&format!("<h2>{title} <span class=\"faint\">({})</span></h2>\n", files(group.all)));
    page.push_str("<div class=\"wide\"><table>\n<tr><th>End</th>");
    if several {
        page.push_str("<th>Job</th>");
    }
    page.push_str(
        "<th>File</th><th class=\"number\">Size</th><th class=\"number\">Moved</th><th class=\"number\">Rate</th>",
    );
    page.push_str("<th class=\"number\">Began</th><th class=\"number\">Took</th><th class=\"number\">Retries</th><th>Verified</th></tr>\n");
    for row in &group.rows {
        page.push_str(&file_row(row, several));
    }
    page.push_str("</table></div>\n");
    let left = group.all - group.rows.len() as u64;
    if left > 0 {
        page.push_str(&format!("<p class=\"faint\">and {left} more; a .json report has all of them</p>\n"));
    }
}

fn file_row(row: &Row, several: bool) -> String {
    let class = match row.status {
        status if is_bad(status) => "failed",
        status @ ("done" | "interrupted") => status,
        _ => "",
    };
    let job = if several { format!("<td>{}</td>", escaped(&row.job)) } else { String::new() };
    let began = row.started.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S").to_string();
    format!(
        "<tr><td>{}</td>{job}<td class=\"file\">{}</td>{}{}{}{}{}{}<td>{}</td></tr>\n",
        mark(class, row.status),
        file(row),
        number(&row.bytes.map_or_else(String::new, bytes)),
        number(&if row.transferred == 0 { String::new() } else { bytes(row.transferred) }),
        number(&per_second(row.rate)),
        number(&began),
        number(&duration(row.took)),
        number(&if row.retries == 0 { String::new() } else { row.retries.to_string() }),
        row.verified,
    )
}

/// The cell of a file: its name, where it went, and what is to be said of it.
fn file(row: &Row) -> String {
    let name = if row.source.is_empty() { &row.destination } else { &row.source };
    let mut cell = format!("<span title=\"{}\">{}</span>", escaped(&shown(name)), escaped(&called(name)));
    if !row.source.is_empty() && !row.destination.is_empty() {
        cell.push_str(&format!("<span class=\"faint\">→ {}</span>", escaped(&shown(&row.destination))));
    }
    let resumed = row.resumed_from.map(|offset| format!("went on at {}", bytes(offset)));
    for text in row.reason.iter().chain(&resumed) {
        cell.push_str(&format!("<span class=\"faint\">{}</span>", escaped(text)));
    }
    if let Some(error) = &row.error {
        cell.push_str(&format!("<strong>{}</strong>", escaped(&error.message)));
        if let Some(hint) = &error.hint {
            cell.push_str(&format!("<span class=\"faint\">{}</span>", escaped(hint)));
        }
    }
    cell
}

/// Returns a place as people call it: a path here, a URL elsewhere, since a page tells of several servers.
fn called(url: &str) -> String {
    if url.starts_with("file://") { path_of(url) } else { shown(url) }
}

fn number(text: &str) -> String {
    format!("<td class=\"number\">{}</td>", escaped(text))
}

fn per_second(rate: Option<u64>) -> String {
    rate.map_or_else(String::new, |rate| format!("{}/s", bytes(rate)))
}

fn mark(class: &str, text: &str) -> String {
    format!("<span class=\"mark {class}\">{}</span>", escaped(text))
}

fn class_of(exit: Exit) -> &'static str {
    match exit {
        Exit::Done => "done",
        Exit::Stopped | Exit::Interrupted | Exit::BrokenPipe => "interrupted",
        _ => "failed",
    }
}

fn meaning(exit: Exit) -> &'static str {
    match exit {
        Exit::Done => "all done",
        Exit::Stopped => "stopped by a limit",
        Exit::Failed => "some items failed",
        Exit::VerifyFailed => "verification failed",
        Exit::Connect => "could not connect or log in",
        Exit::Locked => "another run holds the lock",
        Exit::Usage => "wrong usage",
        Exit::BrokenPipe => "its reader left",
        Exit::Interrupted => "interrupted",
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Item;
    use super::super::timeline::Timeline;
    use super::*;

    fn about() -> About {
        About {
            name: "n".into(),
            command: "check".into(),
            operands: vec!["<a>".into()],
            options: Vec::new(),
            dry_run: false,
            host: "h".into(),
        }
    }

    /// Ten thousand files, every tenth of which failed, and one of many jobs that could not begin.
    #[test]
    fn many_files_stay_readable() {
        let (mut shown, mut timeline, started) = (Shown::default(), Timeline::default(), Timestamp::UNIX_EPOCH);
        let mut jobs: Vec<_> = (0..100).map(|number| Job::new(format!("job {number}"))).collect();
        for number in 0..10_000 {
            let source = format!("sftp://host/a/directory/of/some/depth/{number}");
            let status = if number % 10 == 0 { "different" } else { "done" };
            let item = Item { source: &source, destination: "", status, reason: Some("its size"), bytes: Some(number) };
            let record = Record::of_item("job 1", &item, started);
            shown.take(&record);
            timeline.ended(number as f64 / 10.0, number as f64 / 10.0 + 3.0, &record);
            timeline.moved(number as f64 / 10.0, number);
            jobs[1].count(&record);
        }
        jobs[7]
            .end(Exit::Connect, Some(&haul::Error::new(haul::ErrorKind::ConnectionRefused, "<nobody>").at("sftp://x")));
        let ended = Timestamp::from_second(1003).unwrap();
        let end = End { exit: Exit::Failed, started, ended, timeline: &timeline, jobs: jobs.iter().collect() };
        let page = page(&about(), &shown, &end);
        assert!(page.len() < 1 << 20, "{} bytes", page.len());
        assert!(page.contains("(1000 files)") && page.contains("(9000 files)") && page.contains("and 8500 more"));
        assert!(page.contains("&lt;nobody&gt;") && page.contains("&lt;a&gt;") && page.contains("and 60 jobs more"));
        assert!(page.matches("<rect").count() <= 41 && page.matches("<line class=\"failed\"").count() <= 240);
        let order =
            ["10000 files, 1000 different, 9000 done", "What needs a look", "Moved <span"].map(|text| page.find(text));
        assert!(order.is_sorted() && order[0].is_some(), "{order:?}");
    }

    #[test]
    fn a_run_of_nothing_has_a_page_too() {
        let jobs = [Job::frame("get".into())];
        let now = Timestamp::now();
        let timeline = Timeline::default();
        let end = End { exit: Exit::Done, started: now, ended: now, timeline: &timeline, jobs: jobs.iter().collect() };
        let page = page(&about(), &Shown::default(), &end);
        assert!(page.contains("Nothing was moved") && !page.contains("NaN") && !page.contains("inf\""));
    }
}
