//! Host keys on file, as OpenSSH reads and writes them (sshd(8), the section on known hosts files).

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};
use crate::transport::ssh_config::matches_pattern;
use crate::transport::{HostKeyPolicy, Prompt, escape};

/// What is on file about one host, read once for each connection.
#[derive(Debug)]
pub(super) struct KnownHosts {
    /// The name that keys are filed under: `host`, or `[host]:port` where the port is not 22.
    name: String,
    keys: Vec<FiledKey>,
    /// Keys of the same host without a port: a match there counts (OpenSSH does the same), anything else doesn't.
    keys_without_port: Vec<FiledKey>,
    /// Where accepted keys are written; `None` without a home directory.
    file: Option<PathBuf>,
}

/// Files of known hosts.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// New keys go into this one; `None` without a home directory.
    own: Option<PathBuf>,
    others: Vec<PathBuf>,
}

impl Files {
    /// This file and no other.
    pub(super) fn only(file: &Path) -> Self {
        Self { own: Some(file.to_path_buf()), others: Vec::new() }
    }

    /// The user's files and the system's; `None` stands for the usual ones.
    pub(super) fn of(user: Option<Vec<PathBuf>>, system: Option<Vec<PathBuf>>) -> Self {
        let ssh = std::env::home_dir().map(|home| home.join(".ssh"));
        let usual = || ssh.iter().flat_map(|ssh| ["known_hosts", "known_hosts2"].map(|name| ssh.join(name))).collect();
        let mut user = user.unwrap_or_else(usual).into_iter();
        let own = user.next();
        let usual = || ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"].map(PathBuf::from).into();
        Self { own, others: user.chain(system.unwrap_or_else(usual)).collect() }
    }
}

