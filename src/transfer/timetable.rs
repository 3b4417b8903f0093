//! A rate limit that depends on the time of day and the day of the week.

use jiff::civil::{Time, Weekday};
use jiff::{Timestamp, ToSpan, Zoned};

/// More would be no timetable that anybody wrote.
const MOST_ENTRIES: usize = 200;
const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];
const EVERY_DAY: u8 = 0x7f;

/// How many bytes a second may pass when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timetable {
    entries: Vec<Entry>,
    /// What counts where there are no entries.
    always: Option<u64>,
}

/// From this time on, on these days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// Bit 0 is Monday.
    days: u8,
    from: Time,
    rate: Option<u64>,
}

impl Timetable {
    /// Makes one that is the same at all times; `None` limits nothing.
    pub fn always(rate: Option<u64>) -> Self {
        Self { entries: Vec::new(), always: rate }
    }

    /// Reads `2M`, `off`, or entries with commas between them, `[DAY[-DAY]] HH:MM RATE`, each of which counts until the
    /// next begins: `08:00 2M, 18:00 off`, `Mon-Fri 08:00 2M, Mon-Fri 18:00 off`. `rate` reads a rate.
    ///
    /// # Errors
    /// A sentence without a full stop.
    pub fn parse(text: &str, rate: impl Fn(&str) -> Result<u64, String>) -> Result<Self, String> {
        let rate = |word: &str| if word == "off" { Ok(None) } else { rate(word).map(Some) };
        if !text.contains([',', ' ', ':']) {
            return rate(text).map(Self::always);
        }
        // A blank in a rate doesn't make a timetable of it.
        if text.split_once(' ').is_some_and(|(number, _)| !text.contains([',', ':']) && number.parse::<f64>().is_ok()) {
            return Err("write a rate without blanks, like 5M, or a timetable like 08:00 2M, 18:00 off".into());
        }
        let entries = text.split(',').map(|item| entry(item, rate)).collect::<Result<Vec<_>, _>>()?;
        if entries.len() > MOST_ENTRIES {
            return Err(format!("a timetable has at most {MOST_ENTRIES} entries"));
        }
        for (number, entry) in entries.iter().enumerate() {
            if entries[..number].iter().any(|other| other.from == entry.from && other.days & entry.days != 0) {
                return Err(format!("{} is in it twice", entry.from.strftime("%H:%M")));
            }
        }
        Ok(Self { entries, always: None })
    }

    /// Returns the limit in bytes a second that counts at a time, on its clock and in its zone; `None` is no limit.
    pub fn at(&self, now: &Zoned) -> Option<u64> {
        let mut begun = self.beginnings(now);
        begun.retain(|(begin, _)| *begin <= now.timestamp());
        begun.last().map_or(self.always, |(_, rate)| *rate)
    }

    /// Returns when the next entry begins.
    pub fn next(&self, now: &Zoned) -> Option<Timestamp> {
        self.beginnings(now).into_iter().map(|(begin, _)| begin).find(|begin| *begin > now.timestamp())
    }

    /// Returns whether anything may be limited at any time.
    pub fn is_limit(&self) -> bool {
        self.always.is_some() || self.entries.iter().any(|entry| entry.rate.is_some())
    }

    /// Returns when entries begin, a week and a bit before and after, in order. An hour that a change of clocks leaves out
    /// begins behind it, one that comes twice begins the first time.
    fn beginnings(&self, now: &Zoned) -> Vec<(Timestamp, Option<u64>)> {
        let mut beginnings = Vec::new();
        for day in -8..=8 {
            let Ok(date) = now.date().checked_add(day.days()) else { continue };
            let today = 1 << date.weekday().to_monday_zero_offset();
            for entry in self.entries.iter().filter(|entry| entry.days & today != 0) {
                if let Ok(begin) = date.to_datetime(entry.from).to_zoned(now.time_zone().clone()) {
                    beginnings.push((begin.timestamp(), entry.rate));
                }
            }
        }
        beginnings.sort_by_key(|(begin, _)| *begin);
        beginnings
    }
}

fn entry(item: &str, rate: impl Fn(&str) -> Result<Option<u64>, String>) -> Result<Entry, String> {
    let words: Vec<&str> = item.split_whitespace().collect();
    let (days, from, word) = match words.as_slice() {
        [from, word] => (EVERY_DAY, *from, *word),
        [days, from, word] => (self::days(days)?, *from, *word),
        _ => return Err("write entries like 08:00 2M or Mon-Fri 18:00 off, with commas between them".into()),
    };
    Ok(Entry { days, from: time(from)?, rate: rate(word)? })
}

