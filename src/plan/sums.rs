//! Lists of digests, as `sha256sum` and its kin write and read them: one file a line.
//!
//! `HEX  NAME`, with `*` for the second space where the file was read as binary; `HEX NAME` as BSD's `md5 -r` has it;
//! `SHA256 (NAME) = HEX`, with `--tag`; `SHA256(NAME)= HEX`, OpenSSL's. A backslash in front of the line says that the
//! name is escaped: `\\`, `\n`, `\r`.

use std::fmt::Write as _;

use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Algorithm, RemotePath, escape};

/// No honest line is longer: a name of 4096 bytes, all of them escaped, a digest, and something to spare.
pub const LONGEST_LINE: usize = 16 * 1024;
/// What stands in front of a name, with and without dashes.
const TAGS: [(&[u8], Algorithm); 10] = [
    (b"SHA256", Algorithm::Sha256),
    (b"SHA2-256", Algorithm::Sha256),
    (b"SHA-256", Algorithm::Sha256),
    (b"SHA512", Algorithm::Sha512),
    (b"SHA2-512", Algorithm::Sha512),
    (b"SHA1", Algorithm::Sha1),
    (b"MD5", Algorithm::Md5),
    (b"BLAKE3", Algorithm::Blake3),
    (b"CRC32", Algorithm::Crc32),
    (b"SHA-512", Algorithm::Sha512),
];
/// What a digest without a tag is taken for, by its length.
const BY_LENGTH: [Algorithm; 4] = [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Sha1, Algorithm::Md5];

/// One line: a file and its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    /// By which algorithm.
    pub algorithm: Algorithm,
    /// As many bytes as the algorithm has.
    pub digest: Vec<u8>,
    /// The name as it is meant, not escaped; not to be trusted, see [`Sum::below`].
    pub name: Vec<u8>,
}

impl Sum {
    /// Returns the line that `sha256sum` writes, with its newline.
    pub fn line(&self) -> Vec<u8> {
        let (mark, name) = escaped(&self.name);
        [mark, hex(&self.digest).as_bytes(), b"  ", &name, b"\n"].concat()
    }

    /// Returns the line that `sha256sum --tag` writes, with its newline.
    pub fn tagged_line(&self) -> Vec<u8> {
        let (mark, name) = escaped(&self.name);
        let known = TAGS.iter().find(|(_, algorithm)| *algorithm == self.algorithm);
        let tag = known.map_or(&b""[..], |(tag, _)| tag);
        [mark, tag, b" (", &name, b") = ", hex(&self.digest).as_bytes(), b"\n"].concat()
    }

    /// Returns the path that the name means below a directory.
    ///
    /// # Errors
    /// `InvalidPath` for a name that leads, or on some servers would lead, out of it, and for one that names no file.
    pub fn below(&self, directory: &RemotePath) -> Result<RemotePath> {
        let refused = |why: &str| Err(Error::new(ErrorKind::InvalidPath, why).at(escape(&self.name)));
        if self.name.starts_with(b"/") {
            return refused("refused: the name begins at the root");
        }
        let mut path = directory.clone();
        for part in self.name.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".") {
            let climbs = part.split(|&b| b == b'\\').any(|part| part == b"..");
            if climbs {
                return refused("refused: the name leads elsewhere");
            }
            path = path.join(part)?;
        }
        if path == *directory { refused("the name is none of a file") } else { Ok(path) }
    }
}

/// Returns the mark of an escaped name and the name, as it stands in a line.
pub fn escaped(name: &[u8]) -> (&'static [u8], Vec<u8>) {
    // A lone dash would be standard input to those who read the line.
    let name = if name == b"-" { b"./-" } else { name };
    if !name.iter().any(|b| matches!(b, b'\\' | b'\n' | b'\r')) {
        return (b"", name.to_vec());
    }
    let mut text = Vec::with_capacity(name.len() + 8);
    for &byte in name {
        match byte {
            b'\\' => text.extend_from_slice(b"\\\\"),
            b'\n' => text.extend_from_slice(b"\\n"),
            b'\r' => text.extend_from_slice(b"\\r"),
            byte => text.push(byte),
        }
    }
    (b"\\", text)
}

