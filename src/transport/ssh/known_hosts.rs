//! Host keys on file, as OpenSSH reads and writes them (sshd(8), the section on known hosts files).

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::filed_key::{FiledKey, Marker, describe, fingerprint, hash_name, key_type, keys_for, new_line, type_name};
use super::host_certificate::{HostCertificate, Shown};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{HostKeyPolicy, Prompt, escape};

/// What is on file about one host, read once for each connection.
#[derive(Debug)]
pub(super) struct KnownHosts {
    /// In lower case; certificates name it.
    host: String,
    /// The name that keys are filed under: `host`, or `[host]:port` where the port is not 22.
    name: String,
    keys: Vec<FiledKey>,
    /// Keys of the same host without a port: a match there counts (OpenSSH does the same), anything else doesn't.
    keys_without_port: Vec<FiledKey>,
    files: Files,
}

/// Files of known hosts.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// New keys go into this one; `None` where there is none, or no home directory.
    own: Option<PathBuf>,
    others: Vec<PathBuf>,
    names: Names,
}

/// How new keys are filed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    Readable,
    /// As `HashKnownHosts` wants it: who reads the file learns no names.
    Hashed,
}

impl Files {
    /// This file and no other.
    pub(super) fn only(file: &Path, names: Names) -> Self {
        Self { own: Some(file.to_path_buf()), others: Vec::new(), names }
    }

    /// The user's files and the system's; `None` stands for the usual ones.
    pub(super) fn of(user: Option<Vec<PathBuf>>, system: Option<Vec<PathBuf>>, names: Names) -> Self {
        let ssh = std::env::home_dir().map(|home| home.join(".ssh"));
        let usual = || ssh.iter().flat_map(|ssh| ["known_hosts", "known_hosts2"].map(|name| ssh.join(name))).collect();
        let mut user = user.unwrap_or_else(usual).into_iter();
        let own = user.next();
        let usual = || ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"].map(PathBuf::from).into();
        Self { own, others: user.chain(system.unwrap_or_else(usual)).collect(), names }
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
}

impl KnownHosts {
    /// Reads what the files say about a host. Missing files are empty.
    pub(super) fn read(host: &str, port: u16, files: &Files) -> Result<Self> {
        let host = host.to_lowercase();
        let name = if port == 22 { host.clone() } else { format!("[{host}]:{port}") };
        let (mut keys, mut keys_without_port) = (Vec::new(), Vec::new());
        for path in files.own.iter().chain(&files.others) {
            let text = match std::fs::read(path) {
                Ok(text) => text,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(Error::io("read the known host keys", e).at(path.display())),
            };
            keys.extend(keys_for(&name, &text, path));
            if port != 22 {
                keys_without_port.extend(keys_for(&host, &text, path));
            }
        }
        Ok(Self { host, name, keys, keys_without_port, files: files.clone() })
    }

    /// Returns the types of the keys on file (`ssh-ed25519`…), to be asked for first in the key exchange: a server with
    /// several keys then shows the one that can be checked.
    pub(super) fn key_types(&self) -> Vec<&str> {
        let filed = |keys: &[FiledKey]| keys.iter().any(|key| key.marker == Marker::Plain);
        let keys = if filed(&self.keys) { &self.keys } else { &self.keys_without_port };
        keys.iter().filter(|key| key.marker == Marker::Plain).filter_map(|key| key_type(&key.blob)).collect()
    }

    /// Returns whether an authority is on file for the host, so that its certificate is worth asking for.
    pub(super) fn has_authority(&self) -> bool {
        self.all().any(|key| key.marker == Marker::CertAuthority)
    }

