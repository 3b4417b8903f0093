//! Listings: MLSD and MLST facts (RFC 3659), LIST as `ls -l` writes it, NLST.

use std::io::{self, Write};
use std::time::SystemTime;

use super::time::format_time;
use crate::serve::long_name::long_name;
use crate::serve::root::{Access, Item, Listing, MetadataExt, kind_of};
use crate::transport::FileKind;

/// The facts that can be had, in the order they are written.
const FACTS: [&str; 6] = ["type", "size", "modify", "perm", "unique", "unix.mode"];

/// Which facts a client wants: `OPTS MLST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts([bool; FACTS.len()]);

impl Facts {
    pub(super) const ALL: Self = Self([true; FACTS.len()]);

    /// Reads the argument of `OPTS MLST`; facts that there aren't are left out.
    pub(super) fn parse(wanted: &[u8]) -> Self {
        let mut facts = [false; FACTS.len()];
        for name in wanted.split(|&b| b == b';') {
            if let Some(index) = FACTS.iter().position(|fact| name.eq_ignore_ascii_case(fact.as_bytes())) {
                facts[index] = true;
            }
        }
        Self(facts)
    }

    /// Returns the names of those wanted, each with a semicolon.
    pub(super) fn names(self) -> String {
        FACTS.iter().zip(self.0).filter(|(_, on)| *on).flat_map(|(name, _)| [*name, ";"]).collect()
    }

    /// Returns what FEAT says: all names, those wanted with an asterisk.
    pub(super) fn feature(self) -> String {
        FACTS.iter().zip(self.0).flat_map(|(name, on)| [*name, if on { "*;" } else { ";" }]).collect()
    }
}

/// Which of the three is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// MLSD.
    Facts(Facts, Access),
    /// LIST.
    Long,
    /// NLST.
    Names,
}

/// Writes the entries of a directory and returns how many; those whose names hold line ends can't be told in FTP and are left out.
pub(super) fn write_directory(
    listing: &mut Listing,
    form: Form,
    prefix: &[u8],
    out: &mut impl Write,
) -> io::Result<u64> {
    let now = SystemTime::now();
    let mut count = 0;
    if let Form::Facts(facts, access) = form {
        let line = fact_line(facts, access, &Item { name: b".".to_vec(), metadata: listing.metadata()? }, None, "cdir");
        out.write_all(&line)?;
        out.write_all(b"\r\n")?;
    }
    while let Some(item) = listing.next()? {
        if !can_be_told(&item.name) {
            tracing::warn!(name = crate::transport::escape(&item.name), "a name that FTP can't carry was left out");
            continue;
        }
        let target = match kind_of(&item.metadata) {
            FileKind::Symlink if form != Form::Names => listing.read_link(&item.name),
            _ => None,
        };
        out.write_all(&entry_line(form, prefix, &item, target.as_deref(), now))?;
        out.write_all(b"\r\n")?;
        count += 1;
    }
    Ok(count)
}

/// Returns the line of one entry, without its end.
pub(super) fn entry_line(form: Form, prefix: &[u8], item: &Item, target: Option<&[u8]>, now: SystemTime) -> Vec<u8> {
    match form {
        Form::Facts(facts, access) => {
            let kind = match kind_of(&item.metadata) {
                FileKind::File => "file",
                FileKind::Directory => "dir",
                FileKind::Symlink => "OS.unix=slink",
                FileKind::Other => "OS.unix=other",
            };
            fact_line(facts, access, item, target, kind)
        }
        Form::Long => long_line(item, target, now),
        Form::Names => [prefix, &item.name].concat(),
    }
}

/// Returns whether a name can stand in a line of FTP.
pub(super) fn can_be_told(name: &[u8]) -> bool {
    !name.contains(&b'\n') && !name.contains(&b'\r')
}

