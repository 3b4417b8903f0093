//! What a server says it can do: `FEAT` (RFC 2389), `SITE HELP`, `SYST`.

use super::reply::Reply;
use crate::transport::Algorithm;

/// Facts of MLST and MLSD that are used, and how servers spell them in `OPTS MLST`.
const WANTED_FACTS: [&str; 4] = ["type", "size", "modify", "unix.mode"];
/// Commands that give a digest of a whole file, strongest first.
const DIGEST_COMMANDS: [(&str, Algorithm); 8] = [
    ("XSHA512", Algorithm::Sha512),
    ("XSHA256", Algorithm::Sha256),
    ("XSHA1", Algorithm::Sha1),
    ("XSHA", Algorithm::Sha1),
    ("XMD5", Algorithm::Md5),
    ("MD5", Algorithm::Md5),
    ("XCRC", Algorithm::Crc32),
    ("XCRC32", Algorithm::Crc32),
];

/// The commands that a server offers beyond RFC 959.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Features {
    /// Label and parameters, upper-case label.
    lines: Vec<(String, String)>,
    /// What `SITE HELP` lists, upper-case.
    site: Vec<String>,
}

/// How a server changes modification times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeCommand {
    /// `MFMT time path` (draft-somers-ftp-mfxx).
    Mfmt,
    /// `MFF modify=time; path` (the same draft).
    Mff,
    /// `SITE UTIME time path`.
    SiteUtime,
    /// `MDTM time path`: vsftpd and others, told nowhere, so to be tried.
    Mdtm,
}

/// How a server changes permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ModeCommand {
    /// `SITE CHMOD mode path`.
    SiteChmod,
    /// `MFF UNIX.mode=mode; path`.
    Mff,
}

/// How a server gives a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DigestCommand {
    /// `OPTS HASH name`, then `HASH path` (draft-bryan-ftp-hash), with the server's name of the algorithm.
    Hash(String),
    /// One of the commands that are named after the algorithm.
    Named(&'static str),
}

impl Features {
    /// Reads the replies; those that refuse mean "nothing".
    pub(super) fn new(feat: &Reply, site_help: &Reply) -> Self {
        let mut features = Self::default();
        if feat.is_ok() {
            features.lines = feat.inner_lines().map(feature).filter(|(label, _)| !label.is_empty()).collect();
        }
        if site_help.is_ok() {
            // One a line, or many in a row (vsftpd: "214 CHMOD UMASK HELP").
            let words = site_help.words().to_ascii_uppercase();
            features.site = words.split(|c: char| !c.is_ascii_alphanumeric()).map(str::to_owned).collect();
        }
        features
    }

    /// Returns whether a label is listed.
    pub(super) fn has(&self, label: &str) -> bool {
        self.lines.iter().any(|(known, _)| known == label)
    }

    /// Returns whether files can be read from an offset.
    pub(super) fn restarts(&self) -> bool {
        self.lines.iter().any(|(label, rest)| label == "REST" && rest.to_ascii_uppercase().contains("STREAM"))
    }

    /// Returns whether `MLST` and `MLSD` exist.
    pub(super) fn machine_lists(&self) -> bool {
        self.has("MLST") || self.has("MLSD")
    }

    /// Returns the `OPTS MLST` command that turns on the facts we need; `None` where they are on.
    pub(super) fn facts_command(&self) -> Option<String> {
        let (_, offered) = self.lines.iter().find(|(label, _)| label == "MLST")?;
        let facts = || offered.split(';').map(str::trim).filter(|fact| !fact.is_empty());
        let wanted =
            |fact: &str| WANTED_FACTS.iter().any(|wanted| fact.trim_end_matches('*').eq_ignore_ascii_case(wanted));
        if !facts().any(|fact| wanted(fact) && !fact.ends_with('*')) {
            return None;
        }
        let names: Vec<&str> = facts().filter(|fact| wanted(fact)).map(|fact| fact.trim_end_matches('*')).collect();
        Some(format!("OPTS MLST {};", names.join(";")))
    }

    /// Returns how modification times can be set, if at all.
    pub(super) fn time_command(&self) -> Option<TimeCommand> {
        match self {
            _ if self.has("MFMT") => Some(TimeCommand::Mfmt),
            _ if self.changes_fact("modify") => Some(TimeCommand::Mff),
            _ if self.has_site("UTIME") => Some(TimeCommand::SiteUtime),
            _ if self.has("MDTM") => Some(TimeCommand::Mdtm),
            _ => None,
        }
    }

    /// Returns how permission bits can be set, if at all.
    pub(super) fn mode_command(&self) -> Option<ModeCommand> {
        match self {
            _ if self.has_site("CHMOD") => Some(ModeCommand::SiteChmod),
            _ if self.changes_fact("unix.mode") => Some(ModeCommand::Mff),
            _ => None,
        }
    }

    /// Returns whether the server takes 0xFF doubled as Telnet has it: of those known only ProFTPD, by its greeting or,
    /// where that is hidden, by what only it offers together.
    pub(super) fn takes_telnet(&self, greeting: &Reply) -> bool {
        greeting.words().contains("ProFTPD") || (self.has("MFF") && self.has("CSID"))
    }

