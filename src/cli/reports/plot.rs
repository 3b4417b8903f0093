//! The timeline as a drawing: throughput above, files or jobs below, on one axis of time.

use std::time::Duration;

use super::End;
use super::html::escaped;
use super::timeline::{MOST_SPANS, is_bad};
use crate::cli::format::{bytes, duration, fit};
use crate::cli::report::Exit;

const WIDTH: f64 = 960.0;
/// Names stand left of this.
const LEFT: f64 = 190.0;
const RIGHT: f64 = 12.0;
const CURVE: f64 = 110.0;
const ROW: f64 = 17.0;
/// Names are cut to so many columns.
const COLUMNS: usize = 26;
/// So many lines of time at most.
const MOST_TICKS: f64 = 8.0;
/// Seconds between two lines of time.
const STEPS: [f64; 22] = [
    0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
    7200.0, 14_400.0, 43_200.0, 86_400.0,
];

/// A drawing that grows downwards.
struct Drawing {
    svg: String,
    /// The seconds that are drawn.
    time: f64,
    y: f64,
}

/// Draws a run.
pub(super) fn draw(end: &End<'_>) -> String {
    let time = end.elapsed().as_secs_f64().max(0.01);
    let mut drawing = Drawing { svg: String::new(), time, y: 22.0 };
    drawing.throughput(end);
    if end.jobs.len() > 1 {
        drawing.jobs(end);
    }
    if end.timeline.files <= MOST_SPANS as u64 {
        drawing.files(end);
    } else {
        drawing.in_flight(end);
    }
    drawing.finish()
}

