//! Files of a peer, served as they should be: what is a lie, a test tells beside it.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard};

use sha2::Digest;

use super::peer::{Act, End};

pub(crate) const DONE: End = End::Says("226 done\r\n");
const DIGESTS: [&str; 3] = ["XSHA512", "XSHA256", "XCRC"];

/// Files by path, with the time that clients set.
#[derive(Default)]
pub(crate) struct Store {
    files: Mutex<BTreeMap<String, (Vec<u8>, String)>>,
    /// By connection: where the next transfer starts, and what is to be renamed.
    under_way: Mutex<HashMap<usize, (usize, String)>>,
    /// Which digests it gives, as FEAT tells them.
    digests: &'static [&'static str],
}

impl Store {
    pub(crate) fn with(digests: &'static [&'static str]) -> Arc<Self> {
        Arc::new(Self { digests, ..Self::default() })
    }

    pub(crate) fn put(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.files().insert(path.into(), (bytes.into(), "20200102030405".into()));
    }

    pub(crate) fn get(&self, path: &str) -> Option<Vec<u8>> {
        self.files().get(path).map(|(bytes, _)| bytes.clone())
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.files().keys().cloned().collect()
    }

    /// Takes the offset that the next transfer of a connection starts at.
    pub(crate) fn rest(&self, connection: usize) -> usize {
        std::mem::take(&mut self.under_way.lock().unwrap().entry(connection).or_default().0)
    }

    /// Returns whether the next transfer of a connection starts below an offset.
    pub(crate) fn rest_is_below(&self, connection: usize, offset: usize) -> bool {
        self.under_way.lock().unwrap().get(&connection).is_none_or(|(rest, _)| *rest < offset)
    }

    /// Writes bytes into a file at an offset; what was behind them is gone, as after STOR.
    pub(crate) fn write(&self, path: &str, offset: usize, bytes: &[u8]) {
        let mut files = self.files();
        let (file, time) = files.entry(path.into()).or_default();
        file.resize(offset, 0);
        file.extend_from_slice(bytes);
        *time = "20260101000000".into();
    }

    /// Returns what an honest server does; `None` where the peer knows that itself.
    pub(crate) fn answer(self: &Arc<Self>, connection: usize, line: &str) -> Option<Act> {
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        if DIGESTS.contains(&verb) && self.digests.contains(&verb) {
            return Some(self.digest(verb, argument));
        }
        let time = |argument: &str| argument.split_once(' ').map(|(time, path)| (time.to_owned(), path.to_owned()));
        let text = match verb {
            "FEAT" => self.features(),
            "REST" => {
                self.under_way.lock().unwrap().entry(connection).or_default().0 = argument.parse().unwrap();
                "350 go on\r\n".into()
            }
            "SIZE" => self.told(argument, |bytes, _| format!("213 {}\r\n", bytes.len())),
            "MDTM" => self.told(argument, |_, time| format!("213 {time}\r\n")),
            "MLST" => self.facts(argument),
            "MFMT" => {
                let (time, path) = time(argument)?;
                match self.files().get_mut(&path) {
                    Some(file) => file.1 = time,
                    None => return Some(missing()),
                }
                "213 set\r\n".into()
            }
            "RETR" => {
                let offset = self.rest(connection);
                return Some(match self.get(argument) {
                    Some(bytes) => Act::Give(bytes[offset.min(bytes.len())..].to_vec(), DONE),
                    None => missing(),
                });
            }
            "STOR" => return Some(self.store(argument, self.rest(connection), usize::MAX, DONE)),
            "APPE" => {
                let offset = self.get(argument).map_or(0, |bytes| bytes.len());
                return Some(self.store(argument, offset, usize::MAX, DONE));
            }
            "RNFR" => {
                self.under_way.lock().unwrap().entry(connection).or_default().1 = argument.into();
                self.told(argument, |_, _| "350 to what?\r\n".into())
            }
            "RNTO" => {
                let from = std::mem::take(&mut self.under_way.lock().unwrap().entry(connection).or_default().1);
                self.rename(&from, argument);
                "250 done\r\n".into()
            }
            "DELE" => self.files().remove(argument).map_or("550 No such file.\r\n", |_| "250 gone\r\n").into(),
            _ => return None,
        };
        Some(Act::Tell(text))
    }

    pub(crate) fn rename(&self, from: &str, to: &str) {
        let mut files = self.files();
        if let Some(file) = files.remove(from) {
            files.insert(to.into(), file);
        }
    }

    /// Takes so many bytes of an upload.
    pub(crate) fn store(self: &Arc<Self>, path: &str, offset: usize, length: usize, end: End) -> Act {
        let (store, path) = (Arc::clone(self), path.to_owned());
        Act::Keep(length, Box::new(move |bytes| store.write(&path, offset, &bytes)), end)
    }

    fn features(&self) -> String {
        let mut text =
            String::from("211-so:\r\n SIZE\r\n MDTM\r\n MFMT\r\n REST STREAM\r\n MLST type*;size*;modify*;\r\n");
        for digest in self.digests {
            let _ = write!(text, " {digest}\r\n");
        }
        text + "211 end\r\n"
    }

    /// What MLST says, with this size and time.
    fn facts(&self, path: &str) -> String {
        if path == "/" || path == "/home" {
            return "250-so:\r\n type=dir; /\r\n250 end\r\n".into();
        }
        self.told(path, |bytes, time| facts(path, bytes.len(), time))
    }

    fn digest(&self, verb: &str, path: &str) -> Act {
        let Some(bytes) = self.get(path.trim_matches('"')) else { return missing() };
        let digest = match verb {
            "XSHA512" => hex(&sha2::Sha512::digest(&bytes)),
            "XSHA256" => hex(&sha2::Sha256::digest(&bytes)),
            _ => format!("{:08x}", crc32fast::hash(&bytes)),
        };
        Act::Tell(format!("250 {digest}\r\n"))
    }

    fn told(&self, path: &str, tell: impl FnOnce(&[u8], &str) -> String) -> String {
        match self.files().get(path) {
            Some((bytes, time)) => tell(bytes, time),
            None => "550 No such file.\r\n".into(),
        }
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<String, (Vec<u8>, String)>> {
        self.files.lock().unwrap()
    }
}

pub(crate) fn facts(path: &str, size: usize, time: &str) -> String {
    format!("250-so:\r\n type=file;size={size};modify={time}; {path}\r\n250 end\r\n")
}

fn missing() -> Act {
    Act::Say("550 No such file.\r\n")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
