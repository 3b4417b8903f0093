//! What `-v` shows of the library's trace events, on standard error above the bars.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Instant;

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::screen::Screen;

/// Starts logging. Only haul's own events are shown, never those of the libraries below: suppaftp logs passwords.
pub(crate) fn start(screen: &Arc<Screen>, quiet: bool, verbose: u8) {
    let level = match (quiet, verbose) {
        (true, _) => LevelFilter::ERROR,
        (_, 0) => LevelFilter::WARN,
        (_, 1) => LevelFilter::INFO,
        (_, 2) => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(Lines(Arc::clone(screen)))
        .with_ansi(false)
        .event_format(Plain { started: (verbose > 1).then(Instant::now) });
    // Fails only when somebody has set a subscriber before: nobody has.
    let _ = tracing_subscriber::registry().with(lines).with(Targets::new().with_target("haul", level)).try_init();
}

/// `haul: warning: text`, like every other line of ours; with the time since the start where there are many.
struct Plain {
    started: Option<Instant>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>, N: for<'a> FormatFields<'a> + 'static> FormatEvent<S, N> for Plain {
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let word = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        match self.started {
            Some(started) => write!(to, "haul: {:.3} {word}: ", started.elapsed().as_secs_f64())?,
            None => write!(to, "haul: {word}: ")?,
        }
        context.format_fields(to.by_ref(), event)?;
        writeln!(to)
    }
}

struct Lines(Arc<Screen>);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { screen: &self.0, text: Vec::new() }
    }
}

struct Line<'a> {
    screen: &'a Screen,
    text: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.screen.line(String::from_utf8_lossy(&self.text).trim_end());
    }
}
