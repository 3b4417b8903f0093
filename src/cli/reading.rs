//! What `digest` and `check` share: how they read, and what they need for it.

use std::sync::Arc;

use clap::Args;
use haul::endpoint::Endpoint;
use haul::plan::digest::{Places, Walking};
use haul::plan::sums::algorithm_named;
use haul::transfer::{Asked, Digester, Observer, Timetable};
use haul::transport::Algorithm;

use super::context::{Connections, Context};
use super::filters::FilterArgs;
use super::progress::{Progress, View};
use super::report::Result;
use super::terminal::can_draw;
use super::values::{Count, choice, count, limit, retries};

/// How files are read to be digested. The names are those of the transfer options, so that settings hold here as well.
#[derive(Debug, Args)]
#[command(next_help_heading = "Reading options")]
pub(crate) struct ReadingArgs {
    /// Read every file and digest it here, also where the server would tell its digest
    #[arg(long)]
    read: bool,

    /// Work on so many files at once
    #[arg(short, long, value_name = "N", default_value = "auto", value_parser = count)]
    jobs: Count,

    /// Read at most so many bytes a second, all files together: 500k, 5M, 1.5G (1k is 1024), off; also by the clock, as get
    #[arg(long, value_name = "RATE", value_parser = limit)]
    limit_rate: Option<Timetable>,

    /// Try a file so often again after a broken connection that brought it no further
    #[arg(long, value_name = "N", default_value = "5", value_parser = retries)]
    retries: u32,

    /// How to show progress, on standard error
    #[arg(long, value_name = "HOW", default_value = "auto", help_heading = "Output options",
        value_parser = choice(&[
        ("auto", "Bars on a terminal, nothing otherwise", View::Auto),
        ("bar", "Bars", View::Bars),
        ("plain", "A line for each file", View::Lines),
        ("json", "An object for each event", View::Json),
        ("none", "Nothing but errors", View::Nothing),
    ]))]
    progress: View,

    #[command(flatten)]
    filters: FilterArgs,
}

/// The progress that is shown until this is dropped.
pub(crate) struct Shown(Arc<Progress>);

impl Drop for Shown {
    fn drop(&mut self) {
        // What it came to is not for the bars to say.
        self.0.end(false);
    }
}

/// What reads the files.
pub(crate) struct Reading {
    /// Tells digests.
    pub(crate) digester: Arc<Digester>,
    /// How many at once.
    pub(crate) places: Places,
    /// How trees are walked.
    pub(crate) walking: Walking,
    /// What is shown meanwhile.
    pub(crate) shown: Shown,
}

impl ReadingArgs {
    /// Returns who computes digests.
    pub(crate) fn asked(&self) -> Asked {
        if self.read { Asked::Nobody } else { Asked::Server }
    }

    /// Puts together what was typed and the settings for these endpoints.
    pub(crate) async fn reading(
        &self,
        context: &Arc<Context>,
        connections: &mut Connections<'_>,
        endpoints: &[Endpoint],
        recursive: bool,
    ) -> Result<Reading> {
        let here = Endpoint::parse(".")?;
        let args = connections.for_transfer(endpoints, &here)?;
        let options = args.options()?;
        let filter = connections.filter(&self.filters, endpoints, &here).await?;
        if args.progress == View::Json {
            context.screen.speak_json();
        }
        let view = match args.progress {
            // Standard output tells every file already.
            View::Auto if !can_draw() => View::Nothing,
            view => view,
        };
        let progress = Progress::start_unrecorded(context, view, false, options.retries);
        let observer = Arc::clone(&progress) as Arc<dyn Observer>;
        Ok(Reading {
            shown: Shown(progress),
            digester: Arc::new(Digester::new(&options, self.asked()).watched_by(observer)),
            places: Places::new(options.jobs),
            walking: Walking { recursive, filter, retries: options.retries, retry_wait: options.retry_wait },
        })
    }
}

/// Reads the name of an algorithm, as people write it.
pub(crate) fn algorithm(text: &str) -> Result<Algorithm, String> {
    algorithm_named(text).ok_or_else(|| "give sha256, sha512, sha1, md5, crc32 or blake3".to_owned())
}
