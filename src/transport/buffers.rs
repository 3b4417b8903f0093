//! Buffers for the bytes of files, used again once nobody looks at them: they are large, short-lived and many.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// From this length on bytes get such a buffer.
const LONG: usize = 16 * 1024;
/// The most buffers kept while they are not in use.
const KEPT: usize = 16;

/// The buffers of one channel or stream.
#[derive(Debug, Clone, Default)]
pub(crate) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

/// A buffer on loan: it comes back when the last slice of it is dropped.
struct Lent {
    bytes: Vec<u8>,
    owner: Buffers,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut kept = self.owner.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(std::mem::take(&mut self.bytes));
        }
    }
}

impl Buffers {
    /// Returns an empty buffer with room for so many bytes.
    pub(crate) fn take(&self, length: usize) -> Vec<u8> {
        let kept = (length >= LONG).then(|| self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()).flatten();
        let mut buffer = kept.unwrap_or_default();
        buffer.clear();
        buffer.reserve_exact(length);
        buffer
    }

    /// Hands out what was put together in a buffer.
    pub(crate) fn lend(&self, bytes: Vec<u8>) -> Bytes {
        if bytes.len() < LONG {
            return bytes.into();
        }
        Bytes::from_owner(Lent { bytes, owner: self.clone() })
    }
}