    /// Decides whether the server may be trusted; asks and writes down where the policy says so. May block.
    ///
    /// # Errors
    /// `HostKey` for a key that is unknown (and not accepted), changed, of another type, or revoked, and for a
    /// certificate that is no good.
    pub(super) fn admit(&self, blob: &[u8], policy: HostKeyPolicy, prompt: &dyn Prompt) -> Result<()> {
        let shown = Shown::read(blob).map_err(|e| e.at(escape(self.name.as_bytes())))?;
        self.check_revoked(&shown)?;
        let authority = shown.certificate.as_ref().and_then(|it| Some((it, self.authority_of(it)?)));
        let flaw = authority.map(|(certificate, _)| certificate.flaw(&self.host));
        match (self.verdict(&shown.key), authority, flaw) {
            (_, _, Some(None)) | (Verdict::Match, ..) => Ok(()),
            // Like a changed key, where ssh would ask: it is not as if nothing were known.
            (_, Some((certificate, filed)), Some(Some(flaw))) => Err(self.refuse(format!(
                "the host certificate is not valid: {flaw}; it is signed by {} ({})",
                describe(&certificate.authority),
                filed.place()
            ))),
            (Verdict::Changed(filed), ..) => Err(self.refuse_other("the host key has changed", &shown, filed)),
            (Verdict::OtherType(filed), ..) => {
                Err(self.refuse_other("the server shows a host key of another type", &shown, filed))
            }
            (Verdict::Unknown, ..) => self.admit_unknown(&shown.key, policy, prompt),
        }
    }

    fn check_revoked(&self, shown: &Shown) -> Result<()> {
        let authority = shown.certificate.as_ref().map(|certificate| &certificate.authority);
        for (what, blob) in [("host key", Some(&shown.key)), ("authority of the host certificate", authority)] {
            let is_revoked = |key: &&FiledKey| key.marker == Marker::Revoked && Some(&key.blob) == blob;
            if let Some(filed) = self.all().find(is_revoked) {
                let text = format!("the {what} is marked as revoked in {}: {}", filed.place(), describe(&filed.blob));
                return Err(self.refuse(text));
            }
        }
        Ok(())
    }

    fn authority_of(&self, certificate: &HostCertificate) -> Option<&FiledKey> {
        self.all().find(|key| key.marker == Marker::CertAuthority && key.blob == certificate.authority)
    }

    fn refuse(&self, text: String) -> Error {
        Error::new(ErrorKind::HostKey, text).at(escape(self.name.as_bytes()))
    }

    fn refuse_other(&self, what: &str, shown: &Shown, filed: &FiledKey) -> Error {
        let (shown, on_file) = (describe(&shown.key), describe(&filed.blob));
        self.refuse(format!("{what}: the server shows {shown}, on file is {on_file} ({})", filed.place())).with_hint(
            format!(
                "somebody may be listening in; if you know that the key was changed, remove the old one: {}",
                filed.removal(&self.name)
            ),
        )
    }

    fn admit_unknown(&self, blob: &[u8], policy: HostKeyPolicy, prompt: &dyn Prompt) -> Result<()> {
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
            Some(true) => match self.file(blob) {
                Err(e) if e.kind() == ErrorKind::HostKey => Err(e),
                Err(e) => {
                    // The user said yes to this connection; only the next one will ask again.
                    prompt.notice(&format!("could not write the host key down: {}", e.chain()));
                    Ok(())
                }
                Ok(()) => Ok(()),
            },
            Some(false) => Err(self.refuse("the host key was not accepted".into())),
            None => Err(self.refuse(format!("the host key is not known: {}", describe(blob))).with_hint(format!(
                "compare the fingerprint, then connect once with --host-key accept-new, or file the key: {}",
                self.keyscan()
            ))),
        }
    }

    fn verdict(&self, blob: &[u8]) -> Verdict<'_> {
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

    fn all(&self) -> impl Iterator<Item = &FiledKey> {
        self.keys.iter().chain(&self.keys_without_port)
    }

