//! What the fuzz targets call of this backend.

use super::facts::parse_facts;
use super::listing::parse_line;
use super::reply::{Reply, reply_length};

/// Cuts a server's bytes into replies and asks each for all that it may tell.
pub(crate) fn replies(mut data: &[u8]) {
    while let Ok(Some(length)) = reply_length(data) {
        let (raw, rest) = data.split_at(length);
        data = rest;
        let Ok(reply) = Reply::parse(raw) else { return };
        assert!((100..1000).contains(&reply.code()));
        let _ = (reply.first_text(), reply.last_text(), reply.inner_lines().count(), reply.kind(b"/a path"));
        assert!(!reply.error_at("do it", b"/a path").chain().chars().any(char::is_control));
        let _ = super::features::Features::new(&reply, &reply);
        let _ = super::port::port_in(&reply);
    }
}

/// Reads each line as LIST and as MLSD have it.
pub(crate) fn listings(data: &[u8]) {
    for line in data.split(|&b| b == b'\n') {
        if let Some(super::facts::Fact::Entry(entry)) = parse_facts(line) {
            crate::fuzzing::name(&entry.name);
        }
        if let Some(super::listing::Line::Entry(entry)) = parse_line(line, jiff::civil::date(2025, 3, 1)) {
            crate::fuzzing::name(&entry.name);
        }
    }
}
