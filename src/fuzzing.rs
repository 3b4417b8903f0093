//! What the fuzz targets in `fuzz/` call: each function reads any bytes and may do anything but panic, hang or swell.
//!
//! Compiled with `--cfg fuzzing` only, so that no other program sees what is private otherwise.

use std::time::Duration;

use crate::batch::{self, JobFile, Surroundings};
use crate::config::netrc::Netrc;
use crate::config::{Config, Takes, Vocabulary};
use crate::endpoint::Endpoint;
use crate::plan::{Filter, sums};
use crate::transfer::Timetable;
use crate::transport::sftp::wire::{
    CheckedFile, Frames, Hello, Limits, MAX_PACKET, Packet, Request, Response, StatVfs,
};
use crate::transport::{FileKind, RemotePath, escape};

/// Reads a URL, and what it is written as again.
pub fn url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(endpoint) = Endpoint::parse(text) else { return };
    let shown = endpoint.to_string();
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
    let home = RemotePath::root();
    let Ok(path) = endpoint.path.resolve(&home) else { return };
    let again = Endpoint::parse(&endpoint.url_of(&path)).map(|again| again.path.resolve(&home));
    assert_eq!(again.ok().and_then(Result::ok), Some(path), "{shown}");
}

/// Cuts a server's bytes into packets and reads each as an answer; what was read is written and read again.
pub fn sftp_answers(data: &[u8]) {
    packets(data, |packet| {
        let _ = Hello::decode_version(packet.clone());
        let Ok((id, response)) = Response::decode(packet) else { return };
        if let Response::Extended(data) = &response {
            let _ = (Limits::decode(data.clone()), StatVfs::decode(data.clone()), CheckedFile::decode(data.clone()));
        }
        let shown = format!("{response:?}");
        let again = read_again(response.encode(id).into_bytes().as_ref(), Response::decode);
        assert_eq!(format!("{:?}", again.map(|(_, response)| response)), format!("Some({shown})"));
    });
}

/// Cuts a client's bytes into packets and reads each as a request; what was read is written and read again.
pub fn sftp_requests(data: &[u8]) {
    packets(data, |packet| {
        let _ = Hello::decode_init(packet.clone());
        let Ok((id, request)) = Request::decode(packet) else { return };
        let shown = format!("{request:?}");
        let again = read_again(request.encode(id).into_bytes().as_ref(), Request::decode);
        assert_eq!(format!("{:?}", again.map(|(_, request)| request)), format!("Some({shown})"));
    });
}

/// Cuts a server's bytes into replies and asks each for all that it may tell.
pub fn ftp_replies(data: &[u8]) {
    crate::transport::ftp::fuzzing::replies(data);
}

/// Reads each line as LIST and as MLSD have it.
pub fn ftp_listings(data: &[u8]) {
    crate::transport::ftp::fuzzing::listings(data);
}

/// Reads each line as a command of an FTP client.
pub fn ftp_commands(data: &[u8]) {
    crate::serve::read_ftp_commands(data);
}

/// Reads any bytes as a file of SSH settings.
pub fn ssh_config(data: &[u8]) {
    crate::transport::read_ssh_config(data);
}

/// Reads any bytes as a file of known hosts.
pub fn known_hosts(data: &[u8]) {
    crate::transport::ssh::fuzzing::known_hosts(data);
}

/// Reads a timetable, and follows it from change to change.
pub fn timetable(data: &[u8]) {
    let rate = |word: &str| word.parse().map_err(|_| String::new());
    let Ok(timetable) = Timetable::parse(&String::from_utf8_lossy(data), rate) else { return };
    let Ok(mut now) = "2026-10-24T12:00[Europe/Berlin]".parse::<jiff::Zoned>() else { return };
    for _ in 0..10 {
        let rate = timetable.at(&now);
        assert!(rate.is_none() || timetable.is_limit());
        let Some(next) = timetable.next(&now) else { return };
        assert!(next > now.timestamp());
        now = next.to_zoned(now.time_zone().clone());
    }
}

/// Reads any text as a `.netrc`, and looks up who is in it.
pub fn netrc(data: &[u8]) {
    let Ok(netrc) = Netrc::read(&String::from_utf8_lossy(data)) else { return };
    let _ = (netrc.find("host", None), netrc.find("host", Some("me")), netrc.holds_secrets());
}

/// Reads any text as the file of settings: what is wrong is told with a place that is in it.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match Config::read(&text, &Few) {
        Ok(config) => {
            for profile in config.profiles() {
                assert_eq!(config.profile(&profile.name).map(|found| &found.name), Some(&profile.name));
            }
            let _ = config.sections("host", Some("work"));
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            let lines = text.split('\n').count();
            assert!(problems.iter().all(|problem| (1..=lines).contains(&problem.place.line)), "{problems:?}");
        }
    }
}

