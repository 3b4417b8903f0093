//! What the fuzz targets in `fuzz/` call: each function reads any bytes and may do anything but panic, hang or swell.
//!
//! Compiled with `--cfg fuzzing` only, so that no other program sees what is private otherwise.

use crate::config::netrc::Netrc;
use crate::config::{Config, Takes, Vocabulary};
use crate::endpoint::Endpoint;
use crate::transport::sftp::wire::{
    CheckedFile, Frames, Hello, Limits, MAX_PACKET, Packet, Request, Response, StatVfs,
};
use crate::transport::{RemotePath, escape};

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

/// A setting of each kind.
struct Few;

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