/// What the files say about a key that a server showed.
#[derive(Debug, PartialEq, Eq)]
enum Verdict<'a> {
    /// It is on file.
    Match,
    /// Nothing is on file for this host.
    Unknown,
    /// Another key of the same type is on file.
    Changed(&'a FiledKey),
    /// Only keys of other types are on file: refused, else an attacker would only need to show another type.
    OtherType(&'a FiledKey),
    /// It is marked as revoked.
    Revoked(&'a FiledKey),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FiledKey {
    marker: Marker,
    blob: Vec<u8>,
    file: PathBuf,
    line: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    Plain,
    CertAuthority,
    Revoked,
}

impl KnownHosts {
    /// Reads what the files say about a host. Missing files are empty.
    pub(super) fn read(host: &str, port: u16, files: &Files) -> Result<Self> {
        let Files { own: file, others } = files.clone();
        let host = host.to_lowercase();
        let name = if port == 22 { host.clone() } else { format!("[{host}]:{port}") };
        let mut known = Self { name, keys: Vec::new(), keys_without_port: Vec::new(), file };
        for path in known.file.iter().cloned().chain(others) {
            let text = match std::fs::read(&path) {
                Ok(text) => text,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(Error::io("read the known host keys", e).at(path.display())),
            };
            known.keys.extend(keys_for(&known.name, &text, &path));
            if port != 22 {
                known.keys_without_port.extend(keys_for(&host, &text, &path));
            }
        }
        Ok(known)
    }

    /// Returns the types of the keys on file (`ssh-ed25519`…), to be asked for first in the key exchange: a server with
    /// several keys then shows the one that can be checked.
    pub(super) fn key_types(&self) -> Vec<&str> {
        let filed = |keys: &[FiledKey]| keys.iter().any(|key| key.marker == Marker::Plain);
        let keys = if filed(&self.keys) { &self.keys } else { &self.keys_without_port };
        keys.iter().filter(|key| key.marker == Marker::Plain).filter_map(|key| key_type(&key.blob)).collect()
    }

    /// Decides whether the server may be trusted; asks and writes down where the policy says so. May block.
    ///
    /// # Errors
    /// `HostKey` for a key that is unknown (and not accepted), changed, of another type, or revoked.
    pub(super) fn admit(&self, blob: &[u8], policy: HostKeyPolicy, prompt: &dyn Prompt) -> Result<()> {
        let shown = describe(blob);
        let refuse = |text: String| Error::new(ErrorKind::HostKey, text).at(&self.name);
        match self.verdict(blob) {
            Verdict::Match => Ok(()),
            Verdict::Revoked(filed) => {
                Err(refuse(format!("the host key is marked as revoked in {}: {shown}", filed.place())))
            }
            Verdict::Changed(filed) => Err(refuse(format!(
                "the host key has changed: the server shows {shown}, on file is {} ({})",
                describe(&filed.blob),
                filed.place()
            ))
            .with_hint(self.removal_hint(filed))),
            Verdict::OtherType(filed) => Err(refuse(format!(
                "the server shows a host key of another type: {shown}, on file is {} ({})",
                describe(&filed.blob),
                filed.place()
            ))
            .with_hint(self.removal_hint(filed))),
            Verdict::Unknown => self.admit_unknown(blob, &shown, policy, prompt),
        }
    }

    fn admit_unknown(&self, blob: &[u8], shown: &str, policy: HostKeyPolicy, prompt: &dyn Prompt) -> Result<()> {
        let accepted = match policy {
            HostKeyPolicy::AcceptNew => Some(true),
            HostKeyPolicy::Strict => None,
            HostKeyPolicy::Ask => prompt.confirm(&format!(
                "The authenticity of host '{}' can't be established.\n{} key fingerprint is {}.\n\
                 Are you sure you want to continue connecting",
                escape(self.name.as_bytes()),
                type_name(blob),
                fingerprint(blob)
            )),
        };
        match accepted {
            Some(true) => {
                if let Err(e) = self.append(blob) {
                    // The user said yes to this connection; only the next one will ask again.
                    prompt.notice(&format!("could not write the host key down: {}", e.chain()));
                }
                Ok(())
            }
            Some(false) => Err(Error::new(ErrorKind::HostKey, "the host key was not accepted").at(&self.name)),
            None => Err(Error::new(ErrorKind::HostKey, format!("the host key is not known: {shown}"))
                .at(&self.name)
                .with_hint(format!(
                    "compare the fingerprint, then connect once with --host-key accept-new, or file the key: {}",
                    self.keyscan()
                ))),
        }
    }

    fn verdict(&self, blob: &[u8]) -> Verdict<'_> {
        if let Some(revoked) = self
            .keys
            .iter()
            .chain(&self.keys_without_port)
            .find(|key| key.marker == Marker::Revoked && key.blob == blob)
        {
            return Verdict::Revoked(revoked);
        }
        let is_match = |key: &FiledKey| key.marker == Marker::Plain && key.blob == blob;
        if self.keys.iter().any(is_match) {
            return Verdict::Match;
        }
        let mut plain = self.keys.iter().filter(|key| key.marker == Marker::Plain).peekable();
        let Some(&first) = plain.peek() else {
            let elsewhere = self.keys_without_port.iter().any(is_match);
            return if elsewhere { Verdict::Match } else { Verdict::Unknown };
        };
        match plain.find(|key| key_type(&key.blob) == key_type(blob)) {
            Some(same_type) => Verdict::Changed(same_type),
            None => Verdict::OtherType(first),
        }
    }

    fn append(&self, blob: &[u8]) -> Result<()> {
        let Some(file) = &self.file else {
            return Err(Error::new(ErrorKind::NotFound, "there is no home directory for known_hosts"));
        };
        let Some(key_type) = key_type(blob) else {
            return Err(Error::new(ErrorKind::Protocol, "a host key without a type"));
        };
        let line = format!("{} {key_type} {}\n", self.name, STANDARD.encode(blob));
        append_line(file, &line).map_err(|e| Error::io("write the host key", e).at(file.display()))
    }

    fn removal_hint(&self, filed: &FiledKey) -> String {
        format!(
            "somebody may be listening in; if you know that the key was changed, remove the old one: \
             ssh-keygen -R '{}' -f {}",
            self.name,
            filed.file.display()
        )
    }

    fn keyscan(&self) -> String {
        let file = self.file.as_ref().map_or_else(|| "known_hosts".into(), |file| file.display().to_string());
        match self.name.strip_prefix('[').and_then(|name| name.split_once("]:")) {
            Some((host, port)) => format!("ssh-keyscan -p {port} {host} >> {file}"),
            None => format!("ssh-keyscan {} >> {file}", self.name),
        }
    }
}

impl FiledKey {
    fn place(&self) -> String {
        format!("{}:{}", self.file.display(), self.line)
    }
}

/// Returns `SHA256:…` as OpenSSH prints it.
pub(super) fn fingerprint(blob: &[u8]) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(blob)))
}

