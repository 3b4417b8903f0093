//! Times as FTP writes them: UTC, `YYYYMMDDHHMMSS`, perhaps with a fraction (RFC 3659, section 2.3).

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Reads a time; digits of a fraction beyond nanoseconds don't count.
pub(super) fn parse_time(text: &[u8]) -> Option<SystemTime> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if whole.len() != 14 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let number = |from: usize, to: usize| whole[from..to].parse::<i16>().ok();
    let small = |from: usize| number(from, from + 2).and_then(|n| i8::try_from(n).ok());
    let nanos = format!("{fraction:0<9}")[..9].parse().ok()?;
    // A leap second is shown as the second before it, as system clocks do.
    let second = small(12)?;
    let second = if second == 60 { 59 } else { second };
    let time = DateTime::new(number(0, 4)?, small(4)?, small(6)?, small(8)?, small(10)?, second, nanos).ok()?;
    Some(SystemTime::from(time.to_zoned(TimeZone::UTC).ok()?.timestamp()))
}

/// Writes a time in whole seconds, rounded down.
pub(super) fn format_time(seconds: i64) -> String {
    stamp(seconds).strftime("%Y%m%d%H%M%S").to_string()
}

/// Returns an instant that can be written in these formats: years beyond 9999 have no place there.
pub(in crate::serve) fn stamp(seconds: i64) -> Timestamp {
    let limit = 253_402_207_200;
    Timestamp::from_second(seconds.clamp(-limit / 10, limit)).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn times_are_utc() {
        assert_eq!(parse_time(b"20010909014640").unwrap(), UNIX_EPOCH + Duration::from_secs(1_000_000_000));
        assert_eq!(parse_time(b"19700101000001.25").unwrap(), UNIX_EPOCH + Duration::from_millis(1250));
        assert_eq!(format_time(1_000_000_000), "20010909014640");
        for bad in ["", "2001", "20011309014640", "2001090901464x", "20010909014640.x", "20230229000000"] {
            assert!(parse_time(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_and_any_time_will_do(text: Vec<u8>, digits in "[0-9]{14}(\\.[0-9]{0,12})?", seconds: i64) {
            let _ = (parse_time(&text), parse_time(digits.as_bytes()));
            let _ = format_time(seconds);
        }

        #[test]
        fn what_is_written_is_read_again(seconds in -2_000_000_000i64..200_000_000_000) {
            let time = parse_time(format_time(seconds).as_bytes()).unwrap();
            prop_assert_eq!(crate::transport::Mtime::from(time).unix(), seconds);
        }
    }
}
