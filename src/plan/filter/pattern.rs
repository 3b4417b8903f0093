//! One pattern as gitignore(5) means it, on raw bytes.
//!
//! Both patterns and names may be a server's: no pattern takes longer than its length times that of the path.

use crate::transport::escape;

/// A pattern, and what its marks say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    /// It began with `!`: it takes what an earlier one ruled out.
    pub(super) negated: bool,
    /// It ended in `/`: it is about directories only.
    directories: bool,
    shape: Shape,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    /// No slash in it: a name at any depth.
    Name(Name),
    /// A path from where the patterns lie.
    Path(Vec<Component>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Component {
    /// `**`: any number of directories; at the end, whatever lies below.
    AnyDepth,
    Name(Name),
}

/// A pattern for one name. Most are one of the first three, which need no search.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    Exactly(Vec<u8>),
    EndsIn(Vec<u8>),
    BeginsWith(Vec<u8>),
    Like(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// `?`
    Any,
    /// `*`
    Star,
    /// `[...]`
    Set(Box<Set>),
}

/// Which bytes a bracket matches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Set([u64; 4]);

/// Why a pattern can never match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault(&'static str);

impl Fault {
    /// Tells what is wrong with which pattern.
    pub(super) fn message(self, pattern: &[u8]) -> String {
        format!("the pattern \"{}\" never matches: {}", escape(pattern), self.0)
    }
}

impl Pattern {
    /// Reads a pattern that stands for itself, as an option gives it: `!` and `#` are marks only in lines.
    ///
    /// # Errors
    /// For what git reads as a pattern that never matches.
    pub(super) fn read(mut text: &[u8], negated: bool) -> Result<Self, Fault> {
        let directories = text.ends_with(b"/");
        text = text.strip_suffix(b"/").unwrap_or(text);
        let anchored = text.contains(&b'/');
        text = text.strip_prefix(b"/").unwrap_or(text);
        if text.is_empty() {
            return Err(Fault("it is empty"));
        }
        let pieces = pieces(text)?;
        let shape = match anchored {
            false => Shape::Name(Name::new(collapsed(&pieces))),
            true => Shape::Path(components(&pieces)?),
        };
        Ok(Self { negated, directories, shape })
    }

    /// Reads a line of a file of patterns; `None` for a comment or an empty line.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) fn read_line(line: &[u8]) -> Result<Option<Self>, Fault> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = without_trailing_spaces(line);
        match line {
            [] | [b'#', ..] => Ok(None),
            [b'!', rest @ ..] => Self::read(rest, true).map(Some),
            _ => Self::read(line, false).map(Some),
        }
    }

    /// Returns whether only the last name of a path matters, at whatever depth it lies.
    pub(super) fn is_for_names(&self) -> bool {
        matches!(self.shape, Shape::Name(_))
    }

    /// Returns whether it matches the path of an entry, given by its names from where the patterns lie.
    pub(super) fn matches(&self, path: &[&[u8]], is_directory: bool) -> bool {
        if self.directories && !is_directory {
            return false;
        }
        match &self.shape {
            Shape::Name(name) => path.last().is_some_and(|last| name.matches(last)),
            Shape::Path(components) => matches_path(components, path),
        }
    }

    /// Returns whether it may match something below a directory.
    pub(super) fn may_match_below(&self, directory: &[&[u8]]) -> bool {
        let Shape::Path(components) = &self.shape else { return true };
        for (i, component) in components.iter().enumerate() {
            match (component, directory.get(i)) {
                (Component::AnyDepth, _) | (_, None) => return true,
                (Component::Name(pattern), Some(name)) if pattern.matches(name) => {}
                _ => return false,
            }
        }
        false
    }
}