fn describe(blob: &[u8]) -> String {
    format!("{} {}", type_name(blob), fingerprint(blob))
}

/// Returns the type as OpenSSH prints it in front of fingerprints.
fn type_name(blob: &[u8]) -> String {
    match key_type(blob) {
        Some("ssh-ed25519") => "ED25519".into(),
        Some("ssh-rsa") => "RSA".into(),
        Some("ssh-dss") => "DSA".into(),
        Some(other) if other.starts_with("ecdsa-sha2-") => "ECDSA".into(),
        Some(other) => escape(other.as_bytes()),
        None => "unknown".into(),
    }
}

/// Returns the first string of a key blob (RFC 4253, section 6.6): its type.
fn key_type(blob: &[u8]) -> Option<&str> {
    let (length, rest) = blob.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    std::str::from_utf8(rest.get(..length)?).ok()
}

pub(super) fn keys_for(name: &str, text: &[u8], file: &Path) -> Vec<FiledKey> {
    text.split(|&b| b == b'\n')
        .enumerate()
        .filter_map(|(index, line)| {
            let (marker, hosts, blob) = parse_line(line)?;
            matches_host(name, hosts).then(|| FiledKey { marker, blob, file: file.to_path_buf(), line: index + 1 })
        })
        .collect()
}

/// Reads one line; `None` for comments, blank lines and whatever else OpenSSH skips.
fn parse_line(line: &[u8]) -> Option<(Marker, &str, Vec<u8>)> {
    // Only the comment behind the key may hold bytes that aren't text.
    let fields: Vec<&[u8]> = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty()).collect();
    let (marker, fields) = match fields.split_first()? {
        (&b"@cert-authority", rest) => (Marker::CertAuthority, rest),
        (&b"@revoked", rest) => (Marker::Revoked, rest),
        (first, _) if first.starts_with(b"@") || first.starts_with(b"#") => return None,
        _ => (Marker::Plain, fields.as_slice()),
    };
    let &[hosts, named_type, encoded, ..] = fields else { return None };
    let blob = STANDARD.decode(encoded).ok()?;
    (key_type(&blob)?.as_bytes() == named_type).then_some((marker, std::str::from_utf8(hosts).ok()?, blob))
}

/// Returns whether a line's first field names the host: a hashed name, or patterns with `*`, `?` and `!`.
fn matches_host(name: &str, hosts: &str) -> bool {
    if let Some(hashed) = hosts.strip_prefix("|1|") {
        return matches_hash(name, hashed).unwrap_or(false);
    }
    let mut matched = false;
    for pattern in hosts.split(',') {
        match pattern.strip_prefix('!') {
            Some(negated) if matches_pattern(name.as_bytes(), negated.to_lowercase().as_bytes()) => return false,
            Some(_) => {}
            None => matched |= matches_pattern(name.as_bytes(), pattern.to_lowercase().as_bytes()),
        }
    }
    matched
}

fn matches_hash(name: &str, hashed: &str) -> Option<bool> {
    let (salt, digest) = hashed.split_once('|')?;
    let (salt, digest) = (STANDARD.decode(salt).ok()?, STANDARD.decode(digest).ok()?);
    let mut mac = Hmac::<Sha1>::new_from_slice(&salt).ok()?;
    mac.update(name.as_bytes());
    Some(mac.verify_slice(&digest).is_ok())
}

