//! known_hosts as `ssh-keygen` reads and writes it, and certificates that it signs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Barrier, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use tempfile::TempDir;

use super::filed_key::{describe, keys_for};
use super::known_hosts::{Files, KnownHosts, Names};
use crate::error::{ErrorKind, Result};
use crate::transport::{HostKeyPolicy, NoPrompt, Prompt, Secret};

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// Makes a key pair and returns type and public half as they stand in known_hosts.
    fn key(&self, name: &str, kind: &[&str]) -> String {
        let path = self.path(name);
        run(Command::new("ssh-keygen").arg("-q").arg("-t").args(kind).args(["-N", "", "-f"]).arg(&path));
        public(&path.with_extension("pub"))
    }

    /// Signs a host's key and returns the certificate's bytes.
    fn certificate(&self, authority: &str, key: &str, how: &[&str]) -> Vec<u8> {
        let (authority, key) = (self.path(authority), self.path(&format!("{key}.pub")));
        run(Command::new("ssh-keygen").arg("-q").arg("-s").arg(authority).args(["-I", "test"]).args(how).arg(&key));
        let certificate = key.to_str().unwrap().replace(".pub", "-cert.pub");
        blob(&public(Path::new(&certificate)))
    }
}

fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn public(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ").trim().to_owned()
}

fn blob(public: &str) -> Vec<u8> {
    STANDARD.decode(public.split(' ').nth(1).unwrap()).unwrap()
}

fn admit(host: &str, port: u16, file: &Path, key: &[u8], policy: HostKeyPolicy) -> Result<()> {
    KnownHosts::read(host, port, &Files::only(file, Names::Readable)).unwrap().admit(key, policy, &NoPrompt)
}

/// Returns the numbers of the lines that `ssh-keygen -F` finds.
fn found_by_keygen(name: &str, file: &Path) -> Vec<usize> {
    let output = Command::new("ssh-keygen").args(["-F", name, "-f"]).arg(file).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("# Host"));
    lines.map(|line| line.split("found: line ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()).collect()
}

fn found_by_us(name: &str, file: &Path) -> Vec<usize> {
    let places = keys_for(name, &std::fs::read(file).unwrap(), file).into_iter().map(|key| key.place());
    places.map(|place| place.rsplit(':').next().unwrap().parse().unwrap()).collect()
}

#[test]
fn the_same_lines_are_found_as_by_ssh_keygen() {
    let folder = Folder::new();
    let (one, two) = (folder.key("one", &["ed25519"]), folder.key("two", &["ecdsa"]));
    let valid = format!(
        "# comment\n\nplain.example {one}\nPLAIN.example,other {two}\n*.example,!www.example {one}\n\
         !plain.example,* {two}\n[plain.example]:2222 {one}\n[*]:2222 {two} a comment\n\
         @cert-authority *.example {one}\n@revoked * {two}\n10.0.0.? {one}\n::1 {two}\n\
           indented.example {one}\nplain.example\t{two}\n"
    );
    let file = folder
        .write("known_hosts", &format!("{valid}@whatever * {two}\nbroken.example ssh-rsa AAAA\nno-key\nother {one}"));
    let hashed = folder.write("hashed", &valid);
    // Hashing leaves out what is a pattern.
    Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(&hashed).stderr(Stdio::null()).status().unwrap();
    assert!(std::fs::read_to_string(&hashed).unwrap().contains("|1|"), "nothing was hashed");
    for name in [
        "plain.example",
        "other",
        "www.example",
        "[plain.example]:2222",
        "[other]:2222",
        "[other]:22",
        "10.0.0.7",
        "10.0.0.77",
        "::1",
        "indented.example",
        "nobody",
        "no-key",
    ] {
        for file in [&file, &hashed] {
            assert_eq!(found_by_us(name, file), found_by_keygen(name, file), "{name} in {}", file.display());
        }
    }
}

#[test]
fn fingerprints_are_those_of_ssh_keygen() {
    let folder = Folder::new();
    for kind in [&["ed25519"][..], &["ecdsa", "-b", "384"], &["rsa", "-b", "2048"]] {
        let key = folder.key(kind[0], kind);
        let shown = run(Command::new("ssh-keygen").args(["-l", "-f"]).arg(folder.path(&format!("{}.pub", kind[0]))));
        let (fingerprint, name) = (shown.split(' ').nth(1).unwrap(), shown.trim().rsplit(['(', ')']).nth(1).unwrap());
        assert_eq!(describe(&blob(&key)), format!("{name} {fingerprint}"));
    }
}

#[test]
fn a_hashed_entry_of_ours_is_found_by_ssh_keygen() {
    let folder = Folder::new();
    let (key, file) = (blob(&folder.key("one", &["ed25519"])), folder.path("known_hosts"));
    for (host, port, name) in [("Some.Example", 22, "some.example"), ("h", 2222, "[h]:2222")] {
        let hosts = KnownHosts::read(host, port, &Files::only(&file, Names::Hashed)).unwrap();
        hosts.admit(&key, HostKeyPolicy::AcceptNew, &NoPrompt).unwrap();
        assert_eq!(found_by_keygen(name, &file).len(), 1, "{name}");
        admit(host, port, &file, &key, HostKeyPolicy::Strict).unwrap();
    }
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.lines().all(|line| line.starts_with("|1|")) && !text.contains("example"), "{text}");
}