impl Drawing {
    fn x(&self, seconds: f64) -> f64 {
        LEFT + (seconds / self.time).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn throughput(&mut self, end: &End<'_>) {
        let timeline = end.timeline;
        let most = timeline.bins.iter().map(|bin| bin.bytes).max().unwrap_or(0);
        let rate = (most as f64 / timeline.width) as u64;
        let curve = timeline.bins.iter().map(|bin| bin.bytes as f64).collect::<Vec<_>>();
        self.curve("moved", &format!("at most {}/s", bytes(rate)), "moved", &curve, most as f64, timeline.width);
    }

    fn in_flight(&mut self, end: &End<'_>) {
        let timeline = end.timeline;
        let curve: Vec<f64> = timeline.bins.iter().map(|bin| bin.busy / timeline.width).collect();
        let most = curve.iter().copied().fold(0.0, f64::max);
        let label = format!("at most {most:.0}");
        let top = self.y;
        self.curve("files under way", &label, "flying", &curve, most, timeline.width);
        for (number, bin) in timeline.bins.iter().enumerate().filter(|(_, bin)| bin.failed > 0) {
            let x = self.x((number as f64 + 0.5) * timeline.width);
            let text = format!("{} failed", bin.failed);
            self.svg.push_str(&format!(
                "<line class=\"failed\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top:.1}\" y2=\"{:.1}\"><title>{text}</title></line>\n",
                top + CURVE
            ));
        }
    }

    /// Draws values that each stand for a piece of time.
    fn curve(&mut self, label: &str, most_label: &str, class: &str, values: &[f64], most: f64, width: f64) {
        let bottom = self.y + CURVE;
        let mut points = format!("{LEFT:.1},{bottom:.1}");
        for (number, value) in values.iter().enumerate() {
            let y = bottom - CURVE * 0.92 * if most > 0.0 { value / most } else { 0.0 };
            let (from, to) = (self.x(number as f64 * width), self.x((number + 1) as f64 * width));
            points.push_str(&format!(" {from:.1},{y:.1} {to:.1},{y:.1}"));
        }
        let last = self.x(values.len() as f64 * width);
        points.push_str(&format!(" {last:.1},{bottom:.1}"));
        self.svg.push_str(&format!("<polygon class=\"{class}\" points=\"{points}\"/>\n"));
        self.svg.push_str(&format!("<text x=\"0\" y=\"{:.1}\">{}</text>\n", self.y + 14.0, escaped(label)));
        self.svg.push_str(&format!(
            "<text class=\"faint\" x=\"0\" y=\"{:.1}\">{}</text>\n",
            self.y + 31.0,
            escaped(most_label)
        ));
        self.svg.push_str(&format!(
            "<line class=\"axis\" x1=\"{LEFT:.1}\" x2=\"{:.1}\" y1=\"{bottom:.1}\" y2=\"{bottom:.1}\"/>\n",
            WIDTH - RIGHT
        ));
        self.y = bottom + 14.0;
    }

    fn jobs(&mut self, end: &End<'_>) {
        for job in end.jobs.iter().take(MOST_SPANS) {
            let (from, to) = (super::since(end.started, job.started), job.ended.unwrap_or(end.ended));
            self.bar(&job.name, job.status(Exit::Interrupted), from, super::since(end.started, to));
        }
        self.rest(end.jobs.len().saturating_sub(MOST_SPANS), "jobs");
    }

    fn files(&mut self, end: &End<'_>) {
        let mut spans: Vec<_> = end.timeline.spans.iter().collect();
        spans.sort_by(|one, other| one.from.total_cmp(&other.from));
        for span in spans {
            let class = if is_bad(span.status) { "failed" } else { span.status };
            self.bar(&span.name, class, span.from, span.to);
        }
    }

    fn rest(&mut self, left: usize, what: &str) {
        if left > 0 {
            self.svg.push_str(&format!(
                "<text class=\"faint\" x=\"0\" y=\"{:.1}\">and {left} {what} more</text>\n",
                self.y + 12.0
            ));
            self.y += ROW;
        }
        self.y += 8.0;
    }

    fn bar(&mut self, name: &str, class: &str, from: f64, to: f64) {
        let (x, width) = (self.x(from), (self.x(to) - self.x(from)).max(2.0));
        let took = duration(Duration::from_secs_f64((to - from).max(0.0)));
        let (short, full) = (escaped(fit(name, COLUMNS).trim_end()), escaped(name));
        self.svg.push_str(&format!(
            "<g><title>{full}: {class}, {took}</title><text x=\"0\" y=\"{:.1}\">{short}</text>\
             <rect class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" rx=\"2\"/></g>\n",
            self.y + 12.0,
            self.y + 2.0,
            ROW - 5.0,
        ));
        self.y += ROW;
    }

    /// Draws the lines of time behind all of it.
    fn finish(self) -> String {
        let step = STEPS.into_iter().find(|step| self.time / step <= MOST_TICKS);
        let step = step.unwrap_or_else(|| (self.time / MOST_TICKS / 86_400.0).ceil() * 86_400.0);
        let mut ticks = String::new();
        for number in 0..=(self.time / step) as u32 {
            let seconds = f64::from(number) * step;
            let x = self.x(seconds);
            ticks.push_str(&format!(
                "<line class=\"tick\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"18\" y2=\"{:.1}\"/>\
                 <text class=\"faint\" x=\"{:.1}\" y=\"12\">{}</text>\n",
                self.y,
                x + 2.0,
                label(seconds)
            ));
        }
        format!(
            "<svg viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\" aria-label=\"What happened when\">\n{ticks}{}</svg>\n",
            self.y + 4.0,
            self.svg
        )
    }
}

/// Writes a time since the start, as short as it may be.
fn label(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0 if seconds == 0.0 => "0".into(),
        0..10 if (seconds - seconds.round()).abs() > 0.01 => format!("{} s", (seconds * 100.0).round() / 100.0),
        0..60 => format!("{} s", seconds.round()),
        60..3600 if whole.is_multiple_of(60) => format!("{} min", whole / 60),
        60..3600 => format!("{}:{:02} min", whole / 60, whole % 60),
        3600..86_400 if whole.is_multiple_of(3600) => format!("{} h", whole / 3600),
        3600..86_400 => format!("{}:{:02} h", whole / 3600, whole / 60 % 60),
        _ => format!("{} d", whole / 86_400),
    }
}