fn append_line(path: &Path, line: &str) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let mut last = [b'\n'];
    if file.seek(SeekFrom::End(0))? > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    // One write: another program's line can't get between.
    let line = if last == *b"\n" { line.to_owned() } else { format!("\n{line}") };
    file.write_all(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::*;
    use crate::transport::{NoPrompt, Secret};

    fn blob(key_type: &str, body: u8) -> Vec<u8> {
        let mut blob = u32::try_from(key_type.len()).unwrap().to_be_bytes().to_vec();
        blob.extend(key_type.as_bytes());
        blob.extend([0, 0, 0, 1, body]);
        blob
    }

    fn line(hosts: &str, blob: &[u8]) -> String {
        format!("{hosts} {} {}", key_type(blob).unwrap(), STANDARD.encode(blob))
    }

    fn known(host: &str, port: u16, text: &str) -> KnownHosts {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("known_hosts");
        std::fs::write(&file, text).unwrap();
        KnownHosts::read(host, port, &Files::only(&file)).unwrap()
    }

    fn is_match(host: &str, port: u16, text: &str, blob: &[u8]) -> bool {
        known(host, port, text).verdict(blob) == Verdict::Match
    }

    #[test]
    fn finds_names_patterns_and_hashes() {
        let key = blob("ssh-ed25519", 1);
        for (hosts, host, port, expected) in [
            ("example.org", "example.org", 22, true),
            ("Example.ORG", "EXAMPLE.org", 22, true),
            ("a,example.org,b", "example.org", 22, true),
            ("*.example.org", "www.example.org", 22, true),
            ("*.example.org,!www.example.org", "www.example.org", 22, false),
            ("!www.example.org,*.example.org", "ftp.example.org", 22, true),
            ("10.0.0.?", "10.0.0.7", 22, true),
            ("10.0.0.?", "10.0.0.77", 22, false),
            ("[example.org]:2222", "example.org", 2222, true),
            ("[example.org]:2222", "example.org", 22, false),
            ("[*]:2222", "example.org", 2222, true),
            // A key filed without a port is good for any port of the host, as OpenSSH has it.
            ("example.org", "example.org", 2222, true),
            // The hash of 192.168.1.61.
            ("|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg=", "192.168.1.61", 22, true),
            ("|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg=", "192.168.1.62", 22, false),
        ] {
            assert_eq!(is_match(host, port, &line(hosts, &key), &key), expected, "{hosts} for {host}:{port}");
        }
    }

    #[test]
    fn tells_changed_other_type_and_revoked_apart() {
        let (old, new, rsa) = (blob("ssh-ed25519", 1), blob("ssh-ed25519", 2), blob("ssh-rsa", 3));
        let text = format!("# comment\n\n{}\n{} me@home\n", line("h", &old), line("h", &rsa));
        let hosts = known("h", 22, &text);
        assert!(matches!(hosts.verdict(&new), Verdict::Changed(filed) if filed.line == 3));
        assert_eq!(hosts.verdict(&rsa), Verdict::Match);
        assert!(matches!(hosts.verdict(&blob("ecdsa-sha2-nistp256", 1)), Verdict::OtherType(_)));
        assert_eq!(hosts.key_types(), ["ssh-ed25519", "ssh-rsa"]);

        let revoked = known("h", 22, &format!("{}\n@revoked {}", line("h", &old), line("*", &old)));
        assert!(matches!(revoked.verdict(&old), Verdict::Revoked(filed) if filed.line == 2));
    }

    #[test]
    fn a_certificate_authority_is_no_host_key() {
        let key = blob("ssh-ed25519", 1);
        let hosts = known("h", 22, &format!("@cert-authority {}", line("*", &key)));
        assert_eq!(hosts.verdict(&key), Verdict::Unknown);
        assert!(hosts.key_types().is_empty());
    }

    #[test]
    fn several_keys_of_one_type_all_count() {
        let (one, two) = (blob("ssh-ed25519", 1), blob("ssh-ed25519", 2));
        let text = format!("{}\n{}", line("h", &one), line("h", &two));
        assert!(is_match("h", 22, &text, &one) && is_match("h", 22, &text, &two));
    }

    #[test]
    fn bad_lines_are_skipped() {
        let key = blob("ssh-ed25519", 1);
        let encoded = STANDARD.encode(&key);
        for bad in [
            format!("h ssh-rsa {encoded}"),
            "h ssh-ed25519 !!!".into(),
            "h ssh-ed25519".into(),
            format!("@unknown h ssh-ed25519 {encoded}"),
            format!("#h ssh-ed25519 {encoded}"),
            "h 1024 35 1234567".into(),
            format!("|1|x|y ssh-ed25519 {encoded}"),
        ] {
            assert_eq!(known("h", 22, &bad).verdict(&key), Verdict::Unknown, "{bad}");
        }
        assert!(is_match("h", 22, &format!("junk\n  {}\r\n", line("h", &key)), &key));
    }

    #[test]
    fn unknown_keys_follow_the_policy() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ssh/known_hosts");
        let key = blob("ssh-ed25519", 1);
        let admit = |policy| KnownHosts::read("h", 2222, &Files::only(&file)).unwrap().admit(&key, policy, &NoPrompt);

        for policy in [HostKeyPolicy::Strict, HostKeyPolicy::Ask] {
            let error = admit(policy).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::HostKey);
            assert!(error.hint().unwrap().contains("--host-key accept-new"), "{error:?}");
            assert!(error.hint().unwrap().contains("ssh-keyscan -p 2222 h"), "{error:?}");
        }
        assert!(!file.exists());

        admit(HostKeyPolicy::AcceptNew).unwrap();
        admit(HostKeyPolicy::Strict).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{}\n", line("[h]:2222", &key)));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(file.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_file_without_a_last_line_break_gets_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("known_hosts");
        std::fs::write(&file, "# no line break").unwrap();
        let key = blob("ssh-ed25519", 1);
        let hosts = KnownHosts::read("h", 22, &Files::only(&file)).unwrap();
        hosts.admit(&key, HostKeyPolicy::AcceptNew, &NoPrompt).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("# no line break\n{}\n", line("h", &key)));
    }

    #[derive(Debug, Default)]
    struct Answering(bool, Mutex<String>);

    impl Prompt for Answering {
        fn secret(&self, _: &str) -> Option<Secret> {
            None
        }
        fn line(&self, _: &str) -> Option<String> {
            None
        }
        fn confirm(&self, question: &str) -> Option<bool> {
            *self.1.lock().unwrap() = question.into();
            Some(self.0)
        }
        fn notice(&self, _: &str) {}
    }

    #[test]
    fn asking_shows_the_fingerprint_and_takes_no_for_an_answer() {
        let hosts = known("h", 22, "");
        let key = blob("ssh-ed25519", 1);
        let no = Answering::default();
        assert_eq!(hosts.admit(&key, HostKeyPolicy::Ask, &no).unwrap_err().kind(), ErrorKind::HostKey);
        let question = no.1.into_inner().unwrap();
        assert!(question.contains("ED25519 key fingerprint is SHA256:"), "{question}");
        assert_eq!(hosts.verdict(&key), Verdict::Unknown);
        hosts.admit(&key, HostKeyPolicy::Ask, &Answering(true, Mutex::default())).unwrap();
    }

    #[test]
    fn a_changed_key_is_refused_whatever_the_policy_with_both_fingerprints() {
        let (old, new) = (blob("ssh-ed25519", 1), blob("ssh-ed25519", 2));
        let hosts = known("h", 22, &line("h", &old));
        for policy in [HostKeyPolicy::AcceptNew, HostKeyPolicy::Ask, HostKeyPolicy::Strict] {
            let error = hosts.admit(&new, policy, &Answering(true, Mutex::default())).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(&fingerprint(&old)) && text.contains(&fingerprint(&new)), "{text}");
            assert!(text.contains("known_hosts:1"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(text: Vec<u8>, name in "[a-z*?!.]{0,8}") {
            let _ = keys_for(&name, &text, Path::new("f"));
        }

        #[test]
        fn any_line_is_read(hosts in "[|!*?,a-z0-9\\[\\]:=]{0,30}", rest in ".{0,40}", blob: Vec<u8>) {
            let _ = keys_for("host", format!("{hosts} {rest}").as_bytes(), Path::new("f"));
            let _ = keys_for("host", format!("{hosts} ssh-rsa {}", STANDARD.encode(blob)).as_bytes(), Path::new("f"));
        }

        #[test]
        fn a_name_matches_itself_and_stars(name in "[a-z0-9.-]{1,20}", at in 0usize..20) {
            let at = at.min(name.len());
            prop_assert!(matches_pattern(name.as_bytes(), name.as_bytes()));
            let pattern = format!("{}*{}", &name[..at], &name[at..]);
            prop_assert!(matches_pattern(name.as_bytes(), pattern.as_bytes()));
            let longer = format!("{name}?");
            prop_assert!(!matches_pattern(name.as_bytes(), longer.as_bytes()));
        }
    }
}
