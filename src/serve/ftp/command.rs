//! From a line on the control connection to a [`Command`]: RFC 959, 2228, 2389, 2428, 3659, 4217 and what clients add.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::SystemTime;

use zeroize::Zeroizing;

use super::time::parse_time;
use crate::transport::Algorithm;

/// A command, its arguments read but not judged. Paths are the bytes as they came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    User(Vec<u8>),
    Pass(Hidden),
    Account,
    Quit,
    Noop,
    System,
    Features,
    Options(Vec<u8>),
    WorkingDirectory,
    ChangeDirectory(Vec<u8>),
    Up,
    Type {
        ascii: bool,
    },
    Passive,
    ExtendedPassive,
    ExtendedPassiveOnly,
    Active(SocketAddr),
    List(Vec<u8>),
    Names(Vec<u8>),
    MachineList(Vec<u8>),
    MachineEntry(Vec<u8>),
    Size(Vec<u8>),
    ModifiedTime(Vec<u8>),
    SetModifiedTime(SystemTime, Vec<u8>),
    SetMode(u32, Vec<u8>),
    Restart(u64),
    /// First and last byte; a last before the first means everything again.
    Range(u64, u64),
    Store(Vec<u8>),
    Append(Vec<u8>),
    Retrieve(Vec<u8>),
    Abort,
    Delete(Vec<u8>),
    RemoveDirectory(Vec<u8>),
    MakeDirectory(Vec<u8>),
    RenameFrom(Vec<u8>),
    RenameTo(Vec<u8>),
    Status,
    Help,
    SiteHelp,
    Allocate,
    Hash(Vec<u8>),
    /// `XSHA256` and its kin: the argument may end in a start and an end.
    Digest(Algorithm, Vec<u8>),
    AuthTls,
    ProtectionBuffer,
    Protection {
        private: bool,
    },
    ClearControl,
    /// Accepted and without effect: `MODE S`, `STRU F`.
    Fixed(&'static str),
}

/// A password as it came: never shown, wiped when dropped.
#[derive(PartialEq, Eq)]
pub(super) struct Hidden(pub(super) Zeroizing<Vec<u8>>);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(…)")
    }
}