fn fact_line(facts: Facts, access: Access, item: &Item, target: Option<&[u8]>, kind: &str) -> Vec<u8> {
    let metadata = &item.metadata;
    let mut line = Vec::with_capacity(96 + item.name.len());
    for (name, _) in FACTS.iter().zip(facts.0).filter(|(_, on)| *on) {
        let value = match *name {
            "type" => kind.to_owned(),
            "size" if kind_of(metadata) == FileKind::File => metadata.len().to_string(),
            "modify" => format_time(metadata.mtime()),
            "perm" => permissions(kind_of(metadata), access).to_owned(),
            "unique" => format!("{:x}g{:x}", metadata.dev(), metadata.ino()),
            "unix.mode" => format!("{:04o}", metadata.mode() & 0o7777),
            _ => continue,
        };
        line.extend(format!("{name}={value}").bytes());
        // A semicolon in the target would end the fact.
        if let Some(target) = target.filter(|t| *name == "type" && can_be_told(t) && !t.contains(&b';')) {
            line.push(b':');
            line.extend(target);
        }
        line.push(b';');
    }
    line.push(b' ');
    line.extend(&item.name);
    line
}

/// RFC 3659, section 7.5.5.
fn permissions(kind: FileKind, access: Access) -> &'static str {
    match (kind, access) {
        (FileKind::Directory, Access::ReadWrite) => "cdeflmp",
        (FileKind::Directory, Access::ReadOnly) => "el",
        (FileKind::File, Access::ReadWrite) => "adfrw",
        (FileKind::File, Access::ReadOnly) => "r",
        (_, Access::ReadWrite) => "df",
        (_, Access::ReadOnly) => "",
    }
}

fn long_line(item: &Item, target: Option<&[u8]>, now: SystemTime) -> Vec<u8> {
    let mut line = long_name(&item.name, &item.metadata, now);
    if let Some(target) = target.filter(|t| can_be_told(t)) {
        line.extend(b" -> ");
        line.extend(target);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::limit::Limit;
    use crate::serve::root::Root;
    use crate::transport::RemotePath;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn listed(form: Form) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a b"), "12345").unwrap();
        std::fs::set_permissions(dir.path().join("a b"), PermissionsExt::from_mode(0o640)).unwrap();
        std::fs::write(dir.path().join("new\nline"), "").unwrap();
        symlink("a b", dir.path().join("link")).unwrap();
        let root = Root::open(dir.path(), Access::ReadWrite, Limit::default()).unwrap();
        root.set_times(&RemotePath::new("/a b").unwrap(), None, Some(crate::serve::root::from_unix(0))).unwrap();
        let mut out = Vec::new();
        write_directory(&mut root.list(&RemotePath::root()).unwrap(), form, b"d/", &mut out).unwrap();
        let mut lines: Vec<_> = String::from_utf8(out).unwrap().split_terminator("\r\n").map(String::from).collect();
        lines.sort();
        lines
    }

    #[test]
    fn facts_are_those_asked_for() {
        let facts = Facts::parse(b"Type;size;modify;UNIX.mode;nonsense;");
        assert_eq!(facts.names(), "type;size;modify;unix.mode;");
        assert_eq!(facts.feature(), "type*;size*;modify*;perm;unique;unix.mode*;");
        let lines = listed(Form::Facts(facts, Access::ReadWrite));
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].starts_with("type=OS.unix=slink:a b;modify="), "{lines:?}");
        assert!(lines[1].starts_with("type=cdir;modify="), "{lines:?}");
        assert_eq!(lines[2], "type=file;size=5;modify=19700101000000;unix.mode=0640; a b");
    }

    #[test]
    fn long_and_short_lists() {
        let lines = listed(Form::Long);
        assert!(lines[0].starts_with("-rw-r-----   1 ") && lines[0].ends_with("5 Jan  1  1970 a b"), "{lines:?}");
        assert!(lines[1].starts_with('l') && lines[1].ends_with(" link -> a b"), "{lines:?}");
        assert_eq!(listed(Form::Names), ["d/a b", "d/link"]);
    }
}
