//! What a run may have in flight: connections, files on them, streams of a large file; and the clock of the controller.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::controller::Controller;
use super::descriptors::Descriptors;
use super::memory::Memory;
use super::run::Context;
use super::types::{Job, Location};
use crate::transport::Transport;

/// A file weighs as much as so many bytes when goodput is measured.
const FILE_WEIGHT: u64 = 64 << 10;
/// So many bytes of a file fill a stream's place on a connection; a larger file fills several.
const BYTES_PER_PLACE: u64 = 256 << 10;
/// A file from this size on is worth more connections than one before anything was measured.
const LARGE: u64 = 16 << 20;
/// A round trip from here on is distance: there a further connection costs nearly nothing and widens the window.
const FAR: Duration = Duration::from_millis(5);
/// Connections to start with where that is known to serve: far away, or where each carries only one file, or both.
const START: usize = 4;
const START_FAR_ALONE: usize = 8;
/// How often the clock is looked at.
const TICK: Duration = Duration::from_millis(50);
/// The least time of a measurement.
const MEASURE: Duration = Duration::from_millis(500);
/// Faster than so many bytes a second it is the machine that sets the pace, rarely the network: then trying out more
/// connections costs something, and waits until there has been time to earn it back.
const FAST: f64 = 150e6;
const FIRST_FAST: Duration = Duration::from_secs(3);
/// At a distance, connections take a second to find their pace.
const FIRST_FAR: Duration = Duration::from_secs(2);
/// Time that a new number of connections gets before it is measured, at least.
const SETTLE: Duration = Duration::from_millis(250);
/// A measurement and the time before it last so many round trips at least.
const ROUND_TRIPS: u32 = 8;

/// So many files are in flight with a rate limit, at least.
const FEWEST_LIMITED: usize = 16;
/// One more for so many bytes a second.
const RATE_PER_JOB: u64 = 32 << 10;

/// How much a job takes of what may be in flight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    places: usize,
    /// Whether it could use a whole connection and more.
    heavy: bool,
}

/// The connections of a run and what is on them.
pub(super) struct Lanes {
    ctx: Arc<Context>,
    /// The endpoints across a network that take part.
    remotes: Vec<(Arc<dyn Transport>, String)>,
    controller: Option<Controller>,
    memory: Memory,
    descriptors: Descriptors,
    /// Connections that there are now.
    open: usize,
    opening: Option<JoinHandle<usize>>,
    /// Places on one connection.
    streams: usize,
    taken: usize,
    jobs: usize,
    heavy: usize,
    /// Whether tasks had to wait for a place since the last look.
    crowded: bool,
    round_trip: Duration,
    /// Since when, and from what work on, the present number is measured.
    since: Option<(Instant, u64)>,
    not_before: Instant,
    next_tick: Instant,
    first: bool,
}

impl Lanes {
    pub(super) fn new(ctx: Arc<Context>) -> Self {
        let memory = Memory::open(&ctx.options.state_dir);
        Self {
            ctx,
            memory,
            descriptors: Descriptors::ask(),
            remotes: Vec::new(),
            controller: None,
            open: 1,
            opening: None,
            streams: 64,
            taken: 0,
            jobs: 0,
            heavy: 0,
            crowded: false,
            round_trip: Duration::ZERO,
            since: None,
            not_before: Instant::now(),
            next_tick: Instant::now(),
            first: true,
        }
    }

    /// Returns whether another task may start.
    pub(super) fn has_room(&mut self) -> bool {
        let room = match self.ctx.options.jobs {
            Some(most) => self.jobs < most.max(1),
            None => self.taken < self.open * self.streams,
        };
        // Each that begins brings bytes at once: with a rate limit, not more than it lets through in a moment.
        let room = room && self.ctx.options.limiter.rate().is_none_or(|rate| self.jobs < most_limited(rate));
        // A file that can't be opened is a file that isn't moved: rather fewer at once.
        let room = room && self.jobs < self.descriptors.jobs(self.open);
        self.crowded |= !room;
        room
    }

    /// Counts a job in.
    pub(super) fn add(&mut self, job: &Job) -> Load {
        self.meet(&job.source);
        self.meet(&job.destination);
        let size = job.entry.as_ref().and_then(|entry| entry.size).unwrap_or(0);
        let places = usize::try_from(size / BYTES_PER_PLACE).unwrap_or(usize::MAX);
        // A bit less than all, so that while one large file ends the next has begun.
        let heavy = size >= LARGE && self.is_worth_more(job);
        let load = Load { places: places.clamp(1, (self.streams * 3 / 4).max(1)), heavy };
        self.count(load)
    }

    /// Returns whether one file can use several connections, or more of one than its share.
    fn is_worth_more(&self, job: &Job) -> bool {
        let (from, to) = (job.source.transport.capabilities(), job.destination.transport.capabilities());
        self.streams > 1 || (from.resume_read && to.random_write)
    }

    /// Counts something small in: a directory, a link.
    pub(super) fn add_small(&mut self, at: &Location) -> Load {
        self.meet(at);
        self.count(Load { places: 1, heavy: false })
    }

    /// Counts a job out.
    pub(super) fn remove(&mut self, load: Load) {
        self.taken -= load.places;
        self.jobs -= 1;
        self.heavy -= usize::from(load.heavy);
        self.ctx.note_work(FILE_WEIGHT);
        self.share();
    }

