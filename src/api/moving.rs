//! What copying and syncing share.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use super::events::{Canceller, Teller};
use super::login::{Connections, Login};
use crate::error::Result;
use crate::plan::{Filter, Place};
use crate::transfer;

/// A change of the engine's options.
type Change = Box<dyn FnOnce(&mut transfer::Options) + Send>;

/// What both kinds of runs are told, and how they tell.
#[derive(Default)]
pub(super) struct Moving {
    pub(super) login: Login,
    pub(super) filter: Filter,
    pub(super) changes: Vec<Change>,
    pub(super) teller: Teller,
    pub(super) canceller: Canceller,
}

/// A run that begins.
pub(super) struct Started<'a> {
    pub(super) sources: Vec<Place>,
    pub(super) destination: Place,
    pub(super) connections: Connections<'a>,
}

impl Moving {
    /// Takes the engine's options out.
    pub(super) fn take_options(&mut self) -> Result<transfer::Options> {
        let mut options = transfer::Options::new(self.login.state_dir()?);
        self.changes.drain(..).for_each(|change| change(&mut options));
        Ok(options)
    }

    /// Takes the teller out, for a run to hold.
    pub(super) fn take_teller(&mut self) -> Arc<Teller> {
        Arc::new(std::mem::take(&mut self.teller))
    }
}

impl<'a> Started<'a> {
    /// Connects to all ends, unless the run is stopped.
    pub(super) async fn new(
        login: &'a Login,
        canceller: &Canceller,
        options: &'a transfer::Options,
        sources: &[OsString],
        destination: &OsStr,
    ) -> Result<Self> {
        let mut connections = login.connections(&options.state_dir);
        let connecting = async {
            let mut places = Vec::with_capacity(sources.len());
            for source in sources {
                places.push(connections.place(source).await?);
            }
            Ok((places, connections.place(destination).await?))
        };
        let (sources, destination) = canceller.unless(connecting).await?;
        Ok(Self { sources, destination, connections })
    }
}

/// The methods of builders with a field `moving`.
macro_rules! moving_methods {
    () => {
        crate::api::login::login_methods!(moving.login);

        /// Takes only what a filter takes. By default everything is taken, and a `.haulignore` is a file like others.
        pub fn filter(mut self, filter: crate::plan::Filter) -> Self {
            self.moving.filter = filter;
            self
        }

        /// Decides and tells, but changes nothing.
        pub fn dry_run(self, dry_run: bool) -> Self {
            self.options(move |options| options.dry_run = dry_run)
        }

        /// Changes anything else about how files are moved: verification, what happens to files that are there, rates,
        /// retries.
        pub fn options(mut self, change: impl FnOnce(&mut crate::transfer::Options) + Send + 'static) -> Self {
            self.moving.changes.push(Box::new(change));
            self
        }

        /// Calls this for every event, one at a time, from the tasks that do the work: it must not block.
        pub fn on_event(mut self, call: impl FnMut(&crate::transfer::Event) + Send + 'static) -> Self {
            self.moving.teller.call(call);
            self
        }

        /// Returns the events as a stream, which ends with the run. To be read while the run goes on; a second call ends
        /// the first stream.
        pub fn events(&mut self) -> crate::api::Events {
            self.moving.teller.events()
        }

        /// Returns what stops the run.
        pub fn canceller(&self) -> crate::api::Canceller {
            self.moving.canceller.clone()
        }
    };
}
pub(super) use moving_methods;