impl Name {
    fn new(tokens: Vec<Token>) -> Self {
        let bytes = |tokens: &[Token]| -> Option<Vec<u8>> {
            tokens.iter().map(|token| if let Token::Byte(byte) = token { Some(*byte) } else { None }).collect()
        };
        if let Some(all) = bytes(&tokens) {
            return Self::Exactly(all);
        }
        match tokens.as_slice() {
            [Token::Star, rest @ ..] if let Some(end) = bytes(rest) => Self::EndsIn(end),
            [rest @ .., Token::Star] if let Some(start) = bytes(rest) => Self::BeginsWith(start),
            _ => Self::Like(tokens),
        }
    }

    fn matches(&self, name: &[u8]) -> bool {
        match self {
            Self::Exactly(bytes) => bytes == name,
            Self::EndsIn(end) => name.ends_with(end),
            Self::BeginsWith(start) => name.starts_with(start),
            Self::Like(tokens) => {
                search(tokens, name, |token| *token == Token::Star, |token, byte| token.matches(*byte))
            }
        }
    }
}

impl Token {
    fn matches(&self, byte: u8) -> bool {
        match self {
            Self::Byte(known) => *known == byte,
            Self::Any => true,
            Self::Star => false,
            Self::Set(set) => set.contains(byte),
        }
    }
}

impl Set {
    fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] & (1 << (byte & 63)) != 0
    }
}

fn matches_path(components: &[Component], path: &[&[u8]]) -> bool {
    // At the end it stands for at least one name: `a/**` is what lies in a, not a itself.
    let path = match (components.last(), path.split_last()) {
        (Some(Component::AnyDepth), Some((_, above))) => above,
        (Some(Component::AnyDepth), None) => return false,
        _ => path,
    };
    let any_depth = |component: &Component| matches!(component, Component::AnyDepth);
    search(components, path, any_depth, |component, name| match component {
        Component::AnyDepth => false,
        Component::Name(pattern) => pattern.matches(name),
    })
}

/// Matches a sequence of which some parts stand for any number of items. When it fails, only the last of those needs to
/// take one item more: what came before it can't do better.
fn search<P, T>(pattern: &[P], items: &[T], is_run: impl Fn(&P) -> bool, matches: impl Fn(&P, &T) -> bool) -> bool {
    let (mut at, mut item) = (0, 0);
    let mut run: Option<(usize, usize)> = None;
    loop {
        match pattern.get(at) {
            Some(part) if is_run(part) => {
                at += 1;
                run = Some((at, item));
                continue;
            }
            Some(part) if items.get(item).is_some_and(|next| matches(part, next)) => {
                (at, item) = (at + 1, item + 1);
                continue;
            }
            None if item == items.len() => return true,
            _ => {}
        }
        match run {
            Some((after, taken)) if taken < items.len() => {
                run = Some((after, taken + 1));
                (at, item) = (after, taken + 1);
            }
            _ => return false,
        }
    }
}

/// A token, or a slash that separates names.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Token(Token),
    Slash,
}

fn pieces(text: &[u8]) -> Result<Vec<Piece>, Fault> {
    let mut pieces = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        pieces.push(match first {
            b'/' => Piece::Slash,
            b'*' => Piece::Token(Token::Star),
            b'?' => Piece::Token(Token::Any),
            b'[' => Piece::Token(Token::Set(Box::new(bracket(&mut rest)?))),
            b'\\' => match take(&mut rest).ok_or(Fault("there is nothing behind its last backslash"))? {
                b'/' => Piece::Slash,
                byte => Piece::Token(Token::Byte(byte)),
            },
            byte => Piece::Token(Token::Byte(byte)),
        });
    }
    Ok(pieces)
}