/// Why a line is no command: the code and text to answer.
pub(super) type Refusal = (u16, &'static str);

const SYNTAX: Refusal = (501, "Syntax error in the parameters.");
const PARAMETER: Refusal = (504, "Not with that parameter.");

/// Reads a line without its line end.
pub(super) fn parse(line: &[u8]) -> Result<Command, Refusal> {
    let space = line.iter().position(|&b| b == b' ').unwrap_or(line.len());
    let verb = line[..space].to_ascii_uppercase();
    // Everything behind the one space is the argument: names may start and end with spaces.
    let argument = line.get(space + 1..).unwrap_or_default();
    if argument.contains(&0) || argument.contains(&b'\r') {
        return Err((501, "NUL and CR can't be part of an argument."));
    }
    let path = || if argument.is_empty() { Err(SYNTAX) } else { Ok(argument.to_vec()) };
    let optional = || argument.to_vec();
    Ok(match verb.as_slice() {
        b"USER" => Command::User(path()?),
        b"PASS" => Command::Pass(Hidden(Zeroizing::new(optional()))),
        b"ACCT" => Command::Account,
        b"QUIT" => Command::Quit,
        b"NOOP" => Command::Noop,
        b"SYST" => Command::System,
        b"FEAT" => Command::Features,
        b"OPTS" => Command::Options(path()?),
        b"PWD" | b"XPWD" => Command::WorkingDirectory,
        b"CWD" | b"XCWD" => Command::ChangeDirectory(path()?),
        b"CDUP" | b"XCUP" => Command::Up,
        b"TYPE" => parse_type(argument)?,
        b"MODE" => fixed(argument, b"S", "Mode S it is.")?,
        b"STRU" => fixed(argument, b"F", "Structure F it is.")?,
        b"PASV" => Command::Passive,
        b"EPSV" => parse_epsv(argument)?,
        b"PORT" => Command::Active(parse_port(argument).ok_or(SYNTAX)?),
        b"EPRT" => parse_eprt(argument)?,
        b"LIST" => Command::List(optional()),
        b"NLST" => Command::Names(optional()),
        b"MLSD" => Command::MachineList(optional()),
        b"MLST" => Command::MachineEntry(optional()),
        b"SIZE" => Command::Size(path()?),
        b"MDTM" => Command::ModifiedTime(path()?),
        b"MFMT" => parse_mfmt(argument)?,
        b"REST" => Command::Restart(number(argument).ok_or(SYNTAX)?),
        b"RANG" => parse_range(argument).ok_or(SYNTAX)?,
        b"STOR" => Command::Store(path()?),
        b"APPE" => Command::Append(path()?),
        b"RETR" => Command::Retrieve(path()?),
        b"ABOR" => Command::Abort,
        b"DELE" => Command::Delete(path()?),
        b"RMD" | b"XRMD" => Command::RemoveDirectory(path()?),
        b"MKD" | b"XMKD" => Command::MakeDirectory(path()?),
        b"RNFR" => Command::RenameFrom(path()?),
        b"RNTO" => Command::RenameTo(path()?),
        b"STAT" if argument.is_empty() => Command::Status,
        b"STAT" => return Err((504, "Use MLST or MLSD for a path.")),
        b"HELP" => Command::Help,
        b"ALLO" => Command::Allocate,
        b"SITE" => parse_site(argument)?,
        b"HASH" => Command::Hash(path()?),
        b"XSHA512" => Command::Digest(Algorithm::Sha512, path()?),
        b"XSHA256" => Command::Digest(Algorithm::Sha256, path()?),
        b"XSHA1" | b"XSHA" => Command::Digest(Algorithm::Sha1, path()?),
        b"XMD5" | b"MD5" => Command::Digest(Algorithm::Md5, path()?),
        b"XCRC" => Command::Digest(Algorithm::Crc32, path()?),
        b"AUTH" => match argument.to_ascii_uppercase().as_slice() {
            b"TLS" | b"TLS-C" | b"SSL" => Command::AuthTls,
            _ => return Err(PARAMETER),
        },
        b"PBSZ" => number(argument).map(|_| Command::ProtectionBuffer).ok_or(SYNTAX)?,
        b"PROT" => match argument.to_ascii_uppercase().as_slice() {
            b"P" => Command::Protection { private: true },
            b"C" => Command::Protection { private: false },
            _ => return Err((536, "Only PROT P and PROT C.")),
        },
        b"CCC" => Command::ClearControl,
        b"REIN" | b"STOU" | b"SMNT" => return Err((502, "Not supported.")),
        _ => return Err((500, "Unknown command.")),
    })
}

/// Splits an argument as `XCRC` and its kin have it: a quoted name, or a name, then perhaps a start and an end.
///
/// Returns the name with the numbers cut off, if it can be read so.
pub(super) fn split_range(argument: &[u8]) -> Option<(Vec<u8>, u64, Option<u64>)> {
    if let Some(rest) = argument.strip_prefix(b"\"") {
        let end = rest.iter().rposition(|&b| b == b'"')?;
        let numbers = words(&rest[end + 1..]).map(number).collect::<Option<Vec<_>>>()?;
        return match numbers[..] {
            [] => Some((rest[..end].to_vec(), 0, None)),
            [start] => Some((rest[..end].to_vec(), start, None)),
            [start, stop] => Some((rest[..end].to_vec(), start, Some(stop))),
            _ => None,
        };
    }
    let (name, last) = split_last(argument)?;
    let last = number(last)?;
    match split_last(name).and_then(|(name, first)| Some((name, number(first)?))) {
        Some((name, first)) => Some((name.to_vec(), first, Some(last))),
        None => Some((name.to_vec(), last, None)),
    }
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&b| b == b' ').filter(|word| !word.is_empty())
}

fn split_last(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = text.iter().rposition(|&b| b == b' ')?;
    Some((&text[..space], &text[space + 1..]))
}

fn split_first(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = text.iter().position(|&b| b == b' ')?;
    Some((&text[..space], &text[space + 1..])).filter(|(_, rest)| !rest.is_empty())
}

/// Reads decimal digits and nothing else (`str::parse` takes a plus sign).
fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()))?;
    text.parse().ok()
}

fn parse_type(argument: &[u8]) -> Result<Command, Refusal> {
    match argument.to_ascii_uppercase().as_slice() {
        b"I" | b"L 8" | b"L8" => Ok(Command::Type { ascii: false }),
        b"A" | b"A N" => Ok(Command::Type { ascii: true }),
        _ => Err(PARAMETER),
    }
}

