//! A link from its making to its end, whatever ends it.

use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;

use crate::device::{self, Packets};
use crate::namespace::{Names, Side, ip};
use crate::pump::{Nature, Pump, Statistics};
use crate::signals::Signals;
use crate::{ReadyFile, about};

/// The options of `wanlink run`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Milliseconds in each direction: half of the round trip
    #[arg(long, value_name = "MS", default_value_t = 25.0, value_parser = number::<60_000>)]
    delay_ms: f64,
    /// Mbit/s of each direction; 0 is no limit
    #[arg(long, value_name = "N", default_value_t = 0.0, value_parser = number::<1_000_000>)]
    rate_mbit: f64,
    /// Part of the packets that is lost in each direction, each packet by itself
    #[arg(long, value_name = "N", default_value_t = 0.0, value_parser = number::<100>)]
    loss_percent: f64,
    /// Seed of the losses: the same order of packets, the same losses
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Length of the queue in front of the rate limit [default: a round trip's worth, at least 256]
    #[arg(long, value_name = "KIB", value_parser = clap::value_parser!(u64).range(..1 << 30))]
    queue_kib: Option<u64>,
    /// Largest packet
    #[arg(long, value_name = "BYTES", default_value_t = 1500, value_parser = clap::value_parser!(u32).range(576..65_000))]
    mtu: u32,
    /// Carry packets as they'd be on a wire; losses need it and turn it on
    #[arg(long)]
    no_offload: bool,
    /// Namespaces are NAME-a and NAME-b
    #[arg(long, default_value = "wan")]
    name: Names,
    /// Side a is 10.77.N.1 and fd77:N::1, side b 10.77.N.2 and fd77:N::2
    #[arg(long, value_name = "N", default_value_t = 0)]
    net: u8,
    /// Make this file when the link is up
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Say nothing, no statistics at the end either
    #[arg(long, short)]
    quiet: bool,
    /// What to run on side b; without it the link stays until SIGINT or SIGTERM
    #[arg(last = true)]
    command: Vec<String>,
}

fn number<const MOST: u32>(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let fits = (0.0..=f64::from(MOST)).contains(&number);
    fits.then_some(number).ok_or_else(|| format!("not between 0 and {MOST}"))
}

impl Options {
    fn nature(&self) -> Nature {
        let delay = Duration::from_secs_f64(self.delay_ms / 1e3);
        let rate = if self.rate_mbit > 0.0 { self.rate_mbit * 1e6 / 8.0 } else { f64::INFINITY };
        let round_trip = (self.rate_mbit * 1e6 / 8.0 * delay.as_secs_f64() * 2.0) as u64;
        let queue = self.queue_kib.map_or(round_trip.max(256 << 10), |kib| kib << 10);
        Nature { delay, rate, queue, loss: self.loss_percent / 100.0, seed: self.seed }
    }

    fn packets(&self) -> Packets {
        if self.no_offload || self.loss_percent > 0.0 { Packets::Wire } else { Packets::Large }
    }
}

/// Makes the link, stays or runs the command, and removes everything again.
pub(crate) fn run(options: &Options) -> io::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        // Before anything is made, so that nothing is left.
        let mut signals = Signals::catch()?;
        let link = Link::up(options)?;
        let _ready = options.ready_file.as_deref().map(|path| ReadyFile::create(path, "up\n")).transpose()?;
        let code = match options.command.is_empty() {
            true => {
                link.say_hello();
                signals.next().await;
                ExitCode::SUCCESS
            }
            false => run_on_b(options, &mut signals).await?,
        };
        link.down();
        Ok(code)
    })
}

struct Link<'a> {
    options: &'a Options,
    stop: Arc<AtomicBool>,
    pumps: Vec<(&'static str, Arc<Statistics>, JoinHandle<()>)>,
    _namespaces: Namespaces,
}

/// Goes away with everything in it, also when the link never came up.
struct Namespaces {
    names: Names,
    _lock: File,
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        if let Err(error) = self.names.remove() {
            eprintln!("wanlink: {error}");
        }
    }
}

