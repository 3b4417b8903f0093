//! One direction of the link: takes packets from a device and gives them to the other when they are due.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::device::{HEADER, wire_bytes};

/// What a link does to each of its directions.
#[derive(Clone, Copy)]
pub(crate) struct Nature {
    pub(crate) delay: Duration,
    /// Bytes a second; infinite for no limit.
    pub(crate) rate: f64,
    /// Bytes that may wait for the rate limit before packets are dropped.
    pub(crate) queue: u64,
    /// The part of all packets that is lost, 0 to 1.
    pub(crate) loss: f64,
    pub(crate) seed: u64,
}

/// What happened in one direction.
#[derive(Default)]
pub(crate) struct Statistics {
    packets: AtomicU64,
    bytes: AtomicU64,
    lost: AtomicU64,
    queue_drops: AtomicU64,
    /// Packets that the device refused.
    device_drops: AtomicU64,
    /// Packets delivered later than they should by more than [`LATE`]: this machine had no time.
    late: AtomicU64,
    /// How much too late a packet was delivered at worst.
    worst_lateness_us: AtomicU64,
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { packets, bytes, lost, queue_drops, device_drops, late, worst_lateness_us } = self;
        let figures = [
            ("packets", packets),
            ("bytes", bytes),
            ("lost", lost),
            ("queue_drops", queue_drops),
            ("device_drops", device_drops),
            ("late", late),
            ("worst_lateness_us", worst_lateness_us),
        ];
        let shown: Vec<_> = figures.map(|(name, figure)| format!("{name}={}", figure.load(Relaxed))).into();
        f.write_str(&shown.join(" "))
    }
}

/// Packets read before the clock is looked at again.
const AT_ONCE: usize = 64;
const LATE: Duration = Duration::from_millis(2);
/// Bytes on their way at most, so that a mistake in the options doesn't eat the memory.
const MOST_HELD: usize = 1 << 30;
/// A large packet with its headers.
const LARGEST: usize = HEADER + 65_536 + 512;
const LOOK_AT_STOP: Duration = Duration::from_millis(100);

/// One direction and the packets in it.
pub(crate) struct Pump<'a> {
    from: &'a File,
    to: &'a File,
    nature: Nature,
    statistics: &'a Statistics,
    chance: Chance,
    /// When the rate limit has let everything through that it took.
    free_at: Instant,
    held: VecDeque<(Instant, Box<[u8]>)>,
    held_bytes: usize,
}

impl<'a> Pump<'a> {
    pub(crate) fn new(
        from: &'a File,
        to: &'a File,
        nature: Nature,
        direction: u64,
        statistics: &'a Statistics,
    ) -> Self {
        let chance = Chance::new(nature.seed.wrapping_mul(2).wrapping_add(direction));
        let free_at = Instant::now();
        Self { from, to, nature, statistics, chance, free_at, held: VecDeque::new(), held_bytes: 0 }
    }

    /// Forwards until told to stop.
    pub(crate) fn run(mut self, stop: &AtomicBool) {
        // To wake up on time on a busy machine, too; nothing depends on it.
        let _ = rustix::thread::set_current_timer_slack(NonZero::new(1000));
        let _ = rustix::process::setpriority_process(None, -19);
        let mut buffer = vec![0; LARGEST];
        while !stop.load(Relaxed) {
            let took = self.take(&mut buffer);
            let gave = self.give();
            if !took && !gave {
                self.wait();
            }
        }
    }

    /// Takes what the device has; returns whether there was something.
    fn take(&mut self, buffer: &mut [u8]) -> bool {
        for number in 0..AT_ONCE {
            if self.held_bytes > MOST_HELD {
                return number > 0;
            }
            match rustix::io::read(self.from, &mut *buffer) {
                Ok(length) if length > HEADER => self.accept(&buffer[..length]),
                _ => return number > 0,
            }
        }
        true
    }

    /// Decides a packet's fate: lost, dropped, or due at some time.
    fn accept(&mut self, packet: &[u8]) {
        let (now, bytes) = (Instant::now(), wire_bytes(packet));
        self.statistics.packets.fetch_add(1, Relaxed);
        self.statistics.bytes.fetch_add(bytes, Relaxed);
        if !is_chatter(&packet[HEADER..]) && self.chance.happens(self.nature.loss) {
            self.statistics.lost.fetch_add(1, Relaxed);
            return;
        }
        let mut sent = now;
        if self.nature.rate.is_finite() {
            let starts = self.free_at.max(now);
            let waiting = ((starts - now).as_secs_f64() * self.nature.rate) as u64;
            if waiting + bytes > self.nature.queue.max(LARGEST as u64) {
                self.statistics.queue_drops.fetch_add(1, Relaxed);
                return;
            }
            self.free_at = starts + Duration::from_secs_f64(bytes as f64 / self.nature.rate);
            sent = self.free_at;
        }
        self.held_bytes += packet.len();
        self.held.push_back((sent + self.nature.delay, packet.into()));
    }

    /// Delivers what is due; returns whether there was something.
    fn give(&mut self) -> bool {
        let mut gave = false;
        let mut now = Instant::now();
        while let Some((due, packet)) = self.held.front() {
            if *due > now {
                now = Instant::now();
                if *due > now {
                    break;
                }
            }
            let late = now - *due;
            self.statistics.late.fetch_add(u64::from(late > LATE), Relaxed);
            self.statistics.worst_lateness_us.fetch_max(late.as_micros() as u64, Relaxed);
            if rustix::io::write(self.to, packet).is_err() {
                self.statistics.device_drops.fetch_add(1, Relaxed);
            }
            self.held_bytes -= packet.len();
            self.held.pop_front();
            gave = true;
        }
        gave
    }

    /// Sleeps until a packet comes or one is due.
    fn wait(&self) {
        let due = self.held.front().map(|(due, _)| due.saturating_duration_since(Instant::now()));
        let time = due.unwrap_or(LOOK_AT_STOP).min(LOOK_AT_STOP);
        let time = Timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() };
        let _ = poll(&mut [PollFd::new(self.from, PollFlags::IN)], Some(&time));
    }
}

/// Whether a packet goes to a multicast address of IPv6, as the kernel sends them on its own at any time: were they a
/// part of the game of chance, losses wouldn't repeat themselves.
fn is_chatter(packet: &[u8]) -> bool {
    packet[0] >> 4 == 6 && packet.get(24) == Some(&0xff)
}

/// Chance that repeats itself: xorshift64*, the same on every machine.
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        let mut chance = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        // Seeds that are close to each other begin alike.
        for _ in 0..8 {
            chance.number();
        }
        chance
    }

    fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn happens(&mut self, probability: f64) -> bool {
        probability > 0.0 && ((self.number() >> 11) as f64 / (1u64 << 53) as f64) < probability
    }
}