/// Reads what stands behind `[`, as git's wildmatch does. A bracket never matches a slash.
fn bracket(rest: &mut &[u8]) -> Result<Set, Fault> {
    let open = Fault("a bracket is not closed");
    let mut set = Set::default();
    let negated = matches!(rest.first(), Some(b'!' | b'^'));
    if negated {
        take(rest);
    }
    let mut byte = take(rest).ok_or(open)?;
    let mut before = None;
    loop {
        before = match (byte, before) {
            (b'\\', _) => {
                let escaped = take(rest).ok_or(open)?;
                set.insert(escaped);
                Some(escaped)
            }
            (b'-', Some(first)) if rest.first().is_some_and(|next| *next != b']') => {
                let mut last = take(rest).ok_or(open)?;
                if last == b'\\' {
                    last = take(rest).ok_or(open)?;
                }
                (first..=last).for_each(|byte| set.insert(byte));
                None
            }
            (b'[', _) if rest.first() == Some(&b':') => match class(rest)? {
                Some(class) => {
                    (0..=u8::MAX).filter(class).for_each(|byte| set.insert(byte));
                    None
                }
                None => {
                    set.insert(b'[');
                    Some(b'[')
                }
            },
            (byte, _) => {
                set.insert(byte);
                Some(byte)
            }
        };
        byte = take(rest).ok_or(open)?;
        if byte == b']' {
            break;
        }
    }
    if negated {
        set.0 = set.0.map(|word| !word);
    }
    Ok(set)
}

type Class = fn(&u8) -> bool;

/// Reads `:alpha:]` behind its `[`; `None`, and nothing read, for what only begins like that.
fn class(rest: &mut &[u8]) -> Result<Option<Class>, Fault> {
    let inner = &rest[1..];
    let end = inner.iter().position(|byte| *byte == b']').ok_or(Fault("a bracket is not closed"))?;
    let Some(name) = inner[..end].strip_suffix(b":") else { return Ok(None) };
    let class: Class = match name {
        b"alnum" => u8::is_ascii_alphanumeric,
        b"alpha" => u8::is_ascii_alphabetic,
        b"blank" => |byte| matches!(byte, b' ' | b'\t'),
        b"cntrl" => u8::is_ascii_control,
        b"digit" => u8::is_ascii_digit,
        b"graph" => u8::is_ascii_graphic,
        b"lower" => u8::is_ascii_lowercase,
        b"print" => |byte| matches!(byte, b' '..=b'~'),
        b"punct" => u8::is_ascii_punctuation,
        b"space" => |byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'),
        b"upper" => u8::is_ascii_uppercase,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return Err(Fault("a bracket names a class that doesn't exist")),
    };
    *rest = &inner[end + 1..];
    Ok(Some(class))
}

fn take(rest: &mut &[u8]) -> Option<u8> {
    let (&first, after) = rest.split_first()?;
    *rest = after;
    Some(first)
}

fn components(pieces: &[Piece]) -> Result<Vec<Component>, Fault> {
    let names = pieces.split(|piece| *piece == Piece::Slash);
    let component = |name: &[Piece]| match name {
        [] => Err(Fault("it has two slashes in a row")),
        [_, _, ..] if name.iter().all(|piece| *piece == Piece::Token(Token::Star)) => Ok(Component::AnyDepth),
        _ => Ok(Component::Name(Name::new(collapsed(name)))),
    };
    names.map(component).collect()
}

/// Makes one star of several in a row: only a whole name of them means more.
fn collapsed(name: &[Piece]) -> Vec<Token> {
    let mut tokens = Vec::with_capacity(name.len());
    for piece in name {
        match piece {
            Piece::Token(Token::Star) if tokens.last() == Some(&Token::Star) => {}
            Piece::Token(token) => tokens.push(token.clone()),
            Piece::Slash => {}
        }
    }
    tokens
}

/// Cuts the spaces at the end of a line, but for those behind a backslash.
fn without_trailing_spaces(line: &[u8]) -> &[u8] {
    let mut end = 0;
    let mut bytes = line.iter().enumerate();
    while let Some((i, byte)) = bytes.next() {
        match byte {
            b' ' => {}
            b'\\' => end = bytes.next().map_or(line.len(), |(escaped, _)| escaped + 1),
            _ => end = i + 1,
        }
    }
    &line[..end]
}