    /// Waits for the next look at the clock, and does what is due then; never ends where nothing can be steered.
    pub(super) async fn tick(&mut self) {
        if self.controller.is_none() {
            return std::future::pending().await;
        }
        match &mut self.opening {
            Some(opening) => {
                let open = opening.await.unwrap_or(self.open);
                self.opening = None;
                self.opened(open.max(1));
            }
            None => {
                // A time, not a wait: between two jobs that end, the wait would always start anew.
                tokio::time::sleep_until(self.next_tick.into()).await;
                self.next_tick = Instant::now() + TICK;
                self.steer();
            }
        }
    }

    /// Writes down what was found, for the next run.
    pub(super) fn remember(&mut self) {
        if let Some(found) = self.controller.as_ref().and_then(Controller::found) {
            for (_, host) in &self.remotes {
                self.memory.put(host, found, self.round_trip >= FAR);
            }
        }
    }

    fn count(&mut self, load: Load) -> Load {
        self.taken += load.places;
        self.jobs += 1;
        self.heavy += usize::from(load.heavy);
        if load.heavy {
            self.demand();
        }
        self.share();
        load
    }

    /// Learns of an endpoint.
    fn meet(&mut self, at: &Location) {
        let known = |(other, _): &(Arc<dyn Transport>, String)| Arc::ptr_eq(other, &at.transport);
        let capabilities = at.transport.capabilities();
        if capabilities.local || self.remotes.iter().any(known) {
            return;
        }
        self.streams = self.streams.min(capabilities.streams.max(1));
        self.round_trip = self.round_trip.max(at.transport.round_trip().unwrap_or_default());
        let host = Memory::host_of(&at.url);
        let most = capabilities.max_connections.min(self.descriptors.connections());
        let controller = match self.memory.get(&host) {
            Some(found) => Controller::remembered(found, most),
            None => Controller::new(1, most),
        };
        self.remotes.push((Arc::clone(&at.transport), host));
        match &mut self.controller {
            // Between two servers the one that lets fewer in sets the pace.
            Some(other) => other.limit(most),
            None => self.controller = Some(controller),
        }
        self.not_before = Instant::now() + self.settle();
    }

    /// There is work for more connections.
    fn demand(&mut self) {
        // A rate limit needs no more connections than there are.
        if self.ctx.options.limiter.rate().is_some() {
            return;
        }
        let Some(controller) = &mut self.controller else { return };
        let alone = self.streams == 1;
        let far = self.round_trip >= FAR;
        match (far, alone) {
            (true, true) => controller.raise_to(START_FAR_ALONE),
            (false, true) if !self.crowded => {}
            (true, false) | (false, true) => controller.raise_to(START),
            (false, false) => {}
        }
        if let Some(segments) = self.ctx.options.segments {
            controller.raise_to(segments);
        }
        let wanted = controller.wanted();
        if wanted != self.open && self.opening.is_none() {
            self.since = None;
            let remotes: Vec<_> = self.remotes.iter().map(|(transport, _)| Arc::clone(transport)).collect();
            self.opening = Some(tokio::spawn(async move {
                let opened = remotes.iter().map(|transport| transport.set_connections(wanted));
                futures_util::future::join_all(opened).await.into_iter().min().unwrap_or(1)
            }));
        }
    }

    /// So many connections are open now.
    fn opened(&mut self, open: usize) {
        let Some(controller) = &mut self.controller else { return };
        if open < controller.wanted() {
            controller.limit(open);
        }
        self.open = open.min(controller.wanted());
        self.since = None;
        self.not_before = Instant::now() + self.settle();
        self.share();
    }

    fn steer(&mut self) {
        // Only what has as much to do as the connections can carry tells anything about them.
        let limited = self.ctx.options.limiter.rate().is_some();
        let busy = (self.crowded || self.heavy > 0) && !limited;
        self.crowded = false;
        if !busy {
            self.since = None;
            return;
        }
        self.demand();
        let now = Instant::now();
        if self.opening.is_some() || now < self.not_before || self.ctx.options.segments.is_some() {
            return;
        }
        let work = self.ctx.work();
        let (since, before) = *self.since.get_or_insert((now, work));
        let elapsed = now - since;
        let rate = (work - before) as f64 / elapsed.as_secs_f64();
        let least = match self.first {
            true if rate > FAST => FIRST_FAST,
            true if self.round_trip >= FAR => FIRST_FAR,
            _ => MEASURE,
        };
        if elapsed < least.max(self.round_trip * ROUND_TRIPS) || work == before {
            return;
        }
        self.first = false;
        self.since = None;
        if let Some(controller) = &mut self.controller {
            let had = controller.wanted();
            let wanted = controller.measured(rate);
            tracing::debug!("{:.1} MB/s with {had} connections: now {wanted}", rate / 1e6);
        }
        self.demand();
    }

    /// Tells the large files how many streams each may have.
    fn share(&self) {
        let sharers = if self.streams == 1 { self.jobs } else { self.heavy };
        let share = match self.ctx.options.segments {
            // Streams that begin before their connections are there would all stay on the first.
            Some(segments) if self.opening.is_some() => segments.min(self.open),
            Some(segments) => segments,
            None => (self.open / sharers.max(1)).max(1),
        };
        let share = share.min(self.descriptors.streams(sharers));
        self.ctx.share.send_if_modified(|now| std::mem::replace(now, share) != share);
    }

    fn settle(&self) -> Duration {
        SETTLE.max(self.round_trip * ROUND_TRIPS)
    }
}

fn most_limited(rate: u64) -> usize {
    usize::try_from(rate / RATE_PER_JOB).unwrap_or(usize::MAX).max(FEWEST_LIMITED)
}
