//! One long run of haul over a link that breaks now and then, from a server that serves nothing else: what both have
//! in use must not grow.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::sample::{Sample, Samples};
use crate::support::client::{Client, is_part, names_below, told};
use crate::support::data::{Dice, bytes};
use crate::support::fault::{Fault, Link, On, Towards};
use crate::support::serving::Serving;

/// Files a second, and their size: little, so that the run lasts, and leaves the machine to others.
const FILES_A_SECOND: u64 = 40;
const SIZE: usize = 1024;
const FILES_IN_FOLDER: u64 = 250;
const DIFFERENT: u64 = 16;
/// How long haul may take to stop, and to fetch what is left.
const PATIENCE: Duration = Duration::from_secs(300);

/// A long run under way.
pub(crate) struct Soak(JoinHandle<Report>);

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Report {
    name: String,
    files: u64,
    breaks: u32,
    most_parts: usize,
    client: Samples,
    server: Samples,
    pub(crate) wrong: Vec<String>,
    pub(crate) stray: Vec<String>,
}

impl Soak {
    pub(crate) fn start(haul: &Path, scheme: &'static str, seed: u64, time: Duration) -> Self {
        let haul = haul.to_owned();
        Self(std::thread::spawn(move || Ground::new(&haul, scheme, time).run(Dice::new(seed), time)))
    }

    /// Waits for its end.
    pub(crate) fn end(self) -> Report {
        self.0.join().expect("it doesn't panic")
    }
}

struct Ground {
    serving: Serving,
    client: Client,
    home: TempDir,
    files: u64,
}

impl Ground {
    fn new(haul: &Path, scheme: &'static str, time: Duration) -> Self {
        let serving = Serving::start(haul, scheme);
        let home = TempDir::new().expect("a folder");
        // More than it can move in that time.
        let files = (time.as_secs() + 10) * FILES_A_SECOND;
        let sources = home.path().join("contents");
        std::fs::create_dir(&sources).unwrap();
        for number in 0..DIFFERENT {
            std::fs::write(sources.join(number.to_string()), bytes(number, SIZE)).unwrap();
        }
        let tree = serving.server.root.join("tree");
        for number in 0..files {
            let folder = tree.join(format!("d{}", number / FILES_IN_FOLDER));
            std::fs::create_dir_all(&folder).unwrap();
            // One file under many names, as far as the file system lets it: they are only read.
            let (from, to) = (sources.join((number % DIFFERENT).to_string()), folder.join(number.to_string()));
            std::fs::hard_link(&from, &to).or_else(|_| std::fs::copy(&from, &to).map(drop)).expect("a file");
        }
        // It is there before the first run, so that each puts the tree into it.
        std::fs::create_dir(home.path().join("copy")).unwrap();
        Self { client: Client::new(haul, home.path()), serving, home, files }
    }

    fn target(&self) -> PathBuf {
        self.home.path().join("copy/tree")
    }

    fn spawn(&self, link: &Link, options: &[&str]) -> Child {
        let far = link.far_end(&self.serving.server);
        let (url, target) = (format!("{}tree", far.url()), self.home.path().join("copy").display().to_string());
        let arguments = [&["get", "-r", &url, &target, "--timeout", "5s", "--retries", "20"], options].concat();
        let arguments: Vec<_> = arguments.iter().map(OsStr::new).collect();
        let log = File::create(self.home.path().join("log")).expect("a log");
        let mut command = self.client.command(&far, &arguments);
        command.stdout(Stdio::null()).stderr(log).spawn().expect("haul")
    }

