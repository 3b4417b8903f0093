//! Values of options as the user types them: sizes, durations, counts, choices.

use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

/// A number the user may leave to haul.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) Option<usize>);

/// Reads a number from 1 to 1024, or `auto`.
pub(crate) fn count(text: &str) -> Result<Count, String> {
    match text {
        "auto" => Ok(Count(None)),
        _ => match text.parse() {
            Ok(number @ 1..=1024) => Ok(Count(Some(number))),
            _ => Err("give a number from 1 to 1024, or auto".into()),
        },
    }
}

/// Reads how often something may be tried again.
pub(crate) fn retries(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "give a whole number like 5; 0 is never".to_owned())
}

/// Reads a number of bytes: `1500`, `64k`, `5M`, `1.5G`; the letters count in powers of 1024, as curl's do.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let explain = || "give a size like 500k, 5M or 1.5G (1k is 1024)".to_owned();
    let (number, unit) = match text.char_indices().last().ok_or_else(explain)? {
        (_, digit) if digit.is_ascii_digit() => (text, 1u64),
        (end, 'b' | 'B') => (&text[..end], 1),
        (end, 'k' | 'K') => (&text[..end], 1 << 10),
        (end, 'm' | 'M') => (&text[..end], 1 << 20),
        (end, 'g' | 'G') => (&text[..end], 1 << 30),
        (end, 't' | 'T') => (&text[..end], 1 << 40),
        _ => return Err(explain()),
    };
    if !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(explain());
    }
    // Whole numbers stay exact; a fraction of a unit need not be.
    let size = match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(unit).ok_or_else(explain)?,
        Err(_) => {
            let bytes = number.parse::<f64>().map_err(|_| explain())? * unit as f64;
            if bytes >= u64::MAX as f64 {
                return Err(explain());
            }
            #[allow(clippy::cast_sign_loss)] // only digits and a point were let through
            let bytes = bytes as u64;
            bytes
        }
    };
    if size == 0 { Err("it must be more than 0".into()) } else { Ok(size) }
}

/// Reads a time: `30` and `30s` are seconds, then `500ms`, `2m`, `1h`; at most a day.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let milliseconds = match &text[digits.len()..] {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        _ => 0,
    };
    let time = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(milliseconds));
    match time {
        Some(time @ 1..=86_400_000) => Ok(Duration::from_millis(time)),
        _ => Err("give a time like 30, 30s or 2m, at most 24h".into()),
    }
}

/// Reads one of several words, each with its explanation for the help, as the value that it stands for.
pub(crate) fn choice<T: Copy + Send + Sync + 'static>(
    words: &'static [(&'static str, &'static str, T)],
) -> impl TypedValueParser<Value = T> {
    let values = words.iter().map(|(word, help, _)| match help.is_empty() {
        true => PossibleValue::new(word),
        false => PossibleValue::new(word).help(help),
    });
    PossibleValuesParser::new(values).try_map(move |chosen| {
        words.iter().find(|(word, _, _)| *word == chosen).map(|(_, _, value)| *value).ok_or("not one of the words")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_binary() {
        for (text, bytes) in [
            ("1", 1),
            ("1500", 1500),
            ("64k", 65_536),
            ("5M", 5 << 20),
            ("1.5G", 3 << 29),
            ("0.5k", 512),
            ("2T", 2 << 40),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "k", "0", "-1", "1e3", "5 M", "5MiB", "inf", "NaN", "99999999999T", "1..5M", "0.0001", "é"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_have_units() {
        for (text, milliseconds) in
            [("30", 30_000), ("30s", 30_000), ("2m", 120_000), ("500ms", 500), ("1h", 3_600_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in ["", "s", "0", "-5", "25h", "1d", "1.5", "5 s", "99999999999999999999"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn counts_may_be_left_to_haul() {
        assert_eq!((count("auto"), count("8")), (Ok(Count(None)), Ok(Count(Some(8)))));
        assert!(["0", "1025", "-1", ""].iter().all(|bad| count(bad).is_err()));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,12}") {
            let _ = (size(&text), duration(&text), count(&text));
        }
    }
}