/// Writes bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Finds an algorithm by its name, with or without dashes, in any case.
pub fn algorithm_named(name: &str) -> Option<Algorithm> {
    let plain = |name: &[u8]| -> Vec<u8> { name.iter().filter(|&&b| b != b'-').map(u8::to_ascii_uppercase).collect() };
    TAGS.iter().find(|(tag, _)| plain(tag) == plain(name.as_bytes())).map(|(_, algorithm)| *algorithm)
}

/// Reads a list, line by line.
#[derive(Debug)]
pub struct Reader {
    algorithm: Option<Algorithm>,
    /// Whether the lines have one space between digest and name; known from the first of them on. Taking both would let
    /// whoever names files name others.
    narrow: Option<bool>,
}

impl Reader {
    /// Reads digests by this algorithm; by `None`, by the one that tag or length tell.
    pub fn new(algorithm: Option<Algorithm>) -> Self {
        Self { algorithm, narrow: None }
    }

    /// Reads a line without its newline; `None` for a comment and an empty line.
    ///
    /// # Errors
    /// What is wrong with it, in a few words.
    pub fn read(&mut self, line: &[u8]) -> Result<Option<Sum>, &'static str> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() || line.starts_with(b"#") {
            return Ok(None);
        }
        if line.len() > LONGEST_LINE {
            return Err("it is too long");
        }
        let line = line.trim_ascii_start();
        let (is_escaped, line) = match line.strip_prefix(b"\\") {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        let (algorithm, digest, name) = match tagged(line) {
            Some((algorithm, rest)) => self.behind_tag(algorithm, rest)?,
            None => self.plain(line)?,
        };
        let name =
            if is_escaped { unescape(name).ok_or("its name is not escaped as it should be")? } else { name.to_vec() };
        match name.is_empty() || name.contains(&0) {
            true => Err("it names no file"),
            false => Ok(Some(Sum { algorithm, digest, name })),
        }
    }

    /// Reads `NAME) = HEX`.
    fn behind_tag<'a>(
        &self,
        algorithm: Algorithm,
        rest: &'a [u8],
    ) -> Result<(Algorithm, Vec<u8>, &'a [u8]), &'static str> {
        if self.algorithm.is_some_and(|wanted| wanted != algorithm) {
            return Err("it is by another algorithm");
        }
        let close = rest.iter().rposition(|&b| b == b')').ok_or("its name has no end")?;
        let (name, rest) = (&rest[..close], rest[close + 1..].trim_ascii_start());
        let digits = rest.strip_prefix(b"=").ok_or("it has no digest")?.trim_ascii();
        let digest = from_hex(digits).filter(|digest| digest.len() == algorithm.length());
        Ok((algorithm, digest.ok_or("its digest has not the length that it should have")?, name))
    }

    /// Reads `HEX  NAME`, `HEX *NAME` or `HEX NAME`.
    fn plain<'a>(&mut self, line: &'a [u8]) -> Result<(Algorithm, Vec<u8>, &'a [u8]), &'static str> {
        let end = line.iter().position(|b| matches!(b, b' ' | b'\t')).ok_or("it is no digest and a name")?;
        let digest = from_hex(&line[..end]).ok_or("it doesn't begin with a digest")?;
        let fits = |algorithm: &Algorithm| algorithm.length() == digest.len();
        let algorithm = match self.algorithm {
            Some(wanted) => Some(wanted).filter(fits),
            None => BY_LENGTH.into_iter().find(fits),
        };
        let algorithm = algorithm.ok_or("its digest has another length than those that are known")?;
        let rest = &line[end + 1..];
        let is_wide = rest.len() > 1 && (rest.starts_with(b" ") || rest.starts_with(b"*"));
        let name = match (is_wide, self.narrow) {
            (true, None | Some(false)) => &rest[1..],
            (_, Some(true)) | (false, None) => rest,
            (false, Some(false)) => return Err("it has one space where the lines above have two"),
        };
        self.narrow.get_or_insert(!is_wide);
        Ok((algorithm, digest, name))
    }
}

