//! A password turns up nowhere: not in what is said at `-vvv`, not in JSON, not on disk, not in any process that haul
//! starts.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::process::Child;
use std::time::Duration;

use haul::serve::{FtpTls, Protocol};

use crate::stage::{Ran, Server, Stage, files_below, holds};

const MARKER: &str = "m4rK3r-n0b0dy-5ees";
const SOURCES: [&str; 4] = ["environment", "file", "netrc", "keyring"];

/// Where the password was seen that it should not be, and how many processes were looked at.
#[derive(Debug, Default)]
struct Seen {
    leaks: Vec<String>,
    programs: Vec<String>,
}

impl Seen {
    fn look(&mut self, place: impl FnOnce() -> String, bytes: &[u8]) {
        if holds(bytes, MARKER.as_bytes()) {
            self.leaks.push(place());
        }
    }

    /// Looks at every process below haul, at haul's own arguments, and at what haul has written down so far.
    fn look_around(&mut self, stage: &Stage, haul: u32) {
        for pid in below(haul) {
            let read = |what: &str| std::fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
            let program = String::from_utf8_lossy(&read("comm")).trim().to_owned();
            self.look(|| format!("arguments of {program}"), &read("cmdline"));
            if pid != haul {
                self.look(|| format!("environment of {program}"), &read("environ"));
                if !self.programs.contains(&program) {
                    self.programs.push(program);
                }
            }
        }
        for (path, contents) in files_below(&stage.at("state")) {
            self.look(|| format!("{}", path.display()), &contents);
            self.look(|| format!("name of {}", path.display()), path.as_os_str().as_encoded_bytes());
        }
    }
}

/// Returns a process and all that descend from it.
fn below(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        children.entry(parent.unwrap_or(0)).or_default().push(pid);
    }
    let (mut found, mut open) = (Vec::new(), vec![root]);
    while let Some(pid) = open.pop() {
        found.push(pid);
        open.extend(children.get(&pid).into_iter().flatten());
    }
    found
}

