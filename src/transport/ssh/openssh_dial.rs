//! How the system's `ssh` goes through our proxies: it runs this program as its `ProxyCommand`, which fetches a connection
//! from us, by the socket that questions come by, and hands it over (`ProxyUseFdpass`).
//!
//! So the proxy's password stays here, and no byte passes through a third process.

use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use tokio::process::Command;

use super::within;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::dial::Dialler;
use crate::transport::{AddressFamily, ConnectOptions};

/// The first argument of a run that fetches a connection.
pub(super) const DIAL: &str = "--dial";

/// Returns what `ssh` is told so that it goes through the proxy of the options, and how that is reached; `None` where
/// there is none, or where a `ProxyCommand` goes before it.
///
/// # Errors
/// `Unsupported` where `ssh` goes through other servers: the way to the first of them is its own business. `Usage` when
/// the environment names a proxy that can't be used.
pub(super) async fn way(
    command: Command,
    program: Option<&Path>,
    options: &ConnectOptions,
) -> Result<Option<(Vec<OsString>, Dialler)>> {
    if options.proxies.are_none() {
        return Ok(None);
    }
    let config = Config::ask(command, options.timeout).await?;
    if options.proxies.for_host(&config.host)?.is_none() {
        return Ok(None);
    }
    if config.jumps {
        return Err(Error::new(ErrorKind::Unsupported, "ssh can't take a proxy to the host of a ProxyJump")
            .with_hint("--ssh-engine russh can; --proxy none goes without the proxy"));
    }
    if config.has_command && !options.proxies.is_named() {
        return Ok(None);
    }
    let Some(program) = program else {
        return Err(Error::new(ErrorKind::Unsupported, "no program that ssh could reach the proxy by")
            .with_hint("call askpass_main first thing in main, or name a program by use_askpass_program"));
    };
    let arguments = vec![proxy_command(program), "-oProxyUseFdpass=yes".into()];
    let family = options.family.unwrap_or(config.family);
    let dialler = Dialler::new(options).starting_from(options.bind.or(config.bind), family);
    Ok(Some((arguments, dialler)))
}

/// What `ssh` makes of its configuration.
#[derive(Debug, Default, PartialEq, Eq)]
struct Config {
    host: String,
    jumps: bool,
    has_command: bool,
    family: AddressFamily,
    bind: Option<std::net::IpAddr>,
}

impl Config {
    async fn ask(mut command: Command, limit: Duration) -> Result<Self> {
        let asking = command.stdin(Stdio::null()).kill_on_drop(true).output();
        let output = within(limit, "ask ssh for its configuration", asking).await?;
        let output = output.map_err(|e| Error::io("ask ssh for its configuration", e))?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            let text = format!("ssh: {}", crate::transport::escape(words.trim().as_bytes()));
            return Err(Error::new(ErrorKind::Usage, text));
        }
        Ok(Self::read(&String::from_utf8_lossy(&output.stdout)))
    }

    fn read(text: &str) -> Self {
        let mut config = Self::default();
        for (keyword, value) in text.lines().filter_map(|line| line.split_once(' ')) {
            match keyword {
                "hostname" => value.clone_into(&mut config.host),
                "proxyjump" => config.jumps = value != "none",
                "proxycommand" => config.has_command = value != "none",
                "addressfamily" if value == "inet" => config.family = AddressFamily::Ipv4,
                "addressfamily" if value == "inet6" => config.family = AddressFamily::Ipv6,
                "bindaddress" => config.bind = value.parse().ok(),
                _ => {}
            }
        }
        config
    }
}

/// A command for the shell; `%` would start a token of `ssh`.
fn proxy_command(program: &Path) -> OsString {
    let mut text = b"-oProxyCommand='".to_vec();
    for &byte in program.as_os_str().as_bytes() {
        match byte {
            b'\'' => text.extend(b"'\\''"),
            b'%' => text.extend(b"%%"),
            _ => text.push(byte),
        }
    }
    text.extend(b"' ");
    text.extend(DIAL.bytes());
    text.extend(b" %h %p");
    OsString::from_vec(text)
}

/// Reads what a run of [`proxy_command`] was asked for.
pub(super) fn asked(question: &str) -> Option<(&str, u16)> {
    let (host, port) = question.split_once('\0')?;
    Some((host, port.parse().ok()?))
}

/// Writes it.
pub(super) fn question(host: &OsStr, port: &OsStr) -> Vec<u8> {
    [host.as_bytes(), port.as_bytes()].join(&0)
}

/// Hands a socket to whoever is at the other end.
pub(super) fn send_socket(over: impl AsFd, socket: impl AsFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let sockets = [socket.as_fd()];
    ancillary.push(SendAncillaryMessage::ScmRights(&sockets));
    sendmsg(over, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Waits for a socket; `None` when the other end has none.
pub(super) fn receive_socket(over: impl AsFd) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    recvmsg(over, &mut [IoSliceMut::new(&mut [0])], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    Ok(ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
        _ => None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn reads_what_ssh_says_of_its_configuration() {
        let read = Config::read("host x\nhostname y.lan\nproxyjump none\naddressfamily inet6\nbindaddress ::1\n");
        let family = AddressFamily::Ipv6;
        assert_eq!(read, Config { host: "y.lan".into(), family, bind: "::1".parse().ok(), ..Config::default() });
        let read = Config::read("proxyjump gate\nproxycommand nc %h\naddressfamily any\n");
        assert!(read.jumps && read.has_command && read.family == AddressFamily::Any);
    }

    #[test]
    fn the_program_s_path_is_one_word_whatever_is_in_it() {
        let command = proxy_command(Path::new("/a b/c'd/100%/haul"));
        assert_eq!(command, *"-oProxyCommand='/a b/c'\\''d/100%%/haul' --dial %h %p");
    }

    #[test]
    fn a_socket_is_handed_over() {
        let (a, b) = UnixStream::pair().unwrap();
        let (mut inner, outer) = UnixStream::pair().unwrap();
        send_socket(&a, &outer).unwrap();
        drop(outer);
        let mut arrived = UnixStream::from(receive_socket(&b).unwrap().unwrap());
        arrived.write_all(b"x").unwrap();
        let mut byte = [0];
        inner.read_exact(&mut byte).unwrap();
        drop(a);
        assert!(receive_socket(&b).unwrap().is_none());
    }
}