/// Returns the algorithm of a tag and what follows its parenthesis.
fn tagged(line: &[u8]) -> Option<(Algorithm, &[u8])> {
    TAGS.iter().find_map(|(tag, algorithm)| {
        let rest = line.strip_prefix(*tag)?;
        let rest = rest.strip_prefix(b" ").unwrap_or(rest).strip_prefix(b"(")?;
        Some((*algorithm, rest))
    })
}

fn unescape(name: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(name.len());
    let mut bytes = name.iter();
    while let Some(&byte) = bytes.next() {
        plain.push(match byte {
            b'\\' => match bytes.next()? {
                b'\\' => b'\\',
                b'n' => b'\n',
                b'r' => b'\r',
                _ => return None,
            },
            byte => byte,
        });
    }
    Some(plain)
}

/// Reads hexadecimal digits; `None` for anything else, and for none.
fn from_hex(digits: &[u8]) -> Option<Vec<u8>> {
    if digits.is_empty() || !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    digits.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn read(line: &str) -> Result<Option<Sum>, &'static str> {
        Reader::new(None).read(line.as_bytes())
    }

    fn name(line: &str) -> String {
        String::from_utf8(read(line).unwrap().unwrap().name).unwrap()
    }

    #[test]
    fn every_known_form_is_read() {
        for line in [
            format!("{DIGEST}  a b"),
            format!("{DIGEST} *a b"),
            format!("{DIGEST}\ta b"),
            format!("{DIGEST} a b"),
            format!("  {DIGEST}  a b\r"),
            format!("{}  a b", DIGEST.to_uppercase()),
            format!("SHA256 (a b) = {DIGEST}"),
            format!("SHA256(a b)= {DIGEST}"),
            format!("SHA2-256(a b)= {DIGEST}"),
            format!("\\SHA256 (a b) = {DIGEST}"),
        ] {
            let sum = read(&line).unwrap().unwrap();
            assert_eq!((sum.algorithm, sum.name.as_slice()), (Algorithm::Sha256, &b"a b"[..]), "{line}");
            assert_eq!(hex(&sum.digest), DIGEST);
        }
        assert_eq!(name(&format!("SHA256 (a) = b) = {DIGEST}")), "a) = b");
        assert_eq!(name(&format!("\\{DIGEST}  a\\\\b\\nc\\rd")), "a\\b\nc\rd");
        assert_eq!(name(&format!("{DIGEST}  a\\nb")), "a\\nb", "not escaped");
        assert_eq!(name(&format!("{DIGEST}   a")), " a");
        for empty in ["", "# a comment", "\r"] {
            assert_eq!(read(empty), Ok(None), "{empty:?}");
        }
    }

    #[test]
    fn the_length_tells_the_algorithm_unless_one_is_wanted() {
        let of = |digits: usize, wanted| {
            let line = format!("{}  x", "a".repeat(digits));
            Reader::new(wanted).read(line.as_bytes()).map(|sum| sum.unwrap().algorithm)
        };
        assert_eq!(of(32, None), Ok(Algorithm::Md5));
        assert_eq!(of(40, None), Ok(Algorithm::Sha1));
        assert_eq!(of(64, None), Ok(Algorithm::Sha256));
        assert_eq!(of(128, None), Ok(Algorithm::Sha512));
        assert_eq!(of(64, Some(Algorithm::Blake3)), Ok(Algorithm::Blake3));
        assert_eq!(of(8, Some(Algorithm::Crc32)), Ok(Algorithm::Crc32));
        for (digits, wanted) in [(8, None), (63, None), (96, None), (32, Some(Algorithm::Sha256))] {
            assert!(of(digits, wanted).is_err(), "{digits}");
        }
    }

    #[test]
    fn what_is_no_line_of_a_list_is_told() {
        let cut = &DIGEST[..63];
        for line in [
            "hello world",
            DIGEST,
            &format!("{DIGEST} "),
            &format!("{cut}  x"),
            &format!("{cut}g  x"),
            &format!("SHA256 (x = {DIGEST}"),
            &format!("SHA256 (x) {DIGEST}"),
            &format!("SHA512 (x) = {DIGEST}"),
            &format!("SHA256 () = {DIGEST}"),
            &format!("\\{DIGEST}  a\\tb"),
            &format!("\\{DIGEST}  a\\"),
            &format!("{DIGEST}  a\0b"),
        ] {
            assert!(read(line).is_err(), "{line}");
        }
        let tagged = format!("MD5 (x) = {}", "a".repeat(32));
        assert!(Reader::new(Some(Algorithm::Sha256)).read(tagged.as_bytes()).is_err());
    }

    #[test]
    fn one_space_and_two_dont_mix() {
        let mut reader = Reader::new(None);
        let mut name = |rest: &str| reader.read(format!("{DIGEST} {rest}").as_bytes()).map(|sum| sum.unwrap().name);
        assert_eq!(name("first"), Ok(b"first".to_vec()));
        assert_eq!(name(" second"), Ok(b" second".to_vec()));
        let mut reader = Reader::new(None);
        let mut name = |rest: &str| reader.read(format!("{DIGEST} {rest}").as_bytes()).map(|sum| sum.unwrap().name);
        assert_eq!(name(" first"), Ok(b"first".to_vec()));
        assert!(name("second").is_err());
    }

    #[test]
    fn no_name_leads_out() {
        let dir = RemotePath::new("/d").unwrap();
        let below = |name: &str| {
            let sum = Sum { algorithm: Algorithm::Md5, digest: vec![0; 16], name: name.into() };
            sum.below(&dir).map(|path| path.to_string())
        };
        assert_eq!(below("./a//b/./c").unwrap(), "/d/a/b/c");
        assert_eq!(below("..a/b..").unwrap(), "/d/..a/b..");
        for name in ["/etc/passwd", "..", "../x", "a/../x", "a/..", ".", "./", "..\\x", "a\\..\\x"] {
            assert_eq!(below(name).unwrap_err().kind(), ErrorKind::InvalidPath, "{name}");
        }
    }

    #[test]
    fn algorithms_have_names() {
        for (name, algorithm) in
            [("sha256", Algorithm::Sha256), ("SHA-512", Algorithm::Sha512), ("sha-1", Algorithm::Sha1)]
        {
            assert_eq!(algorithm_named(name), Some(algorithm));
        }
        assert_eq!(algorithm_named("sha3"), None);
    }

    fn any_sum() -> impl Strategy<Value = Sum> {
        let algorithms = [Algorithm::Sha512, Algorithm::Sha256, Algorithm::Sha1, Algorithm::Md5];
        let name = prop_oneof![
            prop::collection::vec(1u8.., 1..40),
            prop::collection::vec(prop::sample::select(b"\\\n\r) (=*-./ a".to_vec()), 1..12),
        ];
        (prop::sample::select(algorithms.to_vec()), name).prop_flat_map(|(algorithm, name)| {
            prop::collection::vec(any::<u8>(), algorithm.length()).prop_map(move |digest| Sum {
                algorithm,
                digest,
                name: name.clone(),
            })
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(sums in prop::collection::vec(any_sum(), 1..6)) {
            let (mut reader, mut tagged) = (Reader::new(None), Reader::new(None));
            for sum in sums {
                let wanted = Sum { name: if sum.name == b"-" { b"./-".to_vec() } else { sum.name.clone() }, ..sum.clone() };
                for (line, reader) in [(sum.line(), &mut reader), (sum.tagged_line(), &mut tagged)] {
                    let line = line.strip_suffix(b"\n").unwrap();
                    prop_assert!(!line.contains(&b'\n'));
                    prop_assert_eq!(reader.read(line), Ok(Some(wanted.clone())));
                }
            }
        }

        #[test]
        fn any_line_is_read_or_refused(line: Vec<u8>) {
            let dir = RemotePath::new("/d").unwrap();
            if let Ok(Some(sum)) = Reader::new(None).read(&line)
                && let Ok(path) = sum.below(&dir)
            {
                prop_assert!(path != dir && path.is_at_or_below(&dir));
            }
        }
    }
}
