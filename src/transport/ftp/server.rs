//! What the first connection finds out about a server.

use std::sync::atomic::{AtomicBool, Ordering};

use super::dialogue::Dialogue;
use super::features::Features;
use super::reply::Reply;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::RemotePath;

/// What the first connection found out about the server.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // each is an independent fact about a server
pub(super) struct Server {
    /// What it offers.
    pub(super) features: Features,
    /// Whether reading and writing may start at an offset.
    pub(super) restarts: bool,
    /// Whether it names itself a UNIX system, whose rename replaces.
    pub(super) unix: bool,
    /// The directory that the login starts in.
    pub(super) home: RemotePath,
    /// Whether it takes commands one after the other even while a transfer is under way.
    pub(super) in_order: bool,
    /// Whether it takes 0xFF doubled, as Telnet has it.
    pub(super) telnet: bool,
    /// Whether `LIST -a`, and MLSD, have shown the line of a directory itself.
    itself: [AtomicBool; 2],
}

impl Server {
    /// Notes that a listing by MLSD, or by `LIST -a`, showed the line of the directory itself.
    pub(super) fn note_lists_itself(&self, machine: bool) {
        self.itself[usize::from(machine)].store(true, Ordering::Relaxed);
    }

    /// Returns whether one has shown it.
    pub(super) fn lists_itself(&self, machine: bool) -> bool {
        self.itself[usize::from(machine)].load(Ordering::Relaxed)
    }
}

/// Returns what the server can do, and its reply to TYPE I.
pub(super) async fn explore(dialogue: &mut Dialogue, greeting: &Reply, port_line: &str) -> Result<(Server, Reply)> {
    let replies = dialogue.ask_ahead(&["FEAT", "SITE HELP", "SYST", "PWD", "TYPE I"], port_line).await?;
    let Ok([feat, site, syst, pwd, binary]) = <[Reply; 5]>::try_from(replies) else {
        return Err(Error::new(ErrorKind::Protocol, "replies are missing"));
    };
    let features = Features::new(&feat, &site);
    // Servers without FEAT may still do it; the probe is undone at once.
    let restarts = features.restarts() || {
        let probe = dialogue.ask_all(&["REST 1", "REST 0"]).await?;
        probe.iter().all(|reply| reply.code() == 350)
    };
    let home = match pwd.code() {
        257 => RemotePath::root().resolve(quoted(pwd.first_text()))?,
        _ => RemotePath::root(),
    };
    let unix = syst.words().to_ascii_uppercase().contains("UNIX");
    let (in_order, telnet) = (features.keeps_order(greeting), features.takes_telnet(greeting));
    Ok((Server { features, restarts, unix, home, in_order, telnet, itself: Default::default() }, binary))
}

/// Reads the path out of a 257: in quotes, with quotes inside doubled (RFC 959, appendix II).
fn quoted(text: &[u8]) -> Vec<u8> {
    let Some(start) = text.iter().position(|&b| b == b'"') else {
        return text.split(|&b| b == b' ').next().unwrap_or_default().to_vec();
    };
    let mut path = Vec::new();
    let mut rest = text[start + 1..].iter().copied().peekable();
    while let Some(byte) = rest.next() {
        if byte == b'"' && rest.next_if_eq(&b'"').is_none() {
            break;
        }
        path.push(byte);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_working_directory() {
        assert_eq!(quoted(b"\"/a b\" is the current directory"), b"/a b");
        assert_eq!(quoted(b"\"/say \"\"hi\"\"\" is it"), b"/say \"hi\"");
        assert_eq!(quoted(b"/plain is it"), b"/plain");
    }
}