    /// Returns whether the server keeps commands that come during a transfer for afterwards: of those known only vsftpd,
    /// by its greeting or, where that is another, by what its SITE HELP says. Others act on them at once, or take them
    /// for a wish to abort.
    pub(super) fn keeps_order(&self, greeting: &Reply) -> bool {
        greeting.words().contains("(vsFTPd ") || self.site == ["CHMOD", "UMASK", "HELP"]
    }

    /// Returns the digests that the server computes, strongest first, and how to ask.
    pub(super) fn digests(&self) -> Vec<(Algorithm, DigestCommand)> {
        let hash = self.lines.iter().find(|(label, _)| label == "HASH").map_or("", |(_, names)| names);
        let by_hash = hash.split(';').filter_map(|name| {
            let name = name.trim().trim_end_matches('*');
            Some((algorithm(name)?, DigestCommand::Hash(name.to_owned())))
        });
        let by_name = DIGEST_COMMANDS
            .into_iter()
            .filter(|(command, _)| self.has(command))
            .map(|(command, algorithm)| (algorithm, DigestCommand::Named(command)));
        // HASH first: it tells in its reply what it is a digest of.
        let mut digests: Vec<_> = by_hash.chain(by_name).collect();
        digests.sort_by_key(|(algorithm, _)| *algorithm);
        digests.dedup_by_key(|(algorithm, _)| *algorithm);
        digests
    }

    fn has_site(&self, command: &str) -> bool {
        self.site.iter().any(|known| known == command)
            || self.lines.iter().any(|(label, rest)| {
                label == "SITE" && rest.to_ascii_uppercase().split([' ', ';', ',']).any(|known| known == command)
            })
    }

    fn changes_fact(&self, fact: &str) -> bool {
        self.lines.iter().any(|(label, facts)| {
            label == "MFF" && facts.split(';').any(|known| known.trim().eq_ignore_ascii_case(fact))
        })
    }
}

fn feature(line: &[u8]) -> (String, String) {
    let text = String::from_utf8_lossy(line);
    // Some put the code in front of each line.
    let text = text.strip_prefix("211-").unwrap_or(&text).trim();
    let (label, rest) = text.split_once(' ').unwrap_or((text, ""));
    (label.to_ascii_uppercase(), rest.trim().to_owned())
}

fn algorithm(name: &str) -> Option<Algorithm> {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    Some(match plain.to_ascii_uppercase().as_str() {
        "SHA512" => Algorithm::Sha512,
        "SHA256" => Algorithm::Sha256,
        "SHA1" => Algorithm::Sha1,
        "MD5" => Algorithm::Md5,
        "CRC32" => Algorithm::Crc32,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(feat: &str, site: &str) -> Features {
        let reply = |text: &str| Reply::parse(text.as_bytes()).unwrap();
        Features::new(&reply(feat), &reply(site))
    }

    #[test]
    fn proftpd() {
        let f = features(
            "211-Features:\r\n CSID\r\n HASH CRC32;MD5;SHA-1*;SHA-256;SHA-512;\r\n MFF modify;UNIX.group;UNIX.mode;\r\n MFMT\r\n \
             MLST modify*;perm*;size*;type*;UNIX.mode*;\r\n REST STREAM\r\n SITE SYMLINK\r\n XSHA256\r\n211 End\r\n",
            "214-The following SITE commands are recognized\r\n SYMLINK <sp> source\r\n CHMOD\r\n214 Direct\r\n",
        );
        assert!(f.machine_lists() && f.restarts());
        assert_eq!(f.facts_command(), None);
        assert_eq!((f.time_command(), f.mode_command()), (Some(TimeCommand::Mfmt), Some(ModeCommand::SiteChmod)));
        let digests = f.digests();
        assert_eq!(digests[0], (Algorithm::Sha512, DigestCommand::Hash("SHA-512".into())));
        assert_eq!(digests.len(), 5);
    }

    #[test]
    fn vsftpd() {
        let f = features(
            "211-Features:\r\n EPSV\r\n MDTM\r\n REST STREAM\r\n SIZE\r\n211 End\r\n",
            "214 CHMOD UMASK HELP\r\n",
        );
        assert!(!f.machine_lists() && f.restarts());
        assert_eq!((f.time_command(), f.mode_command()), (Some(TimeCommand::Mdtm), Some(ModeCommand::SiteChmod)));
    }

    #[test]
    fn facts_that_are_off_are_turned_on() {
        let f = features(
            "211-x\r\n MLST type*;perm*;size*;modify*;unique*;unix.mode;unix.uid;\r\n211 End\r\n",
            "500 no\r\n",
        );
        assert_eq!(f.facts_command().as_deref(), Some("OPTS MLST type;size;modify;unix.mode;"));
        assert_eq!(f.mode_command(), None);
    }

    #[test]
    fn a_refusal_offers_nothing() {
        assert_eq!(features("500 what?\r\n", "530 log in\r\n"), Features::default());
    }
}