    fn run(self, mut dice: Dice, time: Duration) -> Report {
        let server = &self.serving.server;
        let mut report = Report { name: format!("haul get -r, {}", server.name), ..Report::default() };
        let link = Link::to(server);
        let rate = (FILES_A_SECOND * SIZE as u64).to_string();
        let mut child = self.spawn(&link, &["--limit-rate", &rate]);
        let began = Instant::now();
        let pause = (time / 300).max(Duration::from_millis(200));
        let mut next_break = Duration::from_secs(2);
        while began.elapsed() < time && child.try_wait().expect("haul").is_none() {
            std::thread::sleep(pause);
            report.client.0.extend(Sample::of(child.id()));
            report.server.0.extend(self.serving.pid().and_then(Sample::of));
            report.most_parts = report.most_parts.max(self.parts());
            if began.elapsed() >= next_break {
                next_break = began.elapsed() + Duration::from_millis(1500 + dice.below(4000));
                let (after, towards, on) = (dice.below(40_000), Towards::Client, On::Any);
                link.set(match dice.below(3) {
                    0 => Fault::Cut { after, towards, on },
                    1 => Fault::Close { after, towards, on },
                    _ => Fault::Reset { after, towards, on },
                });
            }
        }
        link.heal();
        report.breaks = link.cuts();
        let _ = kill_process(Pid::from_child(&child), Signal::TERM);
        self.finish(child, &link, &mut report);
        report
    }

    /// Lets a run end, fetches what is left, and looks at all of it.
    fn finish(&self, child: Child, link: &Link, report: &mut Report) {
        let stopped = self.wait(child, report);
        if !stopped {
            report.wrong.push("the long run ended in another way than by its signal".into());
        }
        report.files = names_below(&self.target()).len() as u64;
        let rest = self.spawn(link, &[]);
        self.wait(rest, report);
        for number in 0..self.files {
            let path = self.target().join(format!("d{}/{number}", number / FILES_IN_FOLDER));
            if std::fs::read(path).ok().as_deref() != Some(&bytes(number % DIFFERENT, SIZE)[..]) {
                report.wrong.push(format!("file {number}"));
            }
        }
        let left = names_below(&self.target()).into_iter().filter(|name| is_part(name));
        report.stray.extend(left.chain(self.client.left_in_state()));
    }

    /// Waits for the end; returns whether it ended as an interrupted or complete run does.
    fn wait(&self, mut child: Child, report: &mut Report) -> bool {
        let began = Instant::now();
        while child.try_wait().expect("haul").is_none() {
            if began.elapsed() > PATIENCE {
                report.wrong.push("haul hangs".into());
                let _ = child.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let output = child.wait_with_output().expect("haul");
        let fine = matches!(output.status.code(), Some(0 | 130));
        if !fine {
            let log = std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
            let start: String = log.lines().take(12).collect::<Vec<_>>().join("\n    ");
            println!("{}: {}    {start}", report.name, told(&output));
        }
        fine
    }

    fn parts(&self) -> usize {
        names_below(&self.target()).iter().filter(|name| is_part(name)).count()
    }
}

impl Report {
    /// What grew.
    pub(crate) fn growth(&self) -> Vec<String> {
        let client = self.client.growth().into_iter().map(|what| format!("haul's {what}"));
        client.chain(self.server.growth().into_iter().map(|what| format!("the server's {what}"))).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, files, breaks, most_parts, .. } = self;
        writeln!(f, "\n{name}: one process, {files} files, {breaks} breaks, at most {most_parts} parts at once")?;
        for (whose, samples) in [("haul", &self.client), ("server", &self.server)] {
            let of = |what: &dyn Fn(&Sample) -> u64| {
                let [first, middle, last] = samples.thirds(what);
                format!("{first} / {middle} / {last}")
            };
            writeln!(
                f,
                "  {whose:<8}first / middle / last third: memory {} KiB, descriptors {}, threads {}",
                of(&|sample| sample.memory >> 10),
                of(&|sample| sample.descriptors),
                of(&|sample| sample.threads),
            )?;
        }
        let growth = self.growth();
        let verdict = if growth.is_empty() { "flat at the end".to_owned() } else { growth.join("; ") };
        writeln!(f, "  {verdict}; wrong {}, stray {}", self.wrong.len(), self.stray.len())?;
        self.wrong.iter().chain(&self.stray).take(5).try_for_each(|what| writeln!(f, "    {what}"))
    }
}
