//! Which blocks of `ssh_config` are about a host.

/// What criteria are compared with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    /// The host as it was typed.
    pub(super) original: &'a str,
    /// The host to connect to, as far as is known.
    pub(super) host: &'a str,
    pub(super) user: &'a str,
    pub(super) local_user: &'a str,
    /// Whether everything is read for a second time, for `Match final`.
    pub(super) is_final: bool,
}

/// Whether a block counts.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Yes,
    No,
    /// It has this criterion, about which nothing is known here.
    Unknown(String),
    /// It counts only when everything is read for a second time.
    Later,
}

/// Judges a `Host` line.
pub(super) fn host(patterns: &[String], subject: Subject<'_>) -> bool {
    let host = if subject.is_final { subject.host } else { subject.original };
    matches_list(patterns.iter().map(String::as_str), host)
}

/// Judges a `Match` line.
pub(super) fn criteria(words: &[String], subject: Subject<'_>) -> Verdict {
    let mut words = words.iter();
    let (mut verdict, mut later) = (true, false);
    let mut any = false;
    while let Some(word) = words.next() {
        any = true;
        let (name, inline) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let (negated, name) = name.strip_prefix('!').map_or((false, name), |name| (true, name));
        let name = name.to_ascii_lowercase();
        let right = match name.as_str() {
            "all" => true,
            "final" => {
                later |= !subject.is_final && !negated;
                subject.is_final
            }
            // Names are never made canonical here.
            "canonical" => false,
            _ => {
                let Some(list) = inline.or_else(|| words.next().cloned()) else { return Verdict::No };
                let lower = list.to_ascii_lowercase();
                match name.as_str() {
                    "host" => matches_list(lower.split(','), &subject.host.to_ascii_lowercase()),
                    "originalhost" => matches_list(lower.split(','), &subject.original.to_ascii_lowercase()),
                    "user" => matches_list(list.split(','), subject.user),
                    "localuser" => matches_list(list.split(','), subject.local_user),
                    _ if verdict => return Verdict::Unknown(name),
                    _ => false,
                }
            }
        };
        verdict &= right != negated;
    }
    match (verdict && any, later) {
        (true, _) => Verdict::Yes,
        (false, true) => Verdict::Later,
        (false, false) => Verdict::No,
    }
}

/// Returns whether a pattern matches, and none that is negated.
fn matches_list<'a>(patterns: impl Iterator<Item = &'a str>, name: &str) -> bool {
    let mut matched = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(negated) if matches_pattern(name.as_bytes(), negated.as_bytes()) => return false,
            Some(_) => {}
            None => matched |= matches_pattern(name.as_bytes(), pattern.as_bytes()),
        }
    }
    matched
}

/// Matches `*` and `?`; goes back to the last `*` only, so that no pattern takes exponential time.
pub(crate) fn matches_pattern(name: &[u8], pattern: &[u8]) -> bool {
    let (mut n, mut p) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => (n, p) = (n + 1, p + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (n, p) = (from + 1, at + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: Subject<'_> =
        Subject { original: "web", host: "web.example.org", user: "deploy", local_user: "me", is_final: false };

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn hosts_by_pattern_and_negation() {
        for (patterns, expected) in [
            ("web", true),
            ("w?b", true),
            ("*", true),
            ("db *b", true),
            ("* !web", false),
            ("!web *", false),
            ("!db", false),
            ("web.example.org", false),
            ("WEB", false),
        ] {
            assert_eq!(host(&words(patterns), SUBJECT), expected, "{patterns}");
        }
    }

    #[test]
    fn match_by_criteria() {
        for (text, expected) in [
            ("all", Verdict::Yes),
            ("host *.example.org", Verdict::Yes),
            ("host *.example.org,!web.*", Verdict::No),
            ("host web", Verdict::No),
            ("originalhost WEB", Verdict::Yes),
            ("originalhost web user deploy localuser me", Verdict::Yes),
            ("originalhost web user root", Verdict::No),
            ("!user root", Verdict::Yes),
            ("user=deploy", Verdict::Yes),
            ("host", Verdict::No),
            ("", Verdict::No),
            ("canonical", Verdict::No),
            ("final", Verdict::Later),
            ("exec true", Verdict::Unknown("exec".into())),
            // The command is not even looked at.
            ("user root exec true", Verdict::No),
        ] {
            assert_eq!(criteria(&words(text), SUBJECT), expected, "{text}");
        }
        let last = Subject { is_final: true, ..SUBJECT };
        assert_eq!(criteria(&words("final host web.*"), last), Verdict::Yes);
        assert!(host(&words("*.example.org"), last) && !host(&words("web"), last));
    }
}