/// Runs haul and looks everywhere until it ends.
fn watched(stage: &Stage, args: &[&str]) -> (Ran, Seen) {
    let (stdout, stderr) = (stage.at("stdout"), stage.at("stderr"));
    let mut command = stage.command(args);
    command.stdout(std::fs::File::create(&stdout).unwrap()).stderr(std::fs::File::create(&stderr).unwrap());
    let mut haul: Child = command.spawn().unwrap();
    let mut seen = Seen::default();
    let status = loop {
        seen.look_around(stage, haul.id());
        if let Some(status) = haul.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    seen.look_around(stage, haul.id());
    let read = |path| std::fs::read(path).unwrap();
    let ran = Ran { status: status.code().unwrap_or(-1), stdout: read(&stdout), stderr: read(&stderr) };
    seen.look(|| "standard output".into(), &ran.stdout);
    seen.look(|| format!("standard error: {}", ran.err()), &ran.stderr);
    for (path, contents) in files_below(&stage.at("work")) {
        seen.look(|| format!("{}", path.display()), &contents);
    }
    (ran, seen)
}

fn give(stage: &mut Stage, source: &str, url: &str, args: &mut Vec<String>) {
    match source {
        "environment" => stage.env.push(("HAUL_PASSWORD", MARKER.into())),
        "file" => args.extend(["--password-file".into(), stage.file("given", MARKER, 0o600)]),
        "netrc" => drop(stage.file("home/.netrc", format!("machine 127.0.0.1 login me password {MARKER}\n"), 0o600)),
        _ => {
            crate::keyring::stand_in(stage);
            crate::keyring::put(stage, url, MARKER);
        }
    }
}

/// Downloads slowly, uploads, and fails to log in, with the password from each place.
fn look_everywhere(protocol: Protocol, scheme: &str, engine: &str) {
    for source in SOURCES {
        let mut stage = Stage::new();
        stage.file("served/file", vec![b'x'; 150_000], 0o644);
        let right = stage.serve(protocol, "me", MARKER);
        let wrong = stage.serve(protocol, "me", "another");
        let login = |server: &Server| format!("{scheme}://me@127.0.0.1:{}", server.port);
        let mut common = stage.trust();
        common.extend(["-vvv", "--json", "--ssh-engine", engine].map(str::to_owned));
        if matches!(protocol, Protocol::Ftp(FtpTls::Require | FtpTls::Implicit)) {
            common.extend(["--tls-ca".into(), stage.certificate()]);
        }
        give(&mut stage, source, &login(&right), &mut common);
        let (file, up) = (format!("{}/file", login(&right)), format!("{}/up", login(&right)));
        let run = |args: &[&str], status: i32| {
            let args: Vec<&str> = args.iter().copied().chain(common.iter().map(String::as_str)).collect();
            let (ran, seen) = watched(&stage, &args);
            let what = format!("{scheme} {engine} {source}");
            assert_eq!(ran.status, status, "{what}: {}{}", ran.out(), ran.err());
            assert_eq!(seen.leaks, [""; 0], "{what}");
            // Without this the test would prove nothing: what was said to the server is told, but for the secret.
            let told = if engine == "russh" && scheme.starts_with("ftp") { "> PASS ***" } else { "" };
            assert!(
                ran.err().contains(told) && !ran.err().is_empty(),
                "{what}: nothing was said at -vvv: {}",
                ran.err()
            );
            if engine == "openssh" {
                assert!(seen.programs.iter().any(|program| program == "ssh"), "{what}: {:?}", seen.programs);
            }
        };
        run(&["get", "--limit-rate", "300k", &file], 0);
        run(&["put", "file", &up], 0);
        run(&["ls", &format!("{}/nothing", login(&right))], 1);
        if source != "keyring" {
            run(&["get", &format!("{}/file", login(&wrong)), "other"], 3);
        }
    }
}

#[test]
fn nothing_shows_a_password_of_ftp() {
    look_everywhere(Protocol::Ftp(FtpTls::Off), "ftp", "russh");
}

#[test]
fn nothing_shows_a_password_of_ftpes() {
    look_everywhere(Protocol::Ftp(FtpTls::Require), "ftpes", "russh");
}

#[test]
fn nothing_shows_a_password_of_ftps() {
    look_everywhere(Protocol::Ftp(FtpTls::Implicit), "ftps", "russh");
}

#[test]
fn nothing_shows_a_password_of_sftp_by_russh() {
    look_everywhere(Protocol::Sftp, "sftp", "russh");
}

#[test]
fn nothing_shows_a_password_of_sftp_by_libssh2() {
    look_everywhere(Protocol::Sftp, "sftp", "libssh2");
}

#[test]
fn nothing_shows_a_password_of_sftp_by_openssh() {
    look_everywhere(Protocol::Sftp, "sftp", "openssh");
}

#[test]
fn a_password_in_a_url_is_shown_no_more_than_by_the_user() {
    let stage = Stage::new();
    stage.file("served/file", vec![b'x'; 1000], 0o644);
    let server = stage.serve(Protocol::Ftp(FtpTls::Off), "me", MARKER);
    let url = format!("ftp://me:{MARKER}@127.0.0.1:{}/file", server.port);
    for (args, status) in
        [(&["get", "-vvv", "--json", &url][..], 0), (&["ls", "-vvv", &url], 0), (&["ls", &format!("{url}/x")], 1)]
    {
        let ran = stage.haul(args).ends(status);
        assert!(!holds(&ran.stdout, MARKER.as_bytes()) && !holds(&ran.stderr, MARKER.as_bytes()), "{}", ran.err());
    }
    let written = files_below(&stage.at("state"));
    assert!(written.iter().all(|(_, contents)| !holds(contents, MARKER.as_bytes())));
}

/// What haul writes down about transfers is nobody else's business.
#[test]
fn what_is_written_down_is_for_the_user_alone() {
    use std::os::unix::fs::MetadataExt;
    let mut stage = Stage::new();
    stage.file("served/file", vec![b'x'; 3_000_000], 0o644);
    let server = stage.serve(Protocol::Sftp, "me", "right");
    stage.env.push(("HAUL_PASSWORD", "right".into()));
    let (url, trust) = (format!("sftp://me@127.0.0.1:{}/file", server.port), stage.trust());
    let args: Vec<&str> =
        ["get", "--limit-rate", "2M", &url].into_iter().chain(trust.iter().map(String::as_str)).collect();
    let mut haul = stage.command(&args).spawn().unwrap();
    let mut files = Vec::new();
    while haul.try_wait().unwrap().is_none() {
        files.extend(
            files_below(&stage.at("state"))
                .into_iter()
                .filter_map(|(path, _)| Some((path.metadata().ok()?.mode() & 0o777, path))),
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!files.is_empty());
    for (mode, path) in files {
        assert_eq!(mode, 0o600, "{}", path.display());
    }
}

/// As long as what an allocator makes of it: what stands around a copy is never part of another.
const LONG_MARKER: &str = "m4rK3r-n0b0dy-5ees-1n-me";
const TAIL: &[u8] = b"-1n-me";

/// Returns the memory that a process can write to.
fn memory_of(pid: u32) -> Vec<Vec<u8>> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let read = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        let mut bytes = vec![0; usize::try_from(end - start).ok()?];
        rest.starts_with("rw")
            .then(|| memory.read_at(&mut bytes, start).map(|length| bytes.truncate(length)).ok())??;
        Some(bytes)
    };
    maps.lines().filter_map(read).collect()
}

