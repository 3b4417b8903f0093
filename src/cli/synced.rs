//! What `sync` tells: each change of a dry run, moves and deletions as they are done, and what it came to.

use std::sync::Arc;
use std::time::Duration;

use haul::plan::sync::{Change, Changes, Stage, Synced, What};
use haul::transport::escape;
use serde::Serialize;

use super::context::Context;
use super::format::{bytes, duration, files, rate};
use super::json::{line, milliseconds};
use super::options::TransferArgs;
use super::progress::View;
use super::reports::Item;

/// Shows changes.
pub(crate) struct Shown {
    context: Arc<Context>,
    json: bool,
}

/// One change. Source and destination are URLs, so no name is lost.
#[derive(Debug, Serialize)]
struct ChangeEvent<'a> {
    /// `file` for what is copied, as elsewhere; else `mkdir`, `move`, `delete`.
    event: &'static str,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
    source: Option<&'a str>,
    destination: &'a str,
    status: &'static str,
    bytes: Option<u64>,
}

/// The totals at the end.
#[derive(Debug, Serialize)]
struct SyncSummary {
    event: &'static str,
    files: u64,
    done: u64,
    skipped: u64,
    failed: u64,
    bytes: u64,
    transferred: u64,
    seconds: f64,
    equal: u64,
    deleted: u64,
    moved: u64,
    /// Directories made, and those of which only the time or mode was set.
    directories: u64,
    directories_set: u64,
    /// Files and links that differ and were to be left alone, as with `--update`.
    held_back: u64,
}

impl Shown {
    /// Shows them on standard output.
    pub(crate) fn new(context: &Arc<Context>, json: bool) -> Self {
        Self { context: Arc::clone(context), json }
    }
}

impl Changes for Shown {
    fn change(&self, change: &Change) {
        self.record(change);
        match (self.json, change.stage) {
            (true, _) => {
                let mut text = Vec::new();
                let written = line(&mut text, &ChangeEvent::new(change));
                drop(written.map(|()| write(&self.context, &text)));
            }
            (false, Stage::Planned) => write(&self.context, format!("{}\n", in_words(change)).as_bytes()),
            (false, Stage::Done) => tracing::info!("{}", in_words(change)),
        }
    }
}

impl Shown {
    /// Puts what is planned, moves and deletions into the report; what is copied gets there by itself.
    fn record(&self, change: &Change) {
        let (status, reason) = match (change.stage, &change.what) {
            (Stage::Planned, What::MakeDirectory) => return,
            (Stage::Planned, what) => ("planned", Some(what.name())),
            (Stage::Done, What::Move { .. }) => ("moved", None),
            (Stage::Done, What::Delete | What::DeleteDirectory) => ("deleted", None),
            (Stage::Done, _) => return,
        };
        let source = change.source.as_deref().unwrap_or_default();
        self.context.recorder.item(&Item {
            source,
            destination: &change.destination,
            status,
            reason,
            bytes: change.bytes,
        });
    }
}

impl<'a> ChangeEvent<'a> {
    fn new(change: &'a Change) -> Self {
        Self {
            event: match change.what {
                What::MakeDirectory => "mkdir",
                What::Move { .. } => "move",
                What::Delete | What::DeleteDirectory => "delete",
                What::Copy | What::Replace(_) | What::Link | What::Set(_) => "file",
            },
            action: change.what.name(),
            why: change.what.why().map(haul::plan::compare::Why::name),
            source: change.source.as_deref(),
            destination: &change.destination,
            status: match change.stage {
                Stage::Planned => "planned",
                Stage::Done => "done",
            },
            bytes: change.bytes,
        }
    }
}

/// Writes a change as people read it.
fn in_words(change: &Change) -> String {
    let path = if change.path.is_empty() { ".".to_owned() } else { escape(&change.path) };
    let slash = if matches!(change.what, What::MakeDirectory | What::DeleteDirectory) { "/" } else { "" };
    let name = change.what.name();
    match &change.what {
        What::Move { from } => format!("{name:<8}{} -> {path}", escape(from)),
        what => match what.why() {
            Some(why) => format!("{name:<8}{path} ({why})"),
            None => format!("{name:<8}{path}{slash}"),
        },
    }
}

/// Writes to standard output. A reader that went away wants no more changes either.
fn write(context: &Context, text: &[u8]) {
    let write = || context.stdout.write(text);
    let written = if context.stdout.terminal { context.screen.suspend(write) } else { write() };
    if let Err(error) = written {
        context.report.failed(error);
        context.cancel.cancel();
    }
}

