//! From a line of a command script to its words, by the rules of OpenSSH's `sftp`.
//!
//! Blanks part words; `'` and `"` keep them together and take the meaning of wildcards; a backslash takes the meaning of
//! what stands behind it; `#` outside of quotes begins a comment.

/// A word of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Where it begins, from 1, in characters.
    pub column: usize,
    /// Its bytes, with a backslash before each wildcard that is meant literally and before each backslash.
    bytes: Vec<u8>,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) column: usize,
    pub(super) message: &'static str,
}

impl Word {
    /// Returns it for commands that know no wildcards.
    pub fn plain(&self) -> Vec<u8> {
        let mut plain = Vec::with_capacity(self.bytes.len());
        let mut bytes = self.bytes.iter().copied().peekable();
        while let Some(byte) = bytes.next() {
            let escaped = byte == b'\\' && bytes.peek().is_some_and(|next| b"?[*\\".contains(next));
            plain.push(if escaped { bytes.next().unwrap_or(byte) } else { byte });
        }
        plain
    }

    /// Returns it for commands that know wildcards, if none is in it: without any backslash that takes a meaning.
    pub fn literal(&self) -> Vec<u8> {
        let mut literal = Vec::with_capacity(self.bytes.len());
        let mut bytes = self.bytes.iter().copied();
        while let Some(byte) = bytes.next() {
            literal.push(if byte == b'\\' { bytes.next().unwrap_or(byte) } else { byte });
        }
        literal
    }

    /// Returns it as a pattern of [`crate::plan::expand`]: `*`, `?` and `[…]` are wildcards, `**` is `*`; braces are
    /// wildcards only where the command has them.
    pub fn pattern(&self, braces: Braces) -> Vec<u8> {
        let mut pattern = Vec::with_capacity(self.bytes.len());
        let mut at = 0;
        while let Some(&byte) = self.bytes.get(at) {
            at += 1;
            match byte {
                b'\\' => {
                    let next = self.bytes.get(at).copied().unwrap_or(byte);
                    at += 1;
                    push_literal(&mut pattern, next);
                }
                b'*' if pattern.ends_with(b"*") && !pattern.ends_with(b"\\*") => {}
                b'*' | b'?' => pattern.push(byte),
                b'[' => match end_of_class(&self.bytes[at..]) {
                    Some(length) => {
                        pattern.push(b'[');
                        pattern.extend_from_slice(&self.bytes[at..at + length]);
                        at += length;
                    }
                    None => push_literal(&mut pattern, byte),
                },
                b'{' | b'}' | b',' if braces == Braces::Meant => pattern.push(byte),
                byte => push_literal(&mut pattern, byte),
            }
        }
        pattern
    }

    /// Returns its bytes as written, as far as flags and numbers are concerned.
    pub(super) fn raw(&self) -> &[u8] {
        &self.bytes
    }
}

/// Whether `{a,b}` means `a` and `b`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Braces {
    /// It does.
    Meant,
    /// It is a name.
    Literal,
}

fn push_literal(pattern: &mut Vec<u8>, byte: u8) {
    if b"*?[]{}\\,!".contains(&byte) {
        pattern.push(b'\\');
    }
    pattern.push(byte);
}

