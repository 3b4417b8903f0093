//! `haul resume`: what was interrupted, going on with it, and forgetting it.

use std::sync::Arc;

use clap::Args;
use haul::transfer::{self, About, Interrupted, State};
use haul::{Error, ErrorKind};
use serde::Serialize;

use super::context::{Connections, Context, usage};
use super::going_on::{GoingOn, Group, groups, typed_password};
use super::interrupted::{list, list_json, short_ids, shown};
use super::json;
use super::options::{ConnectArgs, TransferArgs, state_dir};
use super::report::{Exit, Result};
use super::transfer::unless;

/// So many ids fit into a hint.
const MOST_IDS: usize = 8;

/// Go on with interrupted transfers
///
/// Without an id, what was interrupted is listed, the latest first: how much is there, when it was last worked on, why it
/// stopped, from where and to where. Files of up to 1 MiB are moved in one go and not listed. Each large file of a tree is a
/// transfer of its own; the same haul get -r or put -r does the rest of the tree.
///
/// A transfer goes on with the options that it was begun with; those given now win. Passwords are not among them: they are
/// found, or asked for, as at the beginning.
///
/// What nobody has worked on for 30 days is removed at the end of a later run, with its part. Where that lies on a server,
/// or its directory isn't there, it is listed for a year, and the part stays.
#[derive(Debug, Args)]
#[command(
    override_usage = "haul resume [--list]\n       haul resume [OPTIONS] ID...|--all\n       haul resume --forget [OPTIONS] ID...|--all",
    after_long_help = "\
Examples:
  haul resume                        what was interrupted
  haul resume 3f2a                   goes on with that whose id begins so
  haul resume --all --limit-rate 5M  goes on with all of them
  haul resume --forget 3f2a          removes its part, here or on the server, and its journal
  haul resume --list --json | jq .   one object a line"
)]
#[allow(clippy::struct_excessive_bools)] // each is a flag of its own
pub(crate) struct Resume {
    /// The transfers, each by its id or as much of it as no other begins with
    #[arg(value_name = "ID")]
    ids: Vec<String>,

    /// All interrupted transfers
    #[arg(long, conflicts_with = "ids")]
    all: bool,

    /// List interrupted transfers
    #[arg(long, conflicts_with_all = ["ids", "all", "forget"])]
    list: bool,

    /// Don't go on: remove what is there of them, and forget them
    #[arg(long, conflicts_with = "dry_run")]
    forget: bool,

    /// With --forget: leave the part where it is, as on a server that is gone for good
    #[arg(long, requires = "forget")]
    leave_part: bool,

    #[command(flatten)]
    transfer: TransferArgs,

    #[command(flatten)]
    connect: ConnectArgs,
}

impl Resume {
    /// Lists, goes on, or forgets.
    pub(crate) async fn run(self, context: &Arc<Context>) -> Result<()> {
        let found = transfer::interrupted(&state_dir()?)?;
        if self.ids.is_empty() && !self.all {
            return self.show(&found, context);
        }
        let chosen = self.choose(found, context)?;
        if chosen.is_empty() {
            return Ok(());
        }
        let password = typed_password(&self.connect, context)?;
        if self.forget {
            return Forgetting { context, json: self.transfer.json, leave_part: self.leave_part }
                .run(chosen, password)
                .await;
        }
        let groups = groups(chosen, context);
        GoingOn { context, args: &self.transfer, password }.run(&groups).await
    }

    fn show(&self, found: &[Interrupted], context: &Context) -> Result<()> {
        if self.forget {
            let error = usage("nothing is named that is to be forgotten");
            return Err(error.with_hint("haul resume --forget ID, or --forget --all for all of them").into());
        }
        if self.transfer.json {
            return list_json(found, context);
        }
        if found.is_empty() {
            context.note("haul: nothing was interrupted");
            return Ok(());
        }
        list(found, context)?;
        if !self.list && !context.quiet {
            context.report.hint("haul resume ID goes on with one, haul resume --all with all of them");
            context.report.hint("haul resume --forget ID removes what is there of it");
        }
        Ok(())
    }

    /// Returns the transfers that are meant, and tells of those that can't be gone on with.
    fn choose(&self, found: Vec<Interrupted>, context: &Context) -> Result<Vec<Interrupted>> {
        if found.is_empty() && self.all {
            context.note("haul: nothing was interrupted");
        }
        let chosen = match self.all {
            true => found,
            false => named(&self.ids, &found)?,
        };
        let can_go_on = |transfer: &Interrupted| match (&transfer.about, self.all) {
            _ if self.forget => true,
            (Ok(about), true) if about.state == State::Running => {
                context.note(&format!("haul: {}: at work now", transfer.id));
                false
            }
            (Err(error), true) => {
                let id = &transfer.id;
                context.report.warn(&format!("{id}: {error}; haul resume --forget {id} removes it"));
                false
            }
            (Err(error), false) => {
                let error = Error::new(ErrorKind::Other, error.clone()).at(&transfer.id);
                let hint = format!("haul resume --forget {} removes it; its part can't be found then", transfer.id);
                context.report.failed(error.with_hint(hint));
                false
            }
            (Ok(_), _) => true,
        };
        Ok(chosen.into_iter().filter(can_go_on).collect())
    }
}

