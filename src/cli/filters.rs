//! Options that say what of a tree is taken; for every command that walks one.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use haul::plan::{Filter, FilterBuilder};
use haul::{Error, ErrorKind};
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use super::context::{Context, usage, without_password};
use super::report::Result;
use super::transfer::unless;
use super::values::size;

/// The longest list of paths, and the longest file of patterns, that is read.
const LONGEST_LIST: u64 = 1 << 30;
const LONGEST_PATTERNS: u64 = 4 << 20;

/// Patterns, bounds and lists, with the order in which the patterns were typed.
#[derive(Debug)]
pub(crate) struct FilterArgs {
    typed: Typed,
    /// The patterns in their order.
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
enum Rule {
    Include(OsString),
    Exclude(OsString),
    From(PathBuf),
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Filter options")]
struct Typed {
    /// Leave out what this pattern matches, and all below a directory that it matches
    ///
    /// Patterns are those of gitignore: *.tmp matches at any depth, /build and docs/*.pdf from the top of the source,
    /// cache/ only directories, **/ any number of them. Of several patterns the last that matches decides. A directory
    /// that is left out is not listed, so nothing below it can be included. As a setting it goes before all that is typed,
    /// unless an --exclude is typed.
    #[arg(long, value_name = "PATTERN", value_parser = pattern())]
    exclude: Vec<OsString>,

    /// Take what this pattern matches, though one before it leaves it out
    ///
    /// It is the negation (!) of gitignore, so the order of --include, --exclude and --filter-from counts. If the first
    /// of them is an --include, only what is included is taken: files that no pattern matches are left out, and a
    /// directory is gone into only if it may hold a match. All below a directory that is included is taken.
    #[arg(long, value_name = "PATTERN", value_parser = pattern())]
    include: Vec<OsString>,

    /// Read patterns from a file of gitignore's syntax: ! includes, # begins a comment
    #[arg(long, value_name = "FILE")]
    filter_from: Vec<PathBuf>,

    #[command(flatten)]
    _haulignore: HaulignoreArgs,

    /// Leave out smaller files: 500k, 5M, 1.5G
    #[arg(long, value_name = "SIZE", value_parser = size)]
    min_size: Option<u64>,

    /// Leave out larger files; one whose size the server doesn't tell is taken
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_size: Option<u64>,

    /// Leave out files that were changed before: 2d (ago), 36h, 2026-11-20, 2026-11-20T08:00:00Z, @1763625600
    ///
    /// A date without a zone is this machine's. Where a server tells times too coarsely to decide, haul asks for the exact
    /// one, and takes the file if there is none; so it does with --older.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    newer: Option<SystemTime>,

    /// Leave out files that were changed since, written as for --newer
    #[arg(long, value_name = "TIME", value_parser = moment)]
    older: Option<SystemTime>,

    /// Go so deep and no deeper; 1 takes the files right in the source
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_depth: Option<u32>,

    /// Look only at the paths that this file lists (- is standard input), relative to the source
    ///
    /// One a line, or separated by NUL. Nothing else is looked at; what isn't there fails by name. A directory in the
    /// list is taken with all that is in it (with -r). Patterns, sizes and times are heeded as well, but .haulignore only
    /// inside such directories.
    #[arg(long, value_name = "FILE")]
    files_from: Option<PathBuf>,
}

/// Filters that can be settings.
#[derive(Debug, Args)]
pub(crate) struct FilterSettings {
    #[arg(long, value_parser = pattern())]
    exclude: Vec<OsString>,