/// Tells what a run came to.
pub(crate) fn summary(context: &Context, args: &TransferArgs, synced: &Synced, time: Duration) {
    if args.json {
        let summary = SyncSummary {
            event: "summary",
            files: synced.summary.files + synced.equal,
            done: synced.summary.done,
            skipped: synced.equal,
            failed: synced.summary.failed,
            bytes: synced.summary.bytes,
            transferred: synced.summary.transferred,
            seconds: milliseconds(time.as_secs_f64()),
            equal: synced.equal,
            deleted: synced.deleted,
            moved: synced.moved,
            directories: synced.summary.directories,
            directories_set: synced.set,
            held_back: synced.held_back,
        };
        let mut text = Vec::new();
        if line(&mut text, &summary).is_ok() {
            write(context, &text);
        }
    }
    let told = matches!(args.progress, View::Json | View::Nothing) || (args.json && args.progress == View::Auto);
    if !told {
        context.note(&totals(synced, args.dry_run, time));
    }
}

fn totals(synced: &Synced, dry_run: bool, time: Duration) -> String {
    let done = &synced.summary;
    let changed = done.done + done.directories + synced.set + synced.deleted + synced.moved > 0;
    let mut parts = Vec::new();
    match (done.done, dry_run) {
        (0, _) if changed => {}
        (0, _) => parts.push(if done.failed > 0 { "nothing done" } else { "nothing to do" }.to_owned()),
        (_, true) => parts.push(format!("would copy {}, {}", files(done.done), bytes(done.bytes))),
        (_, false) if done.transferred == 0 || time < Duration::from_millis(100) => {
            parts.push(format!("{}, {} in {}", files(done.done), bytes(done.bytes), duration(time)));
        }
        (_, false) => {
            let rate = rate(done.transferred, time);
            parts.push(format!("{}, {} in {} ({rate})", files(done.done), bytes(done.bytes), duration(time)));
        }
    }
    let (make, set) = if dry_run { ("to make", "to set") } else { ("made", "set") };
    for (number, what) in [(done.directories, make), (synced.set, set)] {
        match number {
            0 => {}
            1 => parts.push(format!("1 directory {what}")),
            _ => parts.push(format!("{number} directories {what}")),
        }
    }
    let (delete, rename) = if dry_run { ("to delete", "to move") } else { ("deleted", "moved") };
    for (number, what) in [
        (synced.deleted, delete),
        (synced.moved, rename),
        (synced.equal, "equal"),
        (synced.held_back, "held back"),
        (done.failed, "failed"),
    ] {
        if number > 0 {
            parts.push(format!("{number} {what}"));
        }
    }
    if dry_run && changed {
        parts.push("nothing was changed".to_owned());
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use haul::plan::compare::Why;
    use haul::transfer::Summary;

    fn words(what: What, path: &str) -> String {
        let path = path.as_bytes().to_vec();
        let destination = String::new();
        in_words(&Change { what, path, source: None, destination, bytes: None, stage: Stage::Planned })
    }

    #[test]
    fn changes_are_lines() {
        assert_eq!(words(What::Copy, "a/b"), "copy    a/b");
        assert_eq!(words(What::Replace(Some(Why::Newer)), "a"), "replace a (newer)");
        assert_eq!(words(What::Replace(None), "a\x1b"), "replace a\\u{1b}");
        assert_eq!(words(What::Move { from: b"x/y".to_vec() }, "z"), "move    x/y -> z");
        assert_eq!(words(What::MakeDirectory, ""), "mkdir   ./");
        assert_eq!(words(What::DeleteDirectory, "old"), "rmdir   old/");
    }

    #[test]
    fn totals_say_what_happened() {
        let text = |done, deleted, moved, equal, dry_run| {
            let summary = Summary { done, bytes: done * 1024, transferred: done * 1024, ..Summary::default() };
            totals(&Synced { summary, equal, deleted, moved, ..Synced::default() }, dry_run, Duration::from_secs(2))
        };
        assert_eq!(text(0, 0, 0, 7, false), "nothing to do, 7 equal");
        assert_eq!(text(2, 3, 1, 7, false), "2 files, 2.0 KiB in 2.0 s (1.0 KiB/s), 3 deleted, 1 moved, 7 equal");
        assert_eq!(text(0, 3, 0, 0, false), "3 deleted");
        assert_eq!(text(1, 3, 1, 0, true), "would copy 1 file, 1.0 KiB, 3 to delete, 1 to move, nothing was changed");
        let text = |directories, set, held_back| {
            let summary = Summary { directories, ..Summary::default() };
            totals(&Synced { summary, set, held_back, ..Synced::default() }, false, Duration::ZERO)
        };
        assert_eq!(text(0, 1, 0), "1 directory set");
        assert_eq!(text(2, 0, 0), "2 directories made");
        assert_eq!(text(0, 0, 3), "nothing to do, 3 held back");
    }
}
