//! What `get` and `put` share: from operands to a run and its end.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use haul::endpoint::Endpoint;
use haul::plan::{self, Place};
use haul::transfer::{self, Event, Interrupted, Location, Observer, Outcome, Request, State, Status};
use haul::{Error, ErrorKind};
use tokio_util::sync::CancellationToken;

use super::context::{Connections, Context, name_of, usage};
use super::filters::FilterArgs;
use super::interrupted::short_ids;
use super::options::TransferArgs;
use super::progress::{Progress, View};
use super::report::Result;

/// One run of `get` or `put`.
pub(crate) struct Transfer<'a> {
    /// The outputs.
    pub(crate) context: &'a Arc<Context>,
    /// The servers.
    pub(crate) connections: Connections<'a>,
    /// How to move, as typed: what counts comes of the settings as well.
    pub(crate) args: &'a TransferArgs,
    /// What of the sources is taken.
    pub(crate) filters: &'a FilterArgs,
    /// Whether whole trees are taken.
    pub(crate) recursive: bool,
}

impl Transfer<'_> {
    /// Copies files and, where asked for, trees.
    pub(crate) async fn copy(mut self, sources: &[OsString], destination: &OsStr) -> Result<()> {
        let connections = &mut self.connections;
        let sources = connections.parse(sources)?;
        let destination = connections.parse_one(destination)?;
        let args = connections.for_transfer(&sources, &destination)?;
        let mut options = args.options()?;
        options.request = Request {
            options: self.context.known.to_keep(&self.context.given),
            profiles: connections.named_by_profiles(),
            several: self.recursive
                || self.filters.list_paths()
                || sources.len() > 1
                || sources.iter().any(plan::has_wildcards),
        };
        if args.progress == View::Json {
            self.context.screen.speak_json();
        }
        let planned = plan::Options {
            recursive: self.recursive,
            preserve: args.preserve,
            retries: options.retries,
            retry_wait: options.retry_wait,
            filter: connections.filter(self.filters, &sources, &destination).await?,
        };
        let cancel = &self.context.cancel;
        let places = unless(cancel, places(connections, &sources, &destination)).await?;
        copy(self.context, places, planned, &options, &args).await?;
        self.connections.close().await;
        Ok(())
    }

    /// Writes files to standard output, one behind the other.
    pub(crate) async fn write_out(mut self, sources: &[OsString]) -> Result<()> {
        if self.args.json || self.args.dry_run {
            return Err(usage("--json and --dry-run don't go with standard output as destination").into());
        }
        self.context.limits.refuse_for_pipes()?;
        self.filters.refuse("standard output")?;
        let connections = &mut self.connections;
        let sources = connections.parse(sources)?;
        let args = connections.for_transfer(&sources, &Endpoint::parse(".")?)?;
        let options = args.options()?;
        let cancel = &self.context.cancel;
        let mut found = Vec::new();
        for source in &sources {
            let place = unless(cancel, connections.place(source)).await?;
            let paths = unless(cancel, async { Ok(plan::expand(&place).await?) }).await?;
            found.extend(paths.into_iter().map(|(path, _)| (name_of(source, &path), place.location(path))));
        }
        let progress = self.progress(&args);
        for (name, location) in found {
            if let Err(error) = self.write_one(&location, &options, &progress).await {
                progress.end(false);
                return Err(error.at(name).into());
            }
        }
        progress.end(true);
        self.connections.close().await;
        Ok(())
    }

    async fn write_one(
        &self,
        source: &Location,
        options: &transfer::Options,
        progress: &Arc<Progress>,
    ) -> Result<(), Error> {
        let started = Instant::now();
        let mut stdout = tokio::io::stdout();
        let observer = Arc::clone(progress) as Arc<dyn Observer>;
        let cancel = self.context.cancel.clone();
        let written = transfer::read_out(source, &mut stdout, options, observer, cancel).await;
        let bytes = written.map_err(|error| self.context.stdout.closed_or(error))?;
        progress.event(Event::Finished(Outcome {
            id: 0,
            source: source.url.clone(),
            destination: "-".into(),
            status: Status::Done,
            bytes: Some(bytes),
            transferred: bytes,
            resumed_from: None,
            elapsed: started.elapsed(),
            verified: None,
        }));
        Ok(())
    }

    /// Writes standard input to a file, which appears when all of it is there.
    pub(crate) async fn read_in(mut self, destination: &OsStr) -> Result<()> {
        if self.args.dry_run {
            return Err(usage("--dry-run doesn't go with standard input as source").into());
        }
        self.context.limits.refuse_for_pipes()?;
        self.filters.refuse("standard input as source")?;
        let connections = &mut self.connections;
        let destination = connections.parse_one(destination)?;
        let args = connections.for_transfer(&[], &destination)?;
        let options = args.options()?;
        if args.progress == View::Json {
            self.context.screen.speak_json();
        }
        if destination.path.names_directory() {
            return Err(usage("is a directory: standard input needs the name of a file").at(&destination).into());
        }
        let cancel = &self.context.cancel;
        let place = unless(cancel, connections.place(&destination)).await?;
        let location = place.location(unless(cancel, async { Ok(place.path().await?) }).await?);
        let progress = self.progress(&args);
        let observer = Arc::clone(&progress) as Arc<dyn Observer>;
        let mut stdin = tokio::io::stdin();
        let result = transfer::write_in(&mut stdin, &location, &options, observer, cancel.clone()).await;
        let result = result.map(|outcome| progress.event(Event::Finished(outcome)));
        progress.end(result.is_ok());
        result.map_err(|error| error.at(location.shown()))?;
        self.connections.close().await;
        Ok(())
    }

    fn progress(&self, args: &TransferArgs) -> Arc<Progress> {
        Progress::start(self.context, args.progress, args.json, args.retries)
    }
}

