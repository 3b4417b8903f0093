//! The lines of `ssh_config`: keywords and arguments, quotes and comments.

use std::time::Duration;

/// One line that says something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) number: usize,
    /// In lower case.
    pub(super) keyword: String,
    pub(super) arguments: Vec<String>,
}

/// Keywords that take the rest of the line as it is.
const WHOLE: [&str; 5] = ["proxyjump", "proxycommand", "localcommand", "remotecommand", "knownhostscommand"];

/// Reads all lines.
///
/// # Errors
/// The number of a line with an open quote.
pub(super) fn lines(text: &str) -> Result<Vec<Line>, usize> {
    text.lines()
        .zip(1..)
        .filter_map(|(text, number)| {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                return None;
            }
            let end = text.find(|c: char| c.is_ascii_whitespace() || c == '=').unwrap_or(text.len());
            let (keyword, rest) = text.split_at(end);
            let rest = rest.trim_start();
            let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
            let keyword = keyword.trim_matches('"').to_ascii_lowercase();
            if WHOLE.contains(&keyword.as_str()) {
                return Some(Ok(Line { number, keyword, arguments: vec![rest.to_owned()] }));
            }
            Some(match arguments(rest) {
                Some(arguments) => Ok(Line { number, keyword, arguments }),
                None => Err(number),
            })
        })
        .collect()
}

/// Splits like OpenSSH's `argv_split`; `None` for an open quote.
fn arguments(text: &str) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
        match rest.peek() {
            None | Some('#') => return Some(found),
            Some(_) => {}
        }
        let (mut argument, mut quote) = (String::new(), None);
        while let Some(c) = rest.next() {
            match (c, quote) {
                ('\\', _) => {
                    match rest.next_if(|&next| matches!(next, '\'' | '"' | '\\') || (next == ' ' && quote.is_none())) {
                        Some(escaped) => argument.push(escaped),
                        None => argument.push('\\'),
                    }
                }
                (c, Some(open)) if c == open => quote = None,
                ('\'' | '"', None) => quote = Some(c),
                (' ' | '\t', None) => break,
                (c, _) => argument.push(c),
            }
        }
        if quote.is_some() {
            return None;
        }
        found.push(argument);
    }
}

/// Reads a time: seconds, or numbers with the units `s m h d w`.
pub(super) fn time(text: &str) -> Option<Duration> {
    let mut total = 0u64;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().ok()?;
        let mut behind = rest[digits..].chars();
        let seconds = match behind.next() {
            None | Some('s' | 'S') => 1,
            Some('m' | 'M') => 60,
            Some('h' | 'H') => 3600,
            Some('d' | 'D') => 24 * 3600,
            Some('w' | 'W') => 7 * 24 * 3600,
            Some(_) => return None,
        };
        total = total.checked_add(number.checked_mul(seconds)?)?;
        rest = behind.as_str();
    }
    Some(Duration::from_secs(total))
}

/// Reads `yes` or `no`, and what OpenSSH takes for them.
pub(super) fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" => Some(true),
        "no" | "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<(String, Vec<String>)> {
        lines(text).unwrap().into_iter().map(|line| (line.keyword, line.arguments)).collect()
    }

    #[test]
    fn reads_keywords_quotes_and_comments() {
        let one = |keyword: &str, arguments: &[&str]| {
            vec![(keyword.to_owned(), arguments.iter().map(|&argument| argument.to_owned()).collect())]
        };
        assert_eq!(read("  HostName=example.org  "), one("hostname", &["example.org"]));
        assert_eq!(read("Port = 2222 # there"), one("port", &["2222"]));
        assert_eq!(read("IdentityFile \"~/my keys/id\" '~/b'"), one("identityfile", &["~/my keys/id", "~/b"]));
        assert_eq!(read(r"IdentityFile ~/my\ key\n"), one("identityfile", &[r"~/my key\n"]));
        assert_eq!(read("\t# nothing\n\n \n"), []);
        assert_eq!(read("ProxyCommand nc -X \"a b\" %h # %p"), one("proxycommand", &["nc -X \"a b\" %h # %p"]));
        assert_eq!(read("Host a#b !c"), one("host", &["a#b", "!c"]));
        assert_eq!(lines("User a\nUser \"b"), Err(2));
    }

    #[test]
    fn reads_times() {
        for (text, seconds) in
            [("30", Some(30)), ("1m30", Some(90)), ("1h2M3s", Some(3723)), ("", None), ("x", None), ("5y", None)]
        {
            assert_eq!(time(text).map(|time| time.as_secs()), seconds, "{text}");
        }
    }

    proptest! {
        #[test]
        fn anything_can_be_read(text in "[ -~\t\n]{0,200}") {
            let _ = lines(&text);
            let _ = time(&text);
        }
    }
}