#[test]
fn several_files_count_and_new_keys_go_into_the_first() {
    let folder = Folder::new();
    let [one, two, three] = ["one", "two", "three"].map(|name| folder.key(name, &["ed25519"]));
    let own = folder.write("own", &format!("a {one}\n"));
    let files = Files::of(
        Some(vec![own.clone(), folder.write("second", &format!("b {two}\n"))]),
        Some(vec![folder.write("system", &format!("c {three}\n@revoked * {two}\n")), folder.path("missing")]),
        Names::Readable,
    );
    let admit =
        |host: &str, key: &str, policy| KnownHosts::read(host, 22, &files)?.admit(&blob(key), policy, &NoPrompt);
    admit("a", &one, HostKeyPolicy::Strict).unwrap();
    admit("c", &three, HostKeyPolicy::Strict).unwrap();
    let revoked = admit("b", &two, HostKeyPolicy::AcceptNew).unwrap_err();
    assert!(revoked.message().contains("revoked") && revoked.message().contains("system:2"), "{revoked}");
    let changed = admit("c", &one, HostKeyPolicy::AcceptNew).unwrap_err();
    assert!(changed.message().contains("system:1"), "{changed}");
    admit("d", &one, HostKeyPolicy::AcceptNew).unwrap();
    assert_eq!(std::fs::read_to_string(own).unwrap(), format!("a {one}\nd {one}\n"));
}

#[test]
fn the_way_out_of_a_changed_key_fits_the_line() {
    let folder = Folder::new();
    let (old, new) = (folder.key("old", &["ed25519"]), blob(&folder.key("new", &["ed25519"])));
    let hint = |hosts: &str| {
        let file = folder.write("known_hosts", &format!("#\n{hosts} {old}\n"));
        let error = admit("h", 2222, &file, &new, HostKeyPolicy::Ask).unwrap_err();
        error.hint().unwrap().to_owned()
    };
    assert!(hint("[h]:2222").contains("ssh-keygen -R '[h]:2222' -f "), "{}", hint("[h]:2222"));
    // `ssh-keygen -R` would find nothing.
    assert!(hint("[*]:2222").contains("correct line 2 of "), "{}", hint("[*]:2222"));
}

