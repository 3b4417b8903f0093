//! Machine-readable output: one object a line.

use haul::{Error, ErrorKind, Result};
use serde::Serialize;

/// Adds an object as a line.
pub(crate) fn line(to: &mut Vec<u8>, object: &impl Serialize) -> Result<()> {
    serde_json::to_writer(&mut *to, object).map_err(|e| Error::new(ErrorKind::Other, "write JSON").with_source(e))?;
    to.push(b'\n');
    Ok(())
}