fn days(text: &str) -> Result<u8, String> {
    let day = |name: &str| {
        let found = DAYS.iter().find(|(known, _)| name.eq_ignore_ascii_case(known));
        found
            .map(|(_, day)| day.to_monday_zero_offset())
            .ok_or_else(|| "days are Mon, Tue, Wed, Thu, Fri, Sat, Sun, or Mon-Fri for several".to_owned())
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (mut at, last) = (day(first)?, day(last)?);
    let mut days = 1 << at;
    while at != last {
        at = (at + 1) % 7;
        days |= 1 << at;
    }
    Ok(days)
}

/// Reads `8:00` or `08:00`.
pub fn time(text: &str) -> Result<Time, String> {
    let explain = || "give a time of day like 08:00 or 22:30".to_owned();
    let (hour, minute) = text.split_once(':').ok_or_else(explain)?;
    let number = |text: &str, length: std::ops::RangeInclusive<usize>| {
        let fits = length.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i8>().ok().filter(|_| fits).ok_or_else(explain)
    };
    Time::new(number(hour, 1..=2)?, number(minute, 2..=2)?, 0, 0).map_err(|_| explain())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(text: &str) -> Result<u64, String> {
        text.parse().map_err(|_| "no number".into())
    }

    fn table(text: &str) -> Timetable {
        Timetable::parse(text, rate).unwrap()
    }

    fn zoned(text: &str) -> Zoned {
        text.parse().unwrap()
    }

    #[test]
    fn an_entry_counts_until_the_next_and_over_midnight() {
        let table = table("08:00 2, 18:00 off, 22:30 5");
        let at = |time: &str| table.at(&zoned(&format!("2026-11-22T{time}[Europe/Berlin]")));
        assert_eq!((at("07:59:59"), at("08:00"), at("17:59:59")), (Some(5), Some(2), Some(2)));
        assert_eq!((at("18:00"), at("22:30"), at("00:00")), (None, Some(5), Some(5)));
        let next = table.next(&zoned("2026-11-22T23:00[Europe/Berlin]")).unwrap();
        assert_eq!(next, zoned("2026-11-23T08:00[Europe/Berlin]").timestamp());
    }

    #[test]
    fn days_of_the_week_wrap() {
        // 2026-11-22 is a Sunday.
        let table = table("Mon-Fri 08:00 2, mon-fri 18:00 off, Sat-Sun 10:00 7");
        let at = |time: &str| table.at(&zoned(&format!("{time}[UTC]")));
        assert_eq!((at("2026-11-20T09:00"), at("2026-11-20T19:00")), (Some(2), None));
        assert_eq!((at("2026-11-21T09:00"), at("2026-11-21T10:00"), at("2026-11-22T12:00")), (None, Some(7), Some(7)));
        assert_eq!((at("2026-11-23T07:59"), at("2026-11-23T08:00")), (Some(7), Some(2)));
        let weekly = Timetable::parse("Fri-Mon 12:00 1, Wed 12:00 3", rate).unwrap();
        assert_eq!(weekly.at(&zoned("2026-11-24T12:00[UTC]")), Some(1), "Tuesday still has Monday's");
        assert_eq!(weekly.at(&zoned("2026-11-26T12:00[UTC]")), Some(3), "Thursday has Wednesday's");
    }

    #[test]
    fn clocks_that_change_lose_no_entry_and_see_none_twice() {
        let table = table("02:30 1, 03:30 2");
        // At 2:00 on 29 March 2026 it is 3:00; at 3:00 on 25 October it is 2:00.
        let spring = zoned("2026-03-29T01:59[Europe/Berlin]");
        let first = table.next(&spring).unwrap();
        assert_eq!(first, zoned("2026-03-29T03:30[Europe/Berlin]").timestamp());
        let autumn = zoned("2026-10-25T02:00+02:00[Europe/Berlin]");
        let first = table.next(&autumn).unwrap();
        assert_eq!(first, zoned("2026-10-25T02:30+02:00[Europe/Berlin]").timestamp());
        let second = table.next(&zoned("2026-10-25T02:30+02:00[Europe/Berlin]")).unwrap();
        assert_eq!(second, zoned("2026-10-25T03:30+01:00[Europe/Berlin]").timestamp());
        assert_eq!(table.at(&zoned("2026-10-25T02:10+01:00[Europe/Berlin]")), Some(1));
    }

    #[test]
    fn one_rate_is_a_timetable_too() {
        let now = zoned("2026-11-22T12:00[UTC]");
        assert_eq!((table("5").at(&now), table("5").next(&now), table("off").at(&now)), (Some(5), None, None));
        assert!(table("5").is_limit() && table("08:00 off, 09:00 1").is_limit() && !table("08:00 off").is_limit());
    }

    #[test]
    fn slips_are_refused() {
        for bad in [
            "",
            " ",
            ",",
            "08:00",
            "2M",
            "08:00 2,",
            "25:00 1",
            "08:60 1",
            "8 1",
            "08:0 1",
            "+8:00 1",
            "Mun 08:00 1",
            "Mon- 08:00 1",
            "Mon-Fri-Sat 08:00 1",
            "08:00 1, 08:00 2",
            "08:00 1, Mon 8:00 2",
            "08:00 1 08:00 2",
            "5, 08:00 1",
        ] {
            assert!(Timetable::parse(bad, rate).is_err(), "{bad:?}");
        }
        let many = vec!["08:00 1"; MOST_ENTRIES + 1].join(",");
        assert!(Timetable::parse(&many, rate).unwrap_err().contains("at most"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[MonFri0-9:, -]{0,30}|\\PC{0,20}") {
            let _ = Timetable::parse(&text, rate);
        }

        /// Following it from change to change never gets stuck, and each moment has the rate of the change before.
        #[test]
        fn changes_follow_one_another(
            entries in proptest::collection::btree_map((0..7i8, 0..24i8, 0..60i8), 0..9u64, 1..6),
            second in 1_700_000_000i64..1_900_000_000,
            zone in prop_oneof![Just("UTC"), Just("Europe/Berlin"), Just("America/St_Johns"), Just("Australia/Lord_Howe")],
        ) {
            let text = entries.iter().map(|((day, hour, minute), rate)| {
                format!("{} {hour}:{minute:02} {}", DAYS[*day as usize].0, if *rate == 0 { "off".into() } else { rate.to_string() })
            });
            let table = table(&text.collect::<Vec<_>>().join(", "));
            let mut now = Timestamp::from_second(second).unwrap().in_tz(zone).unwrap();
            for _ in 0..10 {
                let next = table.next(&now).unwrap().to_zoned(now.time_zone().clone());
                prop_assert!(next > now);
                let before = next.checked_sub(1.nanosecond()).unwrap();
                prop_assert_eq!(table.at(&before), table.at(&now));
                now = next;
            }
        }
    }
}
