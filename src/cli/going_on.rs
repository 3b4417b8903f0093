//! Going on with interrupted transfers: as the commands that began them would, each with its own options.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::stream;
use haul::endpoint::Endpoint;
use haul::transfer::{self, About, Event, Interrupted, Job, Location, Observer, Outcome, Request, Status, Task};
use haul::transport::Secret;
use haul::{Error, ErrorKind};

use super::context::{Connections, Context};
use super::options::{ConnectArgs, TransferArgs, given_password};
use super::progress::{Progress, View};
use super::report::{Exit, Failure, Result};
use super::settings::Set;
use super::transfer::{interrupted, places, unless};

/// Transfers that were asked for alike between the same two ends: they share connections and options.
pub(crate) struct Group {
    /// The id of each and what its journal says.
    transfers: Vec<(Interrupted, About)>,
    /// What was typed now, and what was kept.
    given: Vec<(String, Set)>,
}

/// Puts transfers together that can share connections and options.
pub(crate) fn groups(transfers: Vec<Interrupted>, context: &Context) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for transfer in transfers {
        let Ok(about) = transfer.about.clone() else { continue };
        let alike = |group: &&mut Group| group.transfers.iter().all(|(_, other)| are_alike(other, &about));
        match groups.iter_mut().find(alike) {
            Some(group) => group.transfers.push((transfer, about)),
            None => {
                let given = context.known.with_kept(&context.given, &about.request.options);
                groups.push(Group { transfers: vec![(transfer, about)], given });
            }
        }
    }
    groups
}

fn are_alike(one: &About, other: &About) -> bool {
    let origin = |url: &str| Endpoint::parse(url).map(|endpoint| endpoint.origin()).ok();
    one.request == other.request
        && origin(&one.source) == origin(&other.source)
        && origin(&one.destination) == origin(&other.destination)
}

/// The password that was given now, read once: standard input can't be read again.
pub(crate) fn typed_password(args: &ConnectArgs, context: &Context) -> Result<Option<Secret>> {
    args.network.warn(&context.report);
    Ok(args.password_file.is_some().then(|| given_password(args, &context.report)).transpose()?.flatten())
}

impl Group {
    /// Returns the transfers.
    pub(crate) fn transfers(&self) -> &[(Interrupted, About)] {
        &self.transfers
    }

    /// Reads the settings for them; nothing is connected yet.
    pub(crate) fn connections<'a>(&'a self, typed: Option<Secret>, context: &'a Context) -> Result<Connections<'a>> {
        let chosen: Vec<_> = self.given.iter().map(|(name, set)| (name.as_str(), set)).collect();
        let (args, _) = context.known.parse(&chosen).map_err(|error| {
            let text = error.render().to_string();
            let text = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            Error::new(ErrorKind::Usage, format!("the options that were kept don't go with those given now: {text}"))
        })?;
        let password = match typed {
            Some(typed) => Some(typed),
            None => given_password(&args, &context.report)?,
        };
        Connections::with(&args, &self.given, password, context)
    }
}

/// Goes on with transfers, group by group, as one run.
pub(crate) struct GoingOn<'a> {
    pub(crate) context: &'a Arc<Context>,
    /// How to move and to show it, as typed now.
    pub(crate) args: &'a TransferArgs,
    /// The password that was given now.
    pub(crate) password: Option<Secret>,
}

impl GoingOn<'_> {
    /// Runs them to their end, or as far as they get.
    pub(crate) async fn run(&self, groups: &[Group]) -> Result<()> {
        let started = SystemTime::now();
        if self.args.progress == View::Json {
            self.context.screen.speak_json();
        }
        let progress = Progress::start(self.context, self.args.progress, self.args.json, self.args.retries);
        for (_, about) in groups.iter().flat_map(Group::transfers) {
            progress.event(Event::Found { bytes: Some(about.size) });
        }
        progress.event(Event::AllFound);
        let mut last = None;
        for group in groups {
            match self.go_on(group, &progress).await {
                Ok(options) => last = Some(options),
                Err(failure) => self.failed(group, failure, &progress),
            }
            if self.context.cancel.is_cancelled() {
                break;
            }
        }
        progress.end(true);
        if !self.context.cancel.is_cancelled() {
            return Ok(());
        }
        if let Some(options) = last {
            interrupted(self.context, &options, started);
        }
        Err(self.context.limits.failure(ErrorKind::Cancelled.into()))
    }

    async fn go_on(&self, group: &Group, progress: &Arc<Progress>) -> Result<transfer::Options> {
        let mut connections = group.connections(self.password.clone(), self.context)?;
        let mut ends = Vec::new();
        for (_, about) in &group.transfers {
            let profiles = &about.request.profiles;
            let source = connections.parse_kept(&about.source, profiles)?;
            ends.push((source, connections.parse_kept(&about.destination, profiles)?));
        }
        let Some((source, destination)) = ends.first() else { return Err(Error::from(ErrorKind::Other).into()) };
        let args = connections.for_transfer(std::slice::from_ref(source), destination)?;
        progress.set_retries(args.retries);
        let mut options = args.options()?;
        let cancel = &self.context.cancel;
        let mut tasks = Vec::new();
        for ((_, about), (source, destination)) in group.transfers.iter().zip(&ends) {
            let sources = std::slice::from_ref(source);
            let (sources, destination) = unless(cancel, places(&mut connections, sources, destination)).await?;
            let Some(source) = sources.into_iter().next() else { continue };
            let source = Location { url: about.source.clone(), ..source.location(source.path().await?) };
            let mut destination =
                Location { url: about.destination.clone(), ..destination.location(destination.path().await?) };
            // What the first run refused to go through stays refused.
            if let Some(held) = about.below.as_ref().and_then(|root| destination.transport.beneath(root)) {
                destination.transport = held;
            }
            // What was kept is kept on, with what was typed now.
            options.request = Request { options: self.context.known.to_keep(&group.given), ..about.request.clone() };
            tasks.push(Task::File(Job { source, destination, entry: None, folder: None }));
        }
        let observer = Arc::clone(progress) as Arc<dyn Observer>;
        transfer::run(stream::iter(tasks), &options, observer, cancel.clone()).await?;
        if !cancel.is_cancelled() {
            connections.close().await;
        }
        Ok(options)
    }

    /// Tells that a whole group failed, a file at a time: each has its line in JSON.
    fn failed(&self, group: &Group, failure: Failure, progress: &Arc<Progress>) {
        let (error, exit) = failure.into_parts();
        if error.kind() == ErrorKind::Cancelled {
            return;
        }
        self.context.report.ends(exit.max(Exit::Failed));
        for (_, about) in &group.transfers {
            let again = Error::new(error.kind(), error.chain());
            let again = match error.hint() {
                Some(hint) => again.with_hint(hint),
                None => again,
            };
            progress.event(Event::Finished(Outcome {
                id: u64::MAX,
                source: about.source.clone(),
                destination: about.destination.clone(),
                status: Status::Failed(again),
                bytes: Some(about.size),
                transferred: 0,
                resumed_from: None,
                elapsed: Duration::ZERO,
                verified: None,
            }));
        }
    }
}