impl<'a> Link<'a> {
    fn up(options: &'a Options) -> io::Result<Self> {
        let namespaces = Namespaces { names: options.name.clone(), _lock: options.name.lock()? };
        // Who has the lock may remove what a killed link of this name left.
        options.name.remove_namespaces()?;
        let mut devices = Vec::new();
        for side in Side::BOTH {
            options.name.create(side)?;
            devices.push(Arc::new(device(options, side)?));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let directions = [("a->b", 0, 1), ("b->a", 1, 0)];
        let pumps = directions.map(|(name, from, to)| {
            let (from_device, to_device) = (Arc::clone(&devices[from]), Arc::clone(&devices[to]));
            let (statistics, stop, nature) = (Arc::new(Statistics::default()), Arc::clone(&stop), options.nature());
            let counted = Arc::clone(&statistics);
            let pump = thread::spawn(move || {
                Pump::new(&from_device, &to_device, nature, from as u64, &counted).run(&stop);
            });
            (name, statistics, pump)
        });
        Ok(Self { options, stop, pumps: pumps.into(), _namespaces: namespaces })
    }

    fn say_hello(&self) {
        let (names, net) = (&self.options.name, self.options.net);
        if !self.options.quiet {
            let (a, b) = (names.namespace(Side::A), names.namespace(Side::B));
            eprintln!("wanlink: up: {a} is 10.77.{net}.1, {b} is 10.77.{net}.2");
        }
    }

    /// Stops the packets and says what happened to them.
    fn down(self) {
        self.stop.store(true, Relaxed);
        for (name, statistics, pump) in self.pumps {
            let _ = pump.join();
            if !self.options.quiet {
                eprintln!("wanlink: {name} {statistics}");
            }
        }
    }
}

/// Makes the device of one side, with its addresses.
fn device(options: &Options, side: Side) -> io::Result<File> {
    let (names, name, packets) = (options.name.clone(), options.name.device(side), options.packets());
    let made = {
        let name = name.clone();
        // A thread enters a namespace for good, so it's one of its own.
        thread::spawn(move || names.enter(side).and_then(|()| device::create(&name, packets))).join()
    };
    let file = made.map_err(|_| io::Error::other("the thread that makes the device failed"))??;
    let (namespace, net, host) = (options.name.namespace(side), options.net, side.host());
    let ip = |args: &[&str]| ip(&[&["-n", &namespace], args].concat());
    ip(&["addr", "add", &format!("10.77.{net}.{host}/24"), "dev", &name])?;
    // Kernels without IPv6 have links, too.
    let _ = ip(&["-6", "addr", "add", &format!("fd77:{net:x}::{host}/64"), "dev", &name, "nodad"]);
    ip(&["link", "set", &name, "mtu", &options.mtu.to_string(), "txqueuelen", "10000", "up"])?;
    Ok(file)
}

/// Runs the command on side b; a signal ends it first, then the link.
async fn run_on_b(options: &Options, signals: &mut Signals) -> io::Result<ExitCode> {
    let (started, pid) = oneshot::channel();
    let (ended, mut status) = oneshot::channel();
    let (names, command) = (options.name.clone(), options.command.clone());
    thread::spawn(move || {
        let child = names
            .enter(Side::B)
            .and_then(|()| Command::new(&command[0]).args(&command[1..]).spawn().map_err(about(&command[0])));
        match child {
            Ok(mut child) => {
                let _ = started.send(Ok(Pid::from_child(&child)));
                let _ = ended.send(child.wait());
            }
            Err(error) => drop(started.send(Err(error))),
        }
    });
    let gone = || io::Error::other("the thread that runs the command failed");
    let pid = pid.await.map_err(|_| gone())??;
    tokio::select! {
        status = &mut status => return Ok(code_of(status.map_err(|_| gone())??)),
        () = signals.next() => {}
    }
    let _ = kill_process(pid, Signal::TERM);
    if tokio::time::timeout(Duration::from_secs(5), status).await.is_err() {
        let _ = kill_process(pid, Signal::KILL);
    }
    Ok(ExitCode::from(130))
}

/// Returns a status as a shell does: 128 and more for a signal.
fn code_of(status: ExitStatus) -> ExitCode {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