#[test]
fn a_host_certificate_is_good_for_its_hosts_in_its_time() {
    let folder = Folder::new();
    let authority = folder.key("ca", &["ed25519"]);
    let key = folder.key("host", &["ed25519"]);
    let file = folder.write("known_hosts", &format!("@cert-authority *.example,[*.example]:* {authority}\n"));
    let check = |how: &[&str], host: &str, port| {
        let certificate = folder.certificate("ca", "host", how);
        admit(host, port, &file, &certificate, HostKeyPolicy::AcceptNew)
    };
    let good = ["-h", "-n", "www.example,Other.Example", "-V", "-1m:+1d"];
    for (host, port) in [("www.example", 22), ("WWW.example", 22), ("other.example", 22), ("www.example", 2222)] {
        check(&good, host, port).unwrap_or_else(|e| panic!("{host}: {e}"));
    }
    check(&["-h", "-n", "*.example"], "www.example", 22).unwrap();
    for (why, how, host) in [
        ("it is for www.example", &good[..], "ftp.example"),
        ("it is for no host", &["-h"], "www.example"),
        ("it ended", &["-h", "-n", "www.example", "-V", "20200101:20210101"], "www.example"),
        ("valid only from", &["-h", "-n", "www.example", "-V", "+1d:+2d"], "www.example"),
        ("a user's", &["-n", "www.example"], "www.example"),
    ] {
        let error = check(how, host, 22).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HostKey);
        assert!(error.message().contains(why), "{why}: {error}");
        assert!(error.message().contains("known_hosts:1"), "{error}");
    }
    // A host that the authority is not for: like any other new key, which this policy takes.
    check(&good, "elsewhere", 22).unwrap();
    admit("elsewhere", 22, &file, &folder.certificate("ca", "host", &good), HostKeyPolicy::Strict).unwrap();
    assert!(std::fs::read_to_string(&file).unwrap().contains(&format!("elsewhere {key}")));
}

#[test]
fn a_bad_certificate_or_a_revoked_authority_is_refused() {
    let folder = Folder::new();
    let (authority, key) = (folder.key("ca", &["rsa", "-b", "2048"]), folder.key("host", &["ecdsa"]));
    let stranger = folder.key("stranger", &["ed25519"]);
    let certificate = folder.certificate("ca", "host", &["-h", "-n", "h"]);
    let trust = format!("@cert-authority h {authority}\n");
    let refusal = |text: &str, blob: &[u8]| {
        let error = admit("h", 22, &folder.write("known_hosts", text), blob, HostKeyPolicy::AcceptNew).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HostKey, "{error}");
        error.message().to_owned()
    };
    admit("h", 22, &folder.write("known_hosts", &trust), &certificate, HostKeyPolicy::Strict).unwrap();

    let mut forged = certificate.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert!(refusal(&trust, &forged).contains("signature is wrong"));
    // The name that it is for.
    let mut other = certificate.clone();
    let at = other.windows(5).position(|bytes| bytes == b"\0\0\0\x01h").unwrap();
    other[at + 4] = b'H';
    assert!(refusal(&trust, &other).contains("signature is wrong"));
    let sha1 = folder.certificate("ca", "host", &["-h", "-n", "h", "-t", "ssh-rsa"]);
    assert!(refusal(&trust, &sha1).contains("SHA-1"));
    assert!(refusal(&format!("{trust}@revoked * {authority}\n"), &certificate).contains("authority"));
    assert!(refusal(&format!("{trust}@revoked * {key}\n"), &certificate).contains("host key is marked as revoked"));
    // Signed by somebody else: nothing but the key inside counts.
    let other = format!("@cert-authority h {stranger}\nh {stranger}\n");
    assert!(refusal(&other, &certificate).contains("another type"));
    // Not even read.
    for length in [1, 60, certificate.len() - 1] {
        assert!(refusal(&trust, &certificate[..length.max(44)]).contains("certificate"));
    }
    let nested = b"-cert-v01@".repeat(9);
    assert!(refusal(&trust, &[&certificate[..], &nested].concat()).contains("within"));
    // An authority's key shown as the host's own.
    assert!(admit("h", 22, &folder.write("known_hosts", &trust), &blob(&authority), HostKeyPolicy::Strict).is_err());
}

#[test]
fn a_key_on_file_counts_where_its_certificate_does_not() {
    let folder = Folder::new();
    let (authority, key) = (folder.key("ca", &["ed25519"]), folder.key("host", &["ed25519"]));
    let file = folder.write("known_hosts", &format!("@cert-authority h {authority}\nh {key}\n"));
    let ended = folder.certificate("ca", "host", &["-h", "-n", "h", "-V", "20200101:20210101"]);
    admit("h", 22, &file, &ended, HostKeyPolicy::Strict).unwrap();
}

