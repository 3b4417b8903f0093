//! Values of options as the user types them: sizes, durations, counts, choices.

use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use haul::transfer::{Timetable, time_of_day};
use jiff::civil::{Date, DateTime, Time};
use jiff::{Timestamp, ToSpan, Zoned};

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

/// Reads how many things something may be done to.
pub(crate) fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "give a whole number like 100; 0 is none".to_owned())
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

/// Reads a rate limit: a number of bytes a second, `off`, or a timetable.
pub(crate) fn limit(text: &str) -> Result<Timetable, String> {
    Timetable::parse(text, size)
}

/// Reads a long time: `90s`, `90m`, `2h`, `1d`, `1h30m`; at most a year.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let explain = || "give a time like 90m, 2h or 1h30m, at most 365d".to_owned();
    let (mut seconds, mut rest) = (0u64, text);
    while !rest.is_empty() {
        let unit = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(explain)?;
        let end = rest[unit..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| unit + at);
        let each = match &rest[unit..end] {
            "s" => 1,
            "m" | "min" => 60,
            "h" => 60 * 60,
            "d" => 24 * 60 * 60,
            _ => return Err(explain()),
        };
        let number: u64 = rest[..unit].parse().map_err(|_| explain())?;
        seconds = number.checked_mul(each).and_then(|more| seconds.checked_add(more)).ok_or_else(explain)?;
        rest = &rest[end..];
    }
    match seconds {
        1..=31_536_000 => Ok(Duration::from_secs(seconds)),
        _ => Err(explain()),
    }
}

/// A time to begin at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The next time that it is so late.
    TimeOfDay(Time),
    /// A time on the clock here.
    Local(DateTime),
    /// An instant.
    Instant(Timestamp),
}

impl Moment {
    /// Returns the instant that is meant, `now` being now. An hour that a change of clocks leaves out begins behind it.
    pub(crate) fn after(self, now: &Zoned) -> Timestamp {
        let zoned = |local: DateTime| local.to_zoned(now.time_zone().clone()).ok().map(|zoned| zoned.timestamp());
        let found = match self {
            Self::Instant(instant) => Some(instant),
            Self::Local(local) => zoned(local),
            Self::TimeOfDay(time) => {
                let days = (0..=2).filter_map(|day| now.date().checked_add(day.days()).ok());
                days.filter_map(|date| zoned(date.to_datetime(time))).find(|found| *found >= now.timestamp())
            }
        };
        found.unwrap_or(now.timestamp())
    }
}

/// Reads `22:30`, `2026-11-23`, `2026-11-23 02:00`, `2026-11-23T02:00:00`, or with the distance from UTC behind it.
pub(crate) fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(time) = time_of_day(text) {
        return Ok(Moment::TimeOfDay(time));
    }
    let is_date = text.len() >= 10 && text.as_bytes()[..10].iter().all(|byte| byte.is_ascii_digit() || *byte == b'-');
    let instant = || text.parse::<Timestamp>().ok().map(Moment::Instant);
    let local = || text.parse::<DateTime>().ok().map(Moment::Local);
    let date = || text.parse::<Date>().ok().map(|date| Moment::Local(date.to_datetime(Time::midnight())));
    let found = if is_date { instant().or_else(local).or_else(date) } else { None };
    found.ok_or_else(|| "give a time like 22:30, 2026-11-23T02:00 or 2026-11-23".to_owned())
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
    fn long_times_have_units() {
        for (text, seconds) in [("90s", 90), ("90m", 5400), ("2h", 7200), ("1d", 86_400), ("1h30m", 5400)] {
            assert_eq!(span(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "0s", "2", "h", "2h3", "366d", "-1h", "1.5h", "1 h", "99999999999999999999d", "2é"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_of_day_is_the_next_one() {
        let zoned = |text: &str| text.parse::<Zoned>().unwrap();
        let begin = |text: &str, now: &str| {
            let now = zoned(now);
            moment(text).unwrap().after(&now).to_zoned(now.time_zone().clone())
        };
        let now = "2026-11-22T22:00[Europe/Berlin]";
        assert_eq!(begin("22:30", now), zoned("2026-11-22T22:30[Europe/Berlin]"));
        assert_eq!(begin("22:00", now), zoned(now));
        assert_eq!(begin("2:00", now), zoned("2026-11-23T02:00[Europe/Berlin]"));
        // Between 2:00 and 3:00 there is no time on this day.
        assert_eq!(begin("2:30", "2026-03-29T01:00[Europe/Berlin]"), zoned("2026-03-29T03:30[Europe/Berlin]"));
        assert_eq!(begin("2026-12-01", now), zoned("2026-12-01T00:00[Europe/Berlin]"));
        assert_eq!(begin("2026-12-01 02:00", now), zoned("2026-12-01T02:00[Europe/Berlin]"));
        assert_eq!(begin("2026-12-01T02:00:00Z", now), zoned("2026-12-01T03:00[Europe/Berlin]"));
        for bad in ["", "22", "25:00", "tomorrow", "2026-13-01", "2026-11-23T", "12:00:00 x", "é:00", "20261123"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn counts_may_be_left_to_haul() {
        assert_eq!((count("auto"), count("8")), (Ok(Count(None)), Ok(Count(Some(8)))));
        assert!(["0", "1025", "-1", ""].iter().all(|bad| count(bad).is_err()));
    }

    #[test]
    fn numbers_are_whole() {
        assert_eq!((number("0"), number("100")), (Ok(0), Ok(100)));
        for bad in ["", "x", "-1", "1.5", "1k", "99999999999999999999"] {
            assert!(number(bad).is_err_and(|why| why.contains("whole number")), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,12}") {
            let _ = (size(&text), duration(&text), count(&text), span(&text), moment(&text), limit(&text));
        }
    }
}