/// Returns the transfers whose ids begin so, each once.
fn named(ids: &[String], found: &[Interrupted]) -> Result<Vec<Interrupted>> {
    let mut chosen: Vec<Interrupted> = Vec::new();
    for wanted in ids {
        let begins = |transfer: &&Interrupted| transfer.id.starts_with(&wanted.to_ascii_lowercase());
        let matching: Vec<_> = found.iter().filter(begins).collect();
        let (what, which) = match matching.as_slice() {
            [transfer] => {
                if chosen.iter().all(|other| other.id != transfer.id) {
                    chosen.push((*transfer).clone());
                }
                continue;
            }
            [] => ("no interrupted transfer has an id that begins so", found.iter().collect()),
            _ => ("several interrupted transfers have ids that begin so", matching),
        };
        let which: Vec<_> = which.into_iter().cloned().collect();
        let shown = short_ids(&which).into_iter().take(MOST_IDS).collect::<Vec<_>>().join(", ");
        let more = if which.len() > MOST_IDS { ", ..." } else { "" };
        let hint = match which.is_empty() {
            true => "nothing was interrupted".to_owned(),
            false => format!("there is {shown}{more}; haul resume --list tells what they are"),
        };
        return Err(usage(what).at(wanted.escape_default()).with_hint(hint).into());
    }
    Ok(chosen)
}

/// Removes parts and journals.
struct Forgetting<'a> {
    context: &'a Context,
    json: bool,
    leave_part: bool,
}

#[derive(Serialize)]
struct Forgotten<'a> {
    event: &'static str,
    id: &'a str,
    source: Option<&'a str>,
    destination: Option<&'a str>,
}

impl Forgetting<'_> {
    async fn run(&self, chosen: Vec<Interrupted>, password: Option<haul::transport::Secret>) -> Result<()> {
        let context = self.context;
        for transfer in chosen.iter().filter(|transfer| transfer.about.is_err()) {
            match transfer.forget(&state_dir()?, None).await {
                Ok(()) => self.tell(transfer)?,
                Err(error) => context.report.failed(error),
            }
        }
        for group in groups(chosen, context) {
            let mut connections = match group.connections(password.clone(), context) {
                Ok(connections) => connections,
                Err(failure) => {
                    context.report.failed(failure);
                    continue;
                }
            };
            self.group(&group, &mut connections).await?;
            connections.close().await;
        }
        Ok(())
    }

    async fn group(&self, group: &Group, connections: &mut Connections<'_>) -> Result<()> {
        for (transfer, about) in group.transfers() {
            let forgetting = unless(&self.context.cancel, self.forget(transfer, about, connections));
            match forgetting.await {
                Ok(()) => self.tell(transfer)?,
                Err(failure) => {
                    let (error, exit) = failure.into_parts();
                    self.context.report.ends(exit);
                    let (kind, id) = (error.kind(), &transfer.id[..8]);
                    self.context.report.failed(error);
                    if kind == ErrorKind::Cancelled {
                        return Ok(());
                    }
                    if kind != ErrorKind::Locked {
                        self.context.report.hint(&format!(
                            "{id} stays listed; haul resume --forget --leave-part {id} forgets it and leaves the part"
                        ));
                    }
                    // The others of this server would only wait as long again.
                    if exit == Exit::Connect {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    async fn forget(&self, transfer: &Interrupted, about: &About, connections: &mut Connections<'_>) -> Result<()> {
        if self.leave_part {
            return Ok(transfer.forget(&state_dir()?, None).await?);
        }
        let endpoint = connections.parse_kept(&about.destination, &about.request.profiles)?;
        let place = connections.place(&endpoint).await?;
        let mut destination = place.location(place.path().await?);
        if let Some(held) = about.below.as_ref().and_then(|root| destination.transport.beneath(root)) {
            destination.transport = held;
        }
        Ok(transfer.forget(&state_dir()?, Some(&destination)).await?)
    }

    fn tell(&self, transfer: &Interrupted) -> Result<()> {
        let about = transfer.about.as_ref().ok();
        if self.json {
            let (source, destination) =
                (about.map(|about| about.source.as_str()), about.map(|about| about.destination.as_str()));
            let mut text = Vec::new();
            json::line(&mut text, &Forgotten { event: "forgotten", id: &transfer.id, source, destination })?;
            return Ok(self.context.stdout.write(&text)?);
        }
        let what = about
            .map_or_else(String::new, |about| format!(": {} -> {}", shown(&about.source), shown(&about.destination)));
        self.context.note(&format!("haul: forgot {}{what}", &transfer.id[..8]));
        Ok(())
    }
}