/// Reads any bytes as a list of checksums: no name leads out, and what was read is written and read again.
pub fn sums(data: &[u8]) {
    let directory = RemotePath::root().join("d").unwrap_or_else(|_| RemotePath::root());
    let mut reader = sums::Reader::new(None);
    for line in data.split(|&b| b == b'\n') {
        let Ok(Some(sum)) = reader.read(line) else { continue };
        if let Ok(path) = sum.below(&directory) {
            assert!(path != directory && path.is_at_or_below(&directory), "{path}");
        }
        for line in [sum.line(), sum.tagged_line()] {
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            let again = sums::Reader::new(Some(sum.algorithm)).read(line);
            let name: &[u8] = if sum.name == b"-" { b"./-" } else { &sum.name };
            assert_eq!(again, Ok(Some(sums::Sum { name: name.to_vec(), ..sum.clone() })));
        }
    }
}

/// Reads any bytes as patterns and as a list of paths, and asks for a name made of the rest.
pub fn filter(data: &[u8]) {
    let (&cut, data) = data.split_first().unwrap_or((&0, data));
    let (text, name) = data.split_at(usize::from(cut).min(data.len()));
    let kinds = [FileKind::File, FileKind::Directory];
    let lines = text.split(|byte| *byte == b'\n').filter(|line| Filter::builder().lines("", line).build().is_ok());
    let text: Vec<u8> = lines.collect::<Vec<_>>().join(&b'\n');
    for filter in [Filter::builder().lines("", &text), Filter::builder().only_paths("", &text)] {
        let Ok(filter) = filter.build() else { continue };
        let below = filter.root().enter(name);
        let _ = kinds.map(|kind| (filter.root().takes_name(name, kind), below.takes_name(name, kind)));
    }
}

/// Reads any text as a job file: what is wrong is told with a place that is in it.
pub fn job_file(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (file, problems) = JobFile::read(&text, &Few);
    let lines = text.split('\n').count();
    assert!(problems.iter().all(|problem| (1..=lines).contains(&problem.place.line)), "{problems:?}");
    assert!(!problems.is_empty() || file.jobs.iter().all(|job| job.needs.iter().all(|need| *need < file.jobs.len())));
}

/// Reads any bytes as a command script.
pub fn script(data: &[u8]) {
    let lines = data.split(|&byte| byte == b'\n').count();
    match batch::read_script(data) {
        Ok(read) => assert!(read.iter().all(|line| (1..=lines).contains(&line.place.line))),
        Err(problems) => assert!(!problems.is_empty()),
    }
}

/// A setting of each kind.
struct Few;

impl Surroundings for Few {
    fn options(&self, _: &str) -> &dyn Vocabulary {
        self
    }

    fn variable(&self, name: &str) -> Result<String, String> {
        if name == "HOST" { Ok("host".into()) } else { Err("the variable isn't set".into()) }
    }

    fn is_of_run(&self, name: &str) -> bool {
        name == "report"
    }

    fn date(&self, format: &str) -> Result<String, String> {
        if format == "%F" { Ok("2001-09-09".into()) } else { Err("no format".into()) }
    }

    fn duration(&self, word: &str) -> Result<Duration, String> {
        word.parse().map(Duration::from_secs).map_err(|_| "no time".into())
    }
}

impl Vocabulary for Few {
    fn names(&self) -> Vec<&str> {
        vec!["quiet", "jobs", "identity"]
    }

    fn takes(&self, name: &str) -> Option<Takes> {
        match name {
            "quiet" => Some(Takes::Switch),
            "jobs" => Some(Takes::Word),
            "identity" => Some(Takes::Words),
            _ => None,
        }
    }

    fn check(&self, _: &str, word: &str) -> Result<(), String> {
        if word.is_empty() { Err("an empty word".into()) } else { Ok(()) }
    }
}

/// Reads any bytes as a journal.
pub fn journal(data: &[u8]) {
    crate::transfer::fuzzing::journal(data);
}

/// Feeds bytes in two pieces: where they are cut must make no difference.
fn packets(data: &[u8], mut read: impl FnMut(Packet)) {
    let Some((&cut, data)) = data.split_first() else { return };
    let (mut first, mut second) = data.split_at(usize::from(cut).min(data.len()));
    let mut frames = Frames::new(MAX_PACKET);
    for piece in [&mut first, &mut second] {
        while let Ok(Some(packet)) = frames.next(piece) {
            read(packet);
        }
    }
}

fn read_again<T>(bytes: &[u8], decode: impl Fn(Packet) -> crate::Result<T>) -> Option<T> {
    // What was read is no longer than a packet; how it is written may be, by little.
    let packet = Frames::new(2 * MAX_PACKET).next(&mut &bytes[..]).ok()??;
    decode(packet).ok()
}

/// Makes sure of what every name from a server has to go through.
pub(crate) fn name(name: &[u8]) {
    assert!(!escape(name).chars().any(char::is_control));
    if let Ok(path) = RemotePath::root().join(name) {
        assert_eq!((path.components().count(), path.file_name()), (1, Some(name)));
    }
}
