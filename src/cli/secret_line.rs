//! Reading a secret so that no copy of it stays behind in memory.

use std::io;
use std::os::fd::AsFd;

use haul::transport::Secret;
use rustix::io::{Errno, read};
use zeroize::Zeroizing;

/// The longest line that is read.
const LONGEST: usize = 8 << 10;

/// Reads a line, byte by byte: into a buffer that never grows, and nothing of what comes behind it. `None` at the end.
///
/// # Errors
/// Those of reading; for a line that is too long or isn't UTF-8.
pub(crate) fn read_secret(from: impl AsFd) -> io::Result<Option<Secret>> {
    let mut line = Zeroizing::new(Vec::with_capacity(LONGEST));
    let mut byte = Zeroizing::new([0]);
    loop {
        match read(&from, &mut byte[..]) {
            Ok(0) if line.is_empty() => return Ok(None),
            Ok(0) => break,
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) if line.len() == LONGEST => return Err(io::Error::other("the line is longer than 8 KiB")),
            Ok(_) => line.push(byte[0]),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    while line.last() == Some(&b'\r') {
        line.pop();
    }
    // The bytes move: there is no second copy.
    String::from_utf8(std::mem::take(&mut line)).map(|text| Some(Secret::new(text))).map_err(|e| {
        drop(Zeroizing::new(e.into_bytes()));
        io::Error::other("the line is not UTF-8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    fn read_from(bytes: &[u8]) -> (io::Result<Option<Secret>>, Vec<u8>) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        let secret = read_secret(&file);
        let mut rest = Vec::new();
        file.read_to_end(&mut rest).unwrap();
        (secret, rest)
    }

    #[test]
    fn one_line_is_taken_and_nothing_more() {
        for (bytes, line, rest) in [
            (&b"secret\nmore"[..], Some("secret"), &b"more"[..]),
            (b"a b \r\n", Some("a b "), b""),
            (b"no end", Some("no end"), b""),
            (b"\nx", Some(""), b"x"),
            (b"", None, b""),
        ] {
            let (secret, left) = read_from(bytes);
            assert_eq!((secret.unwrap(), &left[..]), (line.map(Secret::new), rest));
        }
        assert!(read_from(&[b'x'; LONGEST + 1]).0.is_err() && read_from(b"\xff\n").0.is_err());
        assert!(read_from(&[b'x'; LONGEST]).0.is_ok());
    }
}
