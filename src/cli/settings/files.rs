//! Where the files of settings lie, and whether they can be trusted.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use haul::transport::escape;
use haul::{Error, ErrorKind};
use zeroize::Zeroizing;

/// The longest file that is read.
const LONGEST: u64 = 4 << 20;

/// Which file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Which {
    /// The one of the usual place, if there is one.
    Usual(Option<PathBuf>),
    /// This one, which must be there.
    Named(PathBuf),
    /// None.
    Nothing,
}

impl Which {
    /// Reads an option: a path, or `none`.
    pub(crate) fn new(named: Option<&Path>, usual: impl FnOnce() -> Option<PathBuf>) -> Self {
        match named {
            None => Self::Usual(usual()),
            Some(word) if word == Path::new("none") => Self::Nothing,
            Some(path) => Self::Named(path.to_owned()),
        }
    }

    /// Returns the path, whether there is a file or not.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Usual(path) => path.as_deref(),
            Self::Named(path) => Some(path),
            Self::Nothing => None,
        }
    }

    /// Reads the file; `None` when there need be none and is none.
    ///
    /// # Errors
    /// `Usage` for a file that can't be read or isn't UTF-8.
    pub(crate) fn read(&self) -> Result<Option<Text>, Error> {
        let Some(path) = self.path() else { return Ok(None) };
        match read(path) {
            Ok(text) => Ok(Some(text)),
            Err(e) if matches!(self, Self::Usual(_)) && is_missing(&e) => Ok(None),
            Err(e) => Err(Error::io("read the file", e).at(shown(path)).with_kind(ErrorKind::Usage)),
        }
    }
}

/// A file's text, and who may touch it.
pub(crate) struct Text {
    pub(crate) text: Zeroizing<String>,
    metadata: Metadata,
}

impl Text {
    /// Returns whether somebody else than root and us can have written it. A pipe or `/dev/null` is what the user named.
    pub(crate) fn is_others(&self) -> bool {
        let owner = self.metadata.uid();
        let ours = owner == 0 || owner == rustix::process::geteuid().as_raw();
        self.metadata.is_file() && (!ours || self.metadata.mode() & 0o022 != 0)
    }

    /// Returns whether others can read it.
    pub(crate) fn is_public(&self) -> bool {
        self.metadata.is_file() && self.metadata.mode() & 0o077 != 0
    }
}

/// Returns `$XDG_CONFIG_HOME/haul/config.toml`, or that below `~/.config`.
pub(crate) fn usual_config() -> Option<PathBuf> {
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    config.or_else(|| home().map(|home| home.join(".config"))).map(|config| config.join("haul/config.toml"))
}

/// Returns `$NETRC`, or `~/.netrc`.
pub(crate) fn usual_netrc() -> Option<PathBuf> {
    let named = std::env::var_os("NETRC").filter(|path| !path.is_empty()).map(PathBuf::from);
    named.or_else(|| home().map(|home| home.join(".netrc")))
}

/// Returns a path of a file of settings: `~/` is the home directory, other relative paths begin where the file lies.
pub(crate) fn path_in(file: &Path, word: &str) -> PathBuf {
    match (word.strip_prefix("~/"), home()) {
        // What stands for no file, or for standard input.
        _ if word == "none" || word == "-" => word.into(),
        (Some(rest), Some(home)) => home.join(rest),
        _ => file.parent().unwrap_or(Path::new("")).join(word),
    }
}

/// Shows a path harmlessly.
pub(crate) fn shown(path: &Path) -> String {
    escape(path.as_os_str().as_encoded_bytes())
}

fn home() -> Option<PathBuf> {
    std::env::home_dir().filter(|path| path.is_absolute())
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn read(path: &Path) -> io::Result<Text> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.len() > LONGEST {
        return Err(io::Error::other("it is longer than 4 MiB"));
    }
    // Room for all of it: a buffer that grows would leave copies behind.
    let room = usize::try_from(metadata.len()).unwrap_or(0).max(64 << 10) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.take(LONGEST).read_to_end(&mut bytes)?;
    let text = String::from_utf8(std::mem::take(&mut bytes)).map_err(|e| {
        drop(Zeroizing::new(e.into_bytes()));
        io::Error::other("it is not UTF-8")
    })?;
    Ok(Text { text: Zeroizing::new(text), metadata })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn text(mode: u32) -> Text {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "x").unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        Which::Named(file.path().into()).read().unwrap().unwrap()
    }

    #[test]
    fn files_that_others_can_touch_are_told_apart() {
        let verdict = |mode| (text(mode).is_others(), text(mode).is_public());
        assert_eq!((verdict(0o600), verdict(0o644)), ((false, false), (false, true)));
        assert_eq!((verdict(0o660), verdict(0o602)), ((true, true), (true, true)));
    }

    #[test]
    fn only_a_file_that_was_named_must_be_there() {
        let path = PathBuf::from("/nonexistent/x");
        assert!(Which::Usual(Some(path.clone())).read().unwrap().is_none());
        assert_eq!(Which::Named(path).read().err().unwrap().kind(), ErrorKind::Usage);
        assert_eq!(Which::new(Some(Path::new("none")), || None), Which::Nothing);
    }

    #[test]
    fn paths_begin_at_home_or_where_the_file_lies() {
        let file = Path::new("/etc/haul/config.toml");
        assert_eq!(path_in(file, "keys/id"), Path::new("/etc/haul/keys/id"));
        assert_eq!(path_in(file, "/keys/id"), Path::new("/keys/id"));
        assert_eq!(path_in(file, "none"), Path::new("none"));
        assert_eq!(path_in(file, "~/id"), std::env::home_dir().unwrap().join("id"));
    }
}