fn fixed(argument: &[u8], only: &[u8], answer: &'static str) -> Result<Command, Refusal> {
    if argument.eq_ignore_ascii_case(only) { Ok(Command::Fixed(answer)) } else { Err(PARAMETER) }
}

fn parse_epsv(argument: &[u8]) -> Result<Command, Refusal> {
    match argument.to_ascii_uppercase().as_slice() {
        // The protocol is that of the control connection, whatever is asked for.
        b"" | b"1" | b"2" => Ok(Command::ExtendedPassive),
        b"ALL" => Ok(Command::ExtendedPassiveOnly),
        _ => Err((522, "Network protocol not supported, use (1,2)")),
    }
}

fn parse_port(argument: &[u8]) -> Option<SocketAddr> {
    let numbers: Vec<u8> =
        argument.split(|&b| b == b',').map(|n| number(n).and_then(|n| u8::try_from(n).ok())).collect::<Option<_>>()?;
    let [a, b, c, d, high, low] = numbers[..] else { return None };
    Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low])))
}

/// RFC 2428: `|1|192.0.2.1|2000|`, with any delimiter.
fn parse_eprt(argument: &[u8]) -> Result<Command, Refusal> {
    let (&delimiter, rest) = argument.split_first().ok_or(SYNTAX)?;
    let fields: Vec<_> = rest.split(|&b| b == delimiter).collect();
    let [family, address, port, b""] = fields[..] else { return Err(SYNTAX) };
    if family != b"1" && family != b"2" {
        return Err((522, "Network protocol not supported, use (1,2)"));
    }
    let address = std::str::from_utf8(address).ok().and_then(|a| a.parse::<IpAddr>().ok()).ok_or(SYNTAX)?;
    let port = number(port).and_then(|p| u16::try_from(p).ok()).ok_or(SYNTAX)?;
    if address.is_ipv4() != (family == b"1") {
        return Err(SYNTAX);
    }
    Ok(Command::Active(SocketAddr::new(address, port)))
}

fn parse_mfmt(argument: &[u8]) -> Result<Command, Refusal> {
    let (time, path) = split_first(argument).ok_or(SYNTAX)?;
    Ok(Command::SetModifiedTime(parse_time(time).ok_or(SYNTAX)?, path.to_vec()))
}

fn parse_range(argument: &[u8]) -> Option<Command> {
    let (first, last) = split_first(argument)?;
    Some(Command::Range(number(first)?, number(last)?))
}

fn parse_site(argument: &[u8]) -> Result<Command, Refusal> {
    let (verb, rest) = split_first(argument).unwrap_or((argument, b""));
    match verb.to_ascii_uppercase().as_slice() {
        b"HELP" => Ok(Command::SiteHelp),
        b"CHMOD" => {
            let (mode, path) = split_first(rest).ok_or(SYNTAX)?;
            let mode = std::str::from_utf8(mode).ok().filter(|m| m.bytes().all(|b| b.is_ascii_digit()));
            let mode = mode.and_then(|m| u32::from_str_radix(m, 8).ok()).filter(|m| *m <= 0o7777).ok_or(SYNTAX)?;
            Ok(Command::SetMode(mode, path.to_vec()))
        }
        b"UTIME" => parse_utime(rest).ok_or(SYNTAX),
        _ => Err((504, "Unknown SITE command.")),
    }
}