/// Copies from some places to another, and shows it.
pub(crate) async fn copy(
    context: &Arc<Context>,
    (sources, destination): (Vec<Place>, Place),
    planned: plan::Options,
    options: &transfer::Options,
    args: &TransferArgs,
) -> Result<()> {
    let started = SystemTime::now();
    let progress = Progress::start(context, args.progress, args.json, args.retries);
    let observer = Arc::clone(&progress) as Arc<dyn Observer>;
    let result = plan::carry_out(sources, destination, planned, options, observer, context.cancel.clone()).await;
    progress.end(result.is_ok());
    if result?.cancelled {
        interrupted(context, options, started);
        return Err(context.limits.failure(ErrorKind::Cancelled.into()));
    }
    Ok(())
}

/// Tells of an interrupted run, and how to go on with what this run had in flight.
pub(crate) fn interrupted(context: &Context, options: &transfer::Options, started: SystemTime) {
    if context.stdout.is_closed() {
        return;
    }
    let why = context.limits.reached();
    context.screen.line(&format!("haul: {}", why.as_deref().unwrap_or("interrupted")));
    if !options.resume {
        return;
    }
    let left = transfer::interrupted(&options.state_dir).unwrap_or_default();
    let ids = short_ids(&left);
    let ours = |transfer: &Interrupted| {
        let about = transfer.about.as_ref();
        transfer.at >= started && about.is_ok_and(|about| about.state != State::Running && about.kept > 0)
    };
    let ours: Vec<_> = left.iter().zip(&ids).filter(|(transfer, _)| ours(transfer)).collect();
    let hint = match ours.as_slice() {
        [(_, id)] => format!("run the same command again, or haul resume {id}: it goes on where it stopped"),
        [] => "run the same command again: it goes on where it stopped".to_owned(),
        _ => "run the same command again: it goes on where it stopped; haul resume shows what was in flight".to_owned(),
    };
    context.report.hint(&hint);
}

pub(crate) async fn places(
    connections: &mut Connections<'_>,
    sources: &[Endpoint],
    destination: &Endpoint,
) -> Result<(Vec<Place>, Place)> {
    let mut places = Vec::new();
    for source in sources {
        places.push(connections.place(source).await?);
    }
    Ok((places, connections.place(destination).await?))
}

/// Waits, unless the run is cancelled.
pub(crate) async fn unless<T>(cancel: &CancellationToken, future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        result = future => result,
        () = cancel.cancelled() => Err(Error::from(ErrorKind::Cancelled).into()),
    }
}