/// What sends a password, or read it from a file, has wiped its buffers when the transfer is under way.
#[test]
fn no_buffer_keeps_a_password_that_was_sent() {
    let length = u32::try_from(LONG_MARKER.len()).unwrap().to_be_bytes();
    let (before, behind): ([&[u8]; 3], &[u8]) = ([b"PASS ", &length, b"password "], b"\n");
    for (protocol, scheme) in [(Protocol::Ftp(FtpTls::Off), "ftp"), (Protocol::Sftp, "sftp")] {
        for source in ["file", "netrc"] {
            let stage = Stage::new();
            stage.file("served/file", vec![b'x'; 3_000_000], 0o644);
            let server = stage.serve(protocol, "me", LONG_MARKER);
            let url = format!("{scheme}://me@127.0.0.1:{}/file", server.port);
            stage.file("given", format!("{LONG_MARKER}\n"), 0o600);
            stage.file("netrc", format!("machine 127.0.0.1 login me password {LONG_MARKER}\n"), 0o600);
            let (given, netrc, trust) = (stage.path("given"), stage.path("netrc"), stage.trust());
            let how = if source == "file" { ["--password-file", &given] } else { ["--netrc", &netrc] };
            let args = ["get", "-q", "--limit-rate", "500k", &url].into_iter().chain(how);
            let args: Vec<&str> = args.chain(trust.iter().map(String::as_str)).collect();
            let mut haul = stage.command(&args).spawn().unwrap();
            let moving = || files_below(&stage.at("work")).iter().any(|(_, part)| part.len() > 100_000);
            while !moving() {
                assert!(haul.try_wait().unwrap().is_none(), "{scheme} {source}: it ended before it was looked at");
                std::thread::sleep(Duration::from_millis(10));
            }
            let memory = memory_of(haul.id());
            haul.kill().unwrap();
            haul.wait().unwrap();
            let mut copies = 0;
            for part in &memory {
                for end in places(part, TAIL) {
                    let at = (end + TAIL.len()).saturating_sub(LONG_MARKER.len());
                    if !part[at..].starts_with(LONG_MARKER.as_bytes()) {
                        // Of what is freed the allocator overwrites the beginning. russh's own buffer keeps its packets
                        // until longer ones follow: nobody but russh can wipe it.
                        assert_eq!(scheme, "sftp", "{source}: a copy was not wiped");
                        continue;
                    }
                    let (head, tail) = (&part[..at], &part[at + LONG_MARKER.len()..]);
                    let around = part[at.saturating_sub(16)..].iter().take(64).copied().collect::<Vec<_>>();
                    let is_trace = before.iter().any(|before| head.ends_with(before)) || tail.starts_with(behind);
                    assert!(!is_trace, "{scheme} {source}: {}", around.escape_ascii());
                    copies += 1;
                }
            }
            assert!(copies > 0, "{scheme}: it was not looked at while the password was of use");
        }
    }
}

/// While a server thinks about a password, the command that brought it is wiped already.
#[test]
fn the_command_with_the_password_is_wiped_once_it_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ftp://me@127.0.0.1:{}/", listener.local_addr().unwrap().port());
    let (tell, told) = std::sync::mpsc::channel();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        write!(stream, "220 welcome\r\n").unwrap();
        for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
            match line.starts_with("USER") {
                true => write!(stream, "331 go on\r\n").unwrap(),
                false => drop(tell.send(line)),
            }
        }
    });
    let mut stage = Stage::new();
    stage.env.push(("HAUL_PASSWORD", LONG_MARKER.into()));
    let mut haul = stage.command(&["ls", "--tls", "off", &url]).spawn().unwrap();
    assert_eq!(told.recv_timeout(Duration::from_secs(20)).unwrap(), format!("PASS {LONG_MARKER}"));
    // What was received need not have returned to the sender yet.
    let command = format!("PASS {LONG_MARKER}");
    let is_kept = || memory_of(haul.id()).iter().any(|part| !places(part, command.as_bytes()).is_empty());
    let is_wiped = (0..20).any(|_| !is_kept());
    haul.kill().unwrap();
    haul.wait().unwrap();
    server.join().unwrap();
    assert!(is_wiped);
}

/// Returns where some bytes hold others.
fn places(bytes: &[u8], part: &[u8]) -> Vec<usize> {
    let first = part[0];
    let starts = bytes.iter().enumerate().filter(|(_, byte)| **byte == first).map(|(at, _)| at);
    starts.filter(|&at| bytes[at..].starts_with(part)).collect()
}
