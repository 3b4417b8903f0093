//! Which ports a server listens at, as the kernel knows them.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};

const LISTENING: &str = "0A";

/// Returns the ports that are listened at on exactly this address.
pub(super) fn listening_at(address: IpAddr) -> Vec<u16> {
    let Ok(table) = File::open("/proc/net/tcp") else { return Vec::new() };
    let lines = BufReader::new(table).lines().map_while(Result::ok).skip(1);
    // Those that listen come first, before the many that are connected.
    let listening = lines.map_while(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state) = (fields.next()?.to_owned(), fields.nth(1)?.to_owned());
        (state == LISTENING).then_some(local)
    });
    listening.filter_map(|local| parse(&local)).filter(|(at, _)| IpAddr::from(*at) == address).map(|(_, p)| p).collect()
}

/// Reads `0100007F:0050`: the address as the processor keeps it, then the port.
fn parse(local: &str) -> Option<(Ipv4Addr, u16)> {
    let (address, port) = local.split_once(':')?;
    let address = u32::from_str_radix(address, 16).ok()?.to_ne_bytes();
    Some((Ipv4Addr::from(address), u16::from_str_radix(port, 16).ok()?))
}