/// Returns how long a class is behind its opening bracket, the closing one included.
fn end_of_class(rest: &[u8]) -> Option<usize> {
    let mut at = usize::from(matches!(rest.first(), Some(b'!' | b'^')));
    let first = at;
    loop {
        match rest.get(at)? {
            b']' if at > first => return Some(at + 1),
            b'/' => return None,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Splits a line, of which the first `start` bytes are not looked at.
pub(super) fn split(line: &[u8], start: usize) -> Result<Vec<Word>, Fault> {
    let mut splitter = Splitter { line, at: start, words: Vec::new(), word: None };
    splitter.run()?;
    Ok(splitter.words)
}

struct Splitter<'a> {
    line: &'a [u8],
    at: usize,
    words: Vec<Word>,
    word: Option<Word>,
}

impl Splitter<'_> {
    fn run(&mut self) -> Result<(), Fault> {
        while let Some(&byte) = self.line.get(self.at) {
            match byte {
                b'#' => break,
                byte if is_blank(byte) => {
                    self.words.extend(self.word.take());
                    self.at += 1;
                }
                b'\'' | b'"' => self.quoted(byte)?,
                b'\\' => self.escaped()?,
                byte => {
                    self.push(&[byte]);
                    self.at += 1;
                }
            }
        }
        self.words.extend(self.word.take());
        Ok(())
    }

    fn quoted(&mut self, quote: u8) -> Result<(), Fault> {
        let opened = self.at;
        self.push(&[]);
        self.at += 1;
        while let Some(&byte) = self.line.get(self.at) {
            let next = self.line.get(self.at + 1).copied();
            self.at += 1;
            match (byte, next) {
                (byte, _) if byte == quote => return Ok(()),
                (b'\\', Some(next)) => {
                    self.at += 1;
                    match next {
                        next if next == quote => self.push(&[next]),
                        // Both are meant, and both are escaped.
                        b'?' | b'[' | b'*' => self.push(&[b'\\', b'\\', b'\\', next]),
                        next => self.push(&[b'\\', next]),
                    }
                }
                (b'?' | b'[' | b'*', _) => self.push(&[b'\\', byte]),
                _ => self.push(&[byte]),
            }
        }
        Err(Fault { column: column(self.line, opened), message: "a quote that isn't closed" })
    }

    fn escaped(&mut self) -> Result<(), Fault> {
        let Some(&next) = self.line.get(self.at + 1) else {
            return Err(Fault { column: column(self.line, self.at), message: "nothing stands behind the backslash" });
        };
        match next {
            b'?' | b'[' | b'*' | b'\\' => self.push(&[b'\\', next]),
            next => self.push(&[next]),
        }
        self.at += 2;
        Ok(())
    }

    fn push(&mut self, bytes: &[u8]) {
        let (line, at) = (self.line, self.at);
        let word = self.word.get_or_insert_with(|| Word { column: column(line, at), bytes: Vec::new() });
        word.bytes.extend_from_slice(bytes);
    }
}

/// What C calls a space.
pub(super) fn is_blank(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// The column of a byte: characters of UTF-8 count once.
pub(super) fn column(line: &[u8], at: usize) -> usize {
    line[..at.min(line.len())].iter().filter(|&&byte| byte & 0xc0 != 0x80).count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(line: &str) -> Vec<String> {
        split(line.as_bytes(), 0).unwrap().iter().map(|word| String::from_utf8(word.plain()).unwrap()).collect()
    }

    fn patterns(line: &str) -> Vec<String> {
        let words = split(line.as_bytes(), 0).unwrap();
        words.iter().map(|word| String::from_utf8(word.pattern(Braces::Literal)).unwrap()).collect()
    }

    #[test]
    fn words_are_split_as_sftp_does() {
        assert_eq!(words("get  a\tb\r"), ["get", "a", "b"]);
        assert_eq!(words("put 'a b' \"c d\"e 'it'\\''s'"), ["put", "a b", "c de", "it's"]);
        assert_eq!(words("get a\\ b \"q\\\"q\" '\\''"), ["get", "a b", "q\"q", "'"]);
        assert_eq!(words("get \"\" x # comment"), ["get", "", "x"]);
        assert_eq!(words("get a#b '#c'"), ["get", "a"]);
        assert_eq!(words("cd a\\*b 'c*d' \"e\\\\f\""), ["cd", "a*b", "c*d", "e\\f"]);
    }

    #[test]
    fn quotes_and_backslashes_take_the_meaning_of_wildcards() {
        assert_eq!(patterns("*.txt '*.txt' \\*.txt **"), ["*.txt", "\\*.txt", "\\*.txt", "*"]);
        assert_eq!(patterns("[ab]? [ab {a,b} '\\*'"), ["[ab]?", "\\[ab", "\\{a\\,b\\}", "\\\\\\*"]);
        let word = &split(b"{a,b}", 0).unwrap()[0];
        assert_eq!(word.pattern(Braces::Meant), b"{a,b}");
    }

    #[test]
    fn what_is_not_closed_is_named_by_its_column() {
        assert_eq!(split("get é 'x".as_bytes(), 0).unwrap_err().column, 7);
        assert_eq!(split(b"get x\\", 0).unwrap_err().message, "nothing stands behind the backslash");
    }

    proptest! {
        #[test]
        fn any_line_is_split_or_refused(line: Vec<u8>) {
            if let Ok(words) = split(&line, 0) {
                for word in words {
                    let _ = (word.plain(), word.literal(), word.pattern(Braces::Meant));
                    prop_assert!(word.column >= 1 && word.column <= line.len());
                }
            }
        }

        #[test]
        fn a_quoted_word_is_itself(word in "[^'\\\\\n]{0,20}") {
            prop_assert_eq!(words(&format!("x '{word}'")), ["x".to_owned(), word]);
        }

        #[test]
        fn an_escaped_word_is_itself(word in "[a-z*?\\[\\]{} '\"#\\\\]{1,20}") {
            let escaped: String = word.chars().flat_map(|c| ['\\', c]).collect();
            let split = split(escaped.as_bytes(), 0).unwrap();
            prop_assert_eq!(split[0].plain(), word.as_bytes());
            prop_assert_eq!(split[0].literal(), word.as_bytes());
        }
    }
}
