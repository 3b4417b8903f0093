//! What is there before a job, and what a dry run can't know: jobs take what those before them will have made.

use haul::batch::{Job, Wanted};
use haul::endpoint::Endpoint;
use haul::plan;
use haul::transport::{FileKind, Follow};
use haul::{Error, ErrorKind};

use super::argv::expanding;
use crate::cli::context::Connections;
use crate::cli::report::Result;

/// Returns whether something is at a place, or matches its wildcards.
pub(super) async fn is_there(connections: &mut Connections<'_>, endpoint: &Endpoint) -> Result<bool> {
    let place = connections.place(endpoint).await?;
    let nothing = |error: &Error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
    let found = match plan::expand(&place).await {
        Err(error) if nothing(&error) => return Ok(false),
        found => found?,
    };
    let Some((path, None)) = found.first() else { return Ok(true) };
    match place.transport.stat(path, Follow::Links).await {
        Ok(entry) => Ok(!endpoint.path.bytes.ends_with(b"/") || entry.kind == FileKind::Directory),
        Err(error) if nothing(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Returns whether a job takes something that is not there and that another, which comes before it, may make.
pub(super) async fn is_unforeseeable(connections: &mut Connections<'_>, jobs: &[Job], number: usize) -> Result<bool> {
    let job = &jobs[number];
    let before = jobs.iter().enumerate().filter(|(other, _)| *other < number || job.needs.contains(other));
    let mut made = Vec::new();
    for (_, other) in before {
        // What a move takes away is not there either, but nobody waits for that.
        let makes = if other.verb == "mkdir" { &other.sources[..] } else { other.to.as_slice() };
        let makes = if other.verb == "check" { &[] } else { makes };
        for place in makes {
            made.push((connections.parse_one(place.value.as_ref())?, other.verb == "mkdir"));
        }
    }
    let wanted = job.conditions.iter().filter(|condition| condition.wanted == Wanted::There);
    let takes = wanted.map(|condition| &condition.operand);
    let compared = job.to.iter().filter(|_| job.verb == "check");
    let sources = job.sources.iter().filter(|_| job.verb != "mkdir");
    for place in takes.chain(sources).chain(compared) {
        let endpoint = connections.parse_one(&expanding(&place.value))?;
        let literal = connections.parse_one(place.value.as_ref())?;
        if made.iter().any(|(made, _)| overlaps(made, &literal)) && !is_there(connections, &endpoint).await? {
            return Ok(true);
        }
    }
    // Where it goes, if that is made by then.
    for to in job.to.iter().filter(|_| job.verb != "check") {
        let to = connections.parse_one(to.value.as_ref())?;
        let above = |made: &Endpoint, by_itself| names(made).len() < names(&to).len() + usize::from(by_itself);
        for (made, _) in made.iter().filter(|(made, is_dir)| above(made, *is_dir) && overlaps(made, &to)) {
            if !is_there(connections, made).await? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Returns whether one place is the other, or below or above it.
fn overlaps(one: &Endpoint, other: &Endpoint) -> bool {
    if !one.same_login(other) || one.path.base != other.path.base {
        return false;
    }
    names(one).iter().zip(names(other)).all(|(one, other)| *one == other)
}

fn names(endpoint: &Endpoint) -> Vec<&[u8]> {
    let names = endpoint.path.bytes.split(|&byte| byte == b'/');
    names.filter(|name| !name.is_empty() && *name != b".").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_overlap_by_whole_names() {
        let overlap =
            |one: &str, other: &str| overlaps(&Endpoint::parse(one).unwrap(), &Endpoint::parse(other).unwrap());
        assert!(overlap("sftp://h/a", "sftp://h:22/a/b*.txt") && overlap("ftp://h/a/b", "ftp://h/a/"));
        assert!(overlap("./in/", "in/x") && overlap("in", "in"));
        for (one, other) in
            [("sftp://h/a", "sftp://h/ab"), ("sftp://h/a", "sftp://g/a"), ("sftp://h/a", "sftp://h/~/a")]
        {
            assert!(!overlap(one, other), "{one} {other}");
        }
    }
}