#[test]
fn many_at_once_tear_no_line_and_file_a_key_once() {
    let folder = Folder::new();
    let key = folder.key("one", &["ed25519"]);
    let file = folder.write("known_hosts", "# no line break");
    let barrier = Arc::new(Barrier::new(16));
    let threads: Vec<_> = (0..16)
        .map(|number| {
            let (file, key, barrier) = (file.clone(), blob(&key), Arc::clone(&barrier));
            std::thread::spawn(move || {
                // All have read the file before anybody writes.
                let hosts = KnownHosts::read(&format!("h{}", number % 8), 22, &Files::only(&file, Names::Readable));
                barrier.wait();
                hosts.unwrap().admit(&key, HostKeyPolicy::AcceptNew, &NoPrompt).unwrap();
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let text = std::fs::read_to_string(&file).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    let mut expected: Vec<_> = (0..8).map(|number| format!("h{number} {key}")).collect();
    expected.insert(0, "# no line break".into());
    assert_eq!(lines, expected);
}

#[test]
fn who_comes_second_with_another_key_is_refused() {
    let folder = Folder::new();
    let [one, two] = ["one", "two"].map(|name| blob(&folder.key(name, &["ed25519"])));
    let file = folder.path("known_hosts");
    let hosts = || KnownHosts::read("h", 22, &Files::only(&file, Names::Readable)).unwrap();
    let (first, second) = (hosts(), hosts());
    first.admit(&one, HostKeyPolicy::AcceptNew, &NoPrompt).unwrap();
    let error = second.admit(&two, HostKeyPolicy::AcceptNew, &NoPrompt).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HostKey, "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 1);
}

#[test]
fn a_host_of_control_characters_is_shown_harmless() {
    #[derive(Debug, Default)]
    struct Person(Mutex<String>);
    impl Prompt for Person {
        fn secret(&self, _: &str) -> Option<Secret> {
            None
        }
        fn line(&self, _: &str) -> Option<String> {
            None
        }
        fn confirm(&self, question: &str) -> Option<bool> {
            question.clone_into(&mut self.0.lock().unwrap());
            None
        }
        fn notice(&self, _: &str) {}
    }
    let folder = Folder::new();
    let file = folder.write("known_hosts", "");
    let person = Person::default();
    let hosts = KnownHosts::read("a\x1b[2J\u{202e}b", 2222, &Files::only(&file, Names::Readable)).unwrap();
    // A type that no server should have.
    let key = [&[0, 0, 0, 8][..], b"\x1b]0;x\x07-y", &[0, 0, 0, 0]].concat();
    let error = hosts.admit(&key, HostKeyPolicy::Ask, &person).unwrap_err();
    let shown = format!("{error}{}{}", error.hint().unwrap(), person.0.lock().unwrap());
    assert!(!shown.replace('\n', "").contains(|c: char| c.is_control() || c == '\u{202e}'), "{shown:?}");
    assert!(shown.contains("[2j"), "{shown:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Patterns, negation and ports, as `ssh-keygen -F` finds them.
    #[test]
    fn any_patterns_are_read_as_by_ssh_keygen(
        fields in proptest::collection::vec("(!?[a-c.*?]{1,4}|\\[[a-c*]{1,2}\\]:[12*?]{1,2})(,!?[a-c.*?]{1,4}){0,2}", 1..8),
        name in "[a-c][a-c.]{0,2}|\\[[a-c]{1,2}\\]:[12]{1,2}",
    ) {
        let folder = Folder::new();
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIfTIXXLPJVoNU4xpsGEW6zQKuvGiaRgMTvAn1y4bAKH";
        let lines: Vec<_> = fields.iter().map(|field| format!("{field} {key}\n")).collect();
        let file = folder.write("known_hosts", &lines.concat());
        prop_assert_eq!(found_by_us(&name, &file), found_by_keygen(&name, &file));
    }
}
