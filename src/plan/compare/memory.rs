//! What was found out about files at a cost, for the next run: digests, and times that listings round.
//!
//! A table of a fixed size on the disk, of slots that check themselves: nothing is read before it is asked for, nothing has
//! to be written to the end, and what is old makes room. A slot that was torn, or lost, means finding out again.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::error::Result;

/// Slots of the table, and how many are tried for one key.
const SLOTS: u64 = 1 << 20;
const TRIED: u64 = 4;
/// Bytes of a slot: key, value, check.
const SLOT: usize = KEY + VALUE + CHECK;
const KEY: usize = 16;
pub(crate) const VALUE: usize = 40;
const CHECK: usize = 8;

/// What is remembered under a key.
pub(crate) type Value = [u8; VALUE];

/// The table. Shared by all processes of a user: a slot is written in one call.
#[derive(Debug)]
pub(crate) struct Memory {
    path: Option<PathBuf>,
    file: OnceLock<Option<File>>,
}

/// What something is remembered by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    slot: u64,
    name: [u8; KEY],
}

impl Key {
    /// Makes one of several parts; the first says what kind of thing it is.
    pub(crate) fn new(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        let digest = hasher.finalize();
        let (mut name, mut slot) = ([0; KEY], [0; 8]);
        name.copy_from_slice(&digest.as_bytes()[..KEY]);
        slot.copy_from_slice(&digest.as_bytes()[KEY..KEY + 8]);
        Self { slot: u64::from_le_bytes(slot), name }
    }

    fn offsets(&self) -> impl Iterator<Item = u64> {
        let first = self.slot;
        (0..TRIED).map(move |next| (first.wrapping_add(next) % SLOTS) * SLOT as u64)
    }
}

impl Memory {
    /// Names the table of a state folder; it is opened when it is first needed.
    pub(crate) fn new(state_dir: Option<&Path>) -> Self {
        Self { path: state_dir.map(|dir| dir.join("compared")), file: OnceLock::new() }
    }

    /// Returns what is remembered.
    pub(crate) fn get(&self, key: &Key) -> Option<Value> {
        let file = self.file()?;
        key.offsets()
            .find_map(|offset| read(file, offset).filter(|(name, _)| *name == key.name))
            .map(|(_, value)| value)
    }

    /// Remembers. Where that fails, it will be found out again.
    pub(crate) fn put(&self, key: &Key, value: &Value) {
        if let Some(file) = self.file()
            && let Err(error) = write(file, key, value)
        {
            tracing::debug!("what was found out is not remembered: {error}");
        }
    }

    fn file(&self) -> Option<&File> {
        self.file.get_or_init(|| self.path.as_deref().and_then(|path| open(path).ok())).as_ref()
    }
}

fn open(path: &Path) -> Result<File> {
    let failed = |e| crate::Error::io("open", e).at(path.display());
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(failed)
}

fn read(file: &File, offset: u64) -> Option<([u8; KEY], Value)> {
    let mut slot = [0; SLOT];
    file.read_exact_at(&mut slot, offset).ok()?;
    let (kept, check) = slot.split_at(KEY + VALUE);
    if check_of(kept) != check {
        return None;
    }
    let (mut name, mut value) = ([0; KEY], [0; VALUE]);
    name.copy_from_slice(&kept[..KEY]);
    value.copy_from_slice(&kept[KEY..]);
    Some((name, value))
}

fn write(file: &File, key: &Key, value: &Value) -> std::io::Result<()> {
    let free = |offset: &u64| read(file, *offset).is_none_or(|(name, _)| name == key.name);
    // Where all are taken, one makes room: which one, the value decides, so that no two keep chasing each other.
    let chosen = usize::from(value[0] ^ value[VALUE - 1]) % TRIED as usize;
    let Some(offset) = key.offsets().find(free).or_else(|| key.offsets().nth(chosen)) else { return Ok(()) };
    let mut slot = [0; SLOT];
    slot[..KEY].copy_from_slice(&key.name);
    slot[KEY..KEY + VALUE].copy_from_slice(value);
    let check = check_of(&slot[..KEY + VALUE]);
    slot[KEY + VALUE..].copy_from_slice(&check);
    file.write_all_at(&slot, offset)
}

fn check_of(kept: &[u8]) -> [u8; CHECK] {
    let mut check = [0; CHECK];
    check.copy_from_slice(&blake3::hash(kept).as_bytes()[..CHECK]);
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> Key {
        Key::new(&[b"test", &number.to_le_bytes()])
    }

    fn value(number: u64) -> Value {
        let mut value = [0; VALUE];
        value[..8].copy_from_slice(&number.to_le_bytes());
        value
    }

    #[test]
    fn what_is_put_is_there_for_the_next_run_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(Some(dir.path()));
        for number in 0..1000 {
            memory.put(&key(number), &value(number));
        }
        memory.put(&key(7), &value(70));
        let memory = Memory::new(Some(dir.path()));
        for number in 0..1000 {
            let wanted = if number == 7 { 70 } else { number };
            assert_eq!(memory.get(&key(number)), Some(value(wanted)));
        }
        assert_eq!(memory.get(&key(1000)), None);
        assert_eq!(Memory::new(None).get(&key(1)), None);
    }

    #[test]
    fn a_damaged_slot_is_no_answer_and_a_full_table_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(Some(dir.path()));
        memory.put(&key(1), &value(1));
        let file = OpenOptions::new().write(true).open(dir.path().join("compared")).unwrap();
        let offset = key(1).offsets().next().unwrap();
        file.write_all_at(b"x", offset + KEY as u64).unwrap();
        assert_eq!(memory.get(&key(1)), None);
        let crowded = |number: u64| Key { slot: 5, ..key(number) };
        for number in 0..20 {
            memory.put(&crowded(number), &value(number));
            assert_eq!(memory.get(&crowded(number)), Some(value(number)), "the newest is always there");
        }
        let kept = (0..20).filter(|number| memory.get(&crowded(*number)).is_some()).count();
        assert_eq!(kept, TRIED as usize);
    }
}