    #[command(flatten)]
    haulignore: HaulignoreArgs,
}

/// Whether the files of patterns in a tree are heeded.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Filter options")]
struct HaulignoreArgs {
    /// Take .haulignore files like any others, instead of leaving out what they say
    ///
    /// A file of this name in the source has gitignore's syntax and holds for its directory and all below. What is typed
    /// goes before it.
    #[arg(long)]
    no_haulignore: bool,
}

impl Args for FilterArgs {
    fn augment_args(command: Command) -> Command {
        Typed::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Typed::augment_args_for_update(command)
    }
}

impl FromArgMatches for FilterArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let typed = Typed::from_arg_matches(matches)?;
        let mut rules = Vec::new();
        let mut add =
            |id: &str, values: Vec<Rule>| rules.extend(matches.indices_of(id).into_iter().flatten().zip(values));
        add("exclude", typed.exclude.iter().cloned().map(Rule::Exclude).collect());
        add("include", typed.include.iter().cloned().map(Rule::Include).collect());
        add("filter_from", typed.filter_from.iter().cloned().map(Rule::From).collect());
        rules.sort_by_key(|(index, _)| *index);
        Ok(Self { typed, rules: rules.into_iter().map(|(_, rule)| rule).collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl FilterArgs {
    /// Reads the files that the options name, and makes the filter.
    ///
    /// # Errors
    /// `Usage` for files that can't be read and patterns that can't match; `Cancelled` while a list comes from a pipe.
    pub(crate) async fn filter(&self, settings: &FilterSettings, context: &Context) -> Result<Filter> {
        let typed = &self.typed;
        let mut filter = Filter::builder();
        if typed.exclude.is_empty() {
            let patterns = settings.exclude.iter().map(|pattern| pattern.as_bytes());
            filter = patterns.fold(filter, FilterBuilder::exclude_by_default);
        }
        filter = self.rules.iter().try_fold(filter, add)?;
        if !settings.haulignore.no_haulignore {
            filter = filter.heed_haulignore();
        }
        filter = typed.min_size.into_iter().fold(filter, FilterBuilder::min_size);
        filter = typed.max_size.into_iter().fold(filter, FilterBuilder::max_size);
        filter = typed.newer.into_iter().fold(filter, FilterBuilder::newer_than);
        filter = typed.older.into_iter().fold(filter, FilterBuilder::older_than);
        filter = typed.max_depth.into_iter().fold(filter, FilterBuilder::max_depth);
        if let Some(file) = typed.files_from.clone() {
            let name = without_password(file.as_os_str());
            let reading = tokio::task::spawn_blocking(move || read(&file, LONGEST_LIST));
            let text = unless(&context.cancel, async {
                Ok(reading
                    .await
                    .map_err(|e| Error::new(ErrorKind::Other, "the list was not read").with_source(e))??)
            });
            filter = filter.only_paths(&name, &text.await?);
        }
        Ok(filter.build()?)
    }

    /// Returns whether a list names the paths.
    pub(crate) fn list_paths(&self) -> bool {
        self.typed.files_from.is_some()
    }

    /// Refuses filters for what is no tree, and no file of one.
    ///
    /// # Errors
    /// `Usage` if one was typed.
    pub(crate) fn refuse(&self, with: &str) -> Result<(), Error> {
        let typed = &self.typed;
        let bounds = typed.min_size.is_some() || typed.max_size.is_some() || typed.max_depth.is_some();
        let times = typed.newer.is_some() || typed.older.is_some();
        match self.rules.is_empty() && !bounds && !times && typed.files_from.is_none() {
            true => Ok(()),
            false => Err(usage(format!("filters don't go with {with}"))),
        }
    }
}

/// Reads a pattern; one that can never match is a mistake.
fn pattern() -> impl TypedValueParser<Value = OsString> {
    OsStringValueParser::new().try_map(|pattern| {
        let read = Filter::builder().exclude(pattern.as_bytes()).build();
        read.map(|_| pattern).map_err(|error| error.message().to_owned())
    })
}

fn add(filter: FilterBuilder, rule: &Rule) -> Result<FilterBuilder, Error> {
    Ok(match rule {
        Rule::Include(pattern) => filter.include(pattern.as_bytes()),
        Rule::Exclude(pattern) => filter.exclude(pattern.as_bytes()),
        Rule::From(file) => filter.lines(&without_password(file.as_os_str()), &read(file, LONGEST_PATTERNS)?),
    })
}

fn read(file: &Path, longest: u64) -> Result<Vec<u8>, Error> {
    let failed = |e| Error::io("read the file", e).at(without_password(file.as_os_str())).with_kind(ErrorKind::Usage);
    let mut input: Box<dyn Read> = match file == Path::new("-") {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(file).map_err(failed)?),
    };
    let mut text = Vec::new();
    input.by_ref().take(longest + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > longest {
        return Err(failed(std::io::Error::other(format!("it is longer than {} MiB", longest >> 20))));
    }
    Ok(text)
}

/// Reads an age (`2d`, `36h`) or a time: a date, RFC 3339 (without a zone: this machine's), `@` and seconds since 1970.
pub(crate) fn moment(text: &str) -> Result<SystemTime, String> {
    let explain = || "give an age like 36h, 2d or 3w, or a time like 2026-11-20, 2026-11-20T08:00:00Z or @1763625600";
    if let Some(age) = age(text) {
        return SystemTime::now().checked_sub(age).ok_or_else(|| "that is too long ago".to_owned());
    }
    if let Some(seconds) = text.strip_prefix('@') {
        let timestamp = seconds.parse().ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
        return timestamp.map(SystemTime::from).ok_or_else(|| explain().to_owned());
    }
    if let Ok(timestamp) = text.parse::<jiff::Timestamp>() {
        return Ok(timestamp.into());
    }
    let civil = match text.parse::<Date>() {
        Ok(date) if text.len() == "2026-11-20".len() => Ok(date.to_datetime(jiff::civil::Time::midnight())),
        _ => text.parse::<DateTime>(),
    };
    let zoned = civil.ok().and_then(|civil| civil.to_zoned(TimeZone::system()).ok());
    zoned.map(|zoned| zoned.timestamp().into()).ok_or_else(|| explain().to_owned())
}

/// Reads an age: a whole number of seconds, minutes, hours, days or weeks.
fn age(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return None,
    };
    let whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = whole.then(|| digits.parse::<u64>().ok()).flatten()?;
    number.checked_mul(unit).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn since_1970(time: SystemTime) -> u64 {
        time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
    }

    #[test]
    fn times_are_ages_dates_or_seconds() {
        assert_eq!(moment("@1763625600").map(since_1970), Ok(1_763_625_600));
        assert_eq!(moment("2025-11-20T08:00:00Z").map(since_1970), Ok(1_763_625_600));
        assert_eq!(moment("2025-11-20T09:00:00+01:00").map(since_1970), Ok(1_763_625_600));
        let midnight = moment("2025-11-20").unwrap();
        assert_eq!(moment("2025-11-20T00:00:00"), Ok(midnight));
        assert_eq!(moment("2025-11-20 08:30"), Ok(midnight + Duration::from_secs(8 * 3600 + 1800)));
        for (text, seconds) in [("90s", 90), ("5m", 300), ("36h", 129_600), ("2d", 172_800), ("1w", 604_800)] {
            assert_eq!(age(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for bad in
            ["", "d", "2", "-2d", "1.5d", "2 d", "2y", "@", "@x", "yesterday", "2025-13-01", "2025-11-31", "@9e9"]
        {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_time_or_refused(text in "\\PC{0,24}|@?-?[0-9]{1,20}[a-z]?") {
            let _ = moment(&text);
        }
    }
}