    /// Writes a key down that was accepted as new.
    ///
    /// # Errors
    /// `HostKey` when another process filed another key meanwhile; those of the disk.
    fn file(&self, blob: &[u8]) -> Result<()> {
        let Some(path) = &self.files.own else {
            return Err(Error::new(
                ErrorKind::NotFound,
                "no file of known hosts is named, or there is no home directory",
            ));
        };
        let at_file = |e: io::Error| Error::io("write the host key", e).at(path.display());
        let file = open_locked(path).map_err(at_file)?;
        match self.read_again(path)?.verdict(blob) {
            Verdict::Match => return Ok(()),
            Verdict::Unknown => {}
            Verdict::Changed(other) | Verdict::OtherType(other) => {
                let shown = Shown { key: blob.to_vec(), certificate: None };
                return Err(self.refuse_other("another host key was accepted just now", &shown, other));
            }
        }
        let hosts = match self.files.names {
            Names::Readable => self.name.clone(),
            Names::Hashed => hash_name(&self.name)?,
        };
        append_line(file, &new_line(&hosts, blob)?).map_err(at_file)
    }

    /// Reads what another process may have filed since.
    fn read_again(&self, path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(|e| Error::io("read the known host keys", e).at(path.display()))?;
        let (host, name) = (self.host.clone(), self.name.clone());
        Ok(Self {
            keys: keys_for(&name, &text, path),
            keys_without_port: Vec::new(),
            host,
            name,
            files: self.files.clone(),
        })
    }

    fn keyscan(&self) -> String {
        let file = self.files.own.as_ref().map_or_else(|| "known_hosts".into(), |file| file.display().to_string());
        let name = escape(self.name.as_bytes());
        match name.strip_prefix('[').and_then(|name| name.split_once("]:")) {
            Some((host, port)) => format!("ssh-keyscan -p {port} {host} >> {file}"),
            None => format!("ssh-keyscan {name} >> {file}"),
        }
    }
}

/// Opens the file, makes it where there is none, and keeps other haul processes from writing until it is dropped.
fn open_locked(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    match file.lock() {
        // Some file systems of the network have no locks; then two at once may file the same key twice.
        Err(e) if e.kind() != io::ErrorKind::Unsupported => Err(e),
        _ => Ok(file),
    }
}

fn append_line(mut file: File, line: &str) -> io::Result<()> {
    let end = file.seek(SeekFrom::End(0))?;
    let mut last = [b'\n'];
    if end > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    // One write: another program's line can't get between.
    let line = if last == *b"\n" { line.to_owned() } else { format!("\n{line}") };
    let written = file.write(line.as_bytes())?;
    if written == line.len() {
        return Ok(());
    }
    // The disk is full: half a line would spoil the next one.
    if file.metadata()?.len() == end + written as u64 {
        file.set_len(end)?;
    }
    Err(io::ErrorKind::StorageFull.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Mutex;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

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
        KnownHosts::read(host, port, &Files::only(&file, Names::Readable)).unwrap()
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
        assert!(matches!(hosts.verdict(&new), Verdict::Changed(filed) if filed.place().ends_with(":3")));
        assert_eq!(hosts.verdict(&rsa), Verdict::Match);
        assert!(matches!(hosts.verdict(&blob("ecdsa-sha2-nistp256", 1)), Verdict::OtherType(_)));
        assert_eq!(hosts.key_types(), ["ssh-ed25519", "ssh-rsa"]);

        let revoked = known("h", 22, &format!("{}\n@revoked {}", line("h", &old), line("*", &old)));
        let error = revoked.admit(&old, HostKeyPolicy::AcceptNew, &NoPrompt).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HostKey);
        assert!(error.message().contains("known_hosts:2"), "{error}");
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
        let admit = |policy| {
            KnownHosts::read("h", 2222, &Files::only(&file, Names::Readable)).unwrap().admit(&key, policy, &NoPrompt)
        };

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
        let hosts = KnownHosts::read("h", 22, &Files::only(&file, Names::Readable)).unwrap();
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
}
