//! Which job waits for which.

use crate::config::{Place, Problem, similar};

use super::{Job, Placed};

/// Finds the jobs that are named in `needs`, for each job in turn.
pub(super) fn resolve(jobs: &mut [Job], needs: &[Vec<Placed<String>>], problems: &mut Vec<Problem>) {
    let names: Vec<String> = jobs.iter().map(|job| job.name.clone()).collect();
    for (number, needed) in needs.iter().enumerate() {
        for need in needed {
            match names.iter().position(|name| *name == need.value) {
                Some(other) if other == number => problem(problems, need.place, "a job can't need itself".into(), None),
                Some(other) if jobs[number].needs.contains(&other) => {}
                Some(other) => jobs[number].needs.push(other),
                None => {
                    let meant = similar(&need.value, names.iter().map(String::as_str));
                    let hint = meant.map(|meant| format!("did you mean {meant}?"));
                    problem(problems, need.place, format!("no job is called {}", shown(&need.value)), hint);
                }
            }
        }
    }
    if let Some(circle) = circle(jobs) {
        let names: Vec<_> = circle.iter().chain(circle.first()).map(|&job| shown(&jobs[job].name)).collect();
        let first = circle.first().and_then(|&job| needs[job].first().map(|need| need.place));
        let place = first.unwrap_or(Place { line: 1, column: 1 });
        problem(problems, place, format!("jobs that need each other: {}", names.join(" -> ")), None);
    }
}

/// Returns jobs of which each needs the next and the last the first, beginning with the first of the file.
fn circle(jobs: &[Job]) -> Option<Vec<usize>> {
    let mut settled = vec![false; jobs.len()];
    // What can be run in some order isn't in a circle, nor what waits for none but such.
    while let Some(free) =
        (0..jobs.len()).find(|&job| !settled[job] && jobs[job].needs.iter().all(|&need| settled[need]))
    {
        settled[free] = true;
    }
    // Each of the others needs one of the others: following those comes back to one seen before.
    let mut way = vec![(0..jobs.len()).find(|&job| !settled[job])?];
    loop {
        let next = jobs[*way.last()?].needs.iter().copied().find(|&need| !settled[need])?;
        if let Some(start) = way.iter().position(|&seen| seen == next) {
            let mut circle = way.split_off(start);
            let first = circle.iter().enumerate().min_by_key(|(_, job)| **job).map_or(0, |(at, _)| at);
            circle.rotate_left(first);
            return Some(circle);
        }
        way.push(next);
    }
}

fn problem(problems: &mut Vec<Problem>, place: Place, message: String, hint: Option<String>) {
    problems.push(Problem { place, message, hint });
}

fn shown(name: &str) -> String {
    crate::transport::escape(name.as_bytes())
}