/// `UTIME YYYYMMDDhhmm[ss] path`, or `UTIME path accessed modified created UTC`.
fn parse_utime(argument: &[u8]) -> Option<Command> {
    if let Some(rest) = argument.strip_suffix(b" UTC") {
        let (rest, _created) = split_last(rest)?;
        let (rest, modified) = split_last(rest)?;
        let (path, _accessed) = split_last(rest)?;
        return Some(Command::SetModifiedTime(parse_time(modified)?, path.to_vec()));
    }
    let (time, path) = split_first(argument)?;
    let seconds = if time.len() == 12 { &b"00"[..] } else { b"" };
    Some(Command::SetModifiedTime(parse_time(&[time, seconds].concat())?, path.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ok(line: &str) -> Command {
        parse(line.as_bytes()).unwrap()
    }

    fn code(line: &str) -> u16 {
        parse(line.as_bytes()).unwrap_err().0
    }

    #[test]
    fn names_keep_every_byte() {
        assert_eq!(parse(b"retr  a \xff\" ").unwrap(), Command::Retrieve(b" a \xff\" ".to_vec()));
        assert_eq!(ok("STOR -la"), Command::Store(b"-la".to_vec()));
        assert_eq!(code("STOR"), 501);
        assert_eq!(code("STOR "), 501);
        assert_eq!(code("DELE a\rb"), 501);
        assert_eq!(code("DELE a\0b"), 501);
    }

    #[test]
    fn parameters_are_judged() {
        assert_eq!(ok("type l 8"), Command::Type { ascii: false });
        assert_eq!(code("TYPE E"), 504);
        assert_eq!(code("MODE Z"), 504);
        assert_eq!(code("AUTH GSSAPI"), 504);
        assert_eq!(code("PROT S"), 536);
        assert_eq!(code("REST +5"), 501);
        assert_eq!(code("REST -5"), 501);
        assert_eq!(code("REST 18446744073709551616"), 501);
        assert_eq!(code("EPSV 3"), 522);
        assert_eq!(code("WHAT"), 500);
        assert_eq!(ok("SITE CHMOD 0644  x"), Command::SetMode(0o644, b" x".to_vec()));
        assert_eq!(code("SITE CHMOD +644 x"), 501);
        assert_eq!(code("SITE CHMOD 99 x"), 501);
    }

    #[test]
    fn addresses_are_read() {
        let here = Command::Active("127.0.0.1:1025".parse().unwrap());
        assert_eq!(ok("PORT 127,0,0,1,4,1"), here);
        assert_eq!(ok("EPRT |1|127.0.0.1|1025|"), here);
        assert_eq!(ok("EPRT !2!::1!1025!"), Command::Active("[::1]:1025".parse().unwrap()));
        for bad in ["PORT 127,0,0,1,4", "PORT 1,2,3,4,5,256", "EPRT |2|127.0.0.1|1025|", "EPRT |1|127.0.0.1|70000|"] {
            assert_eq!(code(bad), 501, "{bad}");
        }
    }

    #[test]
    fn times_are_set_in_three_ways() {
        let set = Command::SetModifiedTime(crate::serve::root::from_unix(1_000_000_000), b"a b".to_vec());
        assert_eq!(ok("MFMT 20010909014640 a b"), set);
        assert_eq!(ok("SITE UTIME 20010909014640 a b"), set);
        assert_eq!(ok("SITE UTIME a b 19990101000000 20010909014640 19990101000000 UTC"), set);
        assert_eq!(code("MFMT 20010931014640 a"), 501);
    }

    #[test]
    fn digest_ranges_are_cut_off() {
        assert_eq!(split_range(b"a b"), None);
        assert_eq!(split_range(b"a b 5"), Some((b"a b".to_vec(), 5, None)));
        assert_eq!(split_range(b"a b 5 10"), Some((b"a b".to_vec(), 5, Some(10))));
        assert_eq!(split_range(b"\"a \"b\" 5 10"), Some((b"a \"b".to_vec(), 5, Some(10))));
        assert_eq!(split_range(b"\"a 1\""), Some((b"a 1".to_vec(), 0, None)));
        assert_eq!(split_range(b"\"a\" x"), None);
    }

    #[test]
    fn a_password_is_never_shown() {
        assert!(!format!("{:?}", ok("PASS hunter2")).contains("hunter2"));
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(line: Vec<u8>, argument in prop::collection::vec(any::<u8>(), 0..30)) {
            let _ = parse(&line);
            let verbs = ["PORT ", "EPRT ", "MFMT ", "SITE UTIME ", "SITE CHMOD ", "SITE ", "RANG ", "REST ", "XCRC "];
            for verb in verbs {
                let _ = parse(&[verb.as_bytes(), &argument].concat());
            }
            let _ = split_range(&argument);
        }

        #[test]
        fn digits_never_break_a_parser(argument in "[0-9 ,|:UTC]{0,60}") {
            for verb in ["PORT ", "EPRT |1|", "MFMT ", "SITE UTIME ", "SITE CHMOD ", "RANG ", "XCRC \""] {
                let _ = parse(format!("{verb}{argument}").as_bytes());
            }
            let _ = split_range(argument.as_bytes());
        }
    }
}
