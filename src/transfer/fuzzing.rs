//! What the fuzz targets call of transfers.

use super::journal;
use super::part::is_part_name;

/// Reads any bytes as a journal, and the first line as the name of a part file.
pub(crate) fn journal(data: &[u8]) {
    journal::read_any(data);
    is_part_name(data.split(|&b| b == b'\n').next().unwrap_or_default());
}
