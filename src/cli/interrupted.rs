//! What is shown of transfers that didn't come to their end.

use haul::endpoint::Endpoint;
use haul::transfer::{About, Interrupted, State};
use haul::transport::escape;
use jiff::Timestamp;
use serde::Serialize;

use super::context::Context;
use super::format::{bytes, local_minute, percent};
use super::json;
use super::report::Result;

/// An id is shown with so many characters, if that tells it apart.
const SHORT: usize = 8;

/// Returns as much of each id as tells it apart from the others.
pub(crate) fn short_ids(transfers: &[Interrupted]) -> Vec<String> {
    let ids: Vec<&str> = transfers.iter().map(|transfer| transfer.id.as_str()).collect();
    let alike = |length: usize| {
        let mut short: Vec<_> = ids.iter().map(|id| id.get(..length)).collect();
        short.sort_unstable();
        short.windows(2).any(|pair| pair[0] == pair[1])
    };
    let length = (SHORT..16).find(|&length| !alike(length)).unwrap_or(16);
    ids.into_iter().map(|id| id.get(..length).unwrap_or(id).to_owned()).collect()
}

/// Writes three lines for each, for people.
pub(crate) fn list(transfers: &[Interrupted], context: &Context) -> Result<()> {
    let mut text = String::new();
    for (transfer, id) in transfers.iter().zip(short_ids(transfers)) {
        let at = Timestamp::try_from(transfer.at).map(local_minute).unwrap_or_default();
        let indent = " ".repeat(id.len());
        match &transfer.about {
            Ok(about) => {
                let (kept, size) = (bytes(about.kept), bytes(about.size));
                let share = percent(about.kept, about.size);
                text.push_str(&format!("{id}  {kept} of {size} ({share} %), {at}, {}\n", why(about)));
                text.push_str(&format!("{indent}  {}\n", shown(&about.source)));
                text.push_str(&format!("{}-> {}\n", &indent[1..], shown(&about.destination)));
                if about.request.several {
                    text.push_str(&format!(
                        "{indent}  the same command moves other files too: run it again for those\n"
                    ));
                }
            }
            Err(error) => text.push_str(&format!("{id}  {}, {at}\n", escape(error.as_bytes()))),
        }
    }
    Ok(context.stdout.write(text.as_bytes())?)
}

/// Writes one object a line.
pub(crate) fn list_json(transfers: &[Interrupted], context: &Context) -> Result<()> {
    let mut text = Vec::new();
    for transfer in transfers {
        json::line(&mut text, &Line::new(transfer))?;
    }
    Ok(context.stdout.write(&text)?)
}

/// Shows a URL of a journal: a plain path here, a URL elsewhere.
pub(crate) fn shown(url: &str) -> String {
    Endpoint::parse(url).map_or_else(|_| escape(url.as_bytes()), |endpoint| endpoint.to_string())
}

fn why(about: &About) -> String {
    match &about.state {
        State::Running => "at work now".into(),
        State::Stopped(stopped) if stopped.kind == "cancelled" => "interrupted".into(),
        State::Stopped(stopped) => escape(stopped.why.as_bytes()),
        State::Killed => "was killed or lost power".into(),
        State::Unknown => "nobody knows why it stopped".into(),
    }
}

#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    source: Option<&'a str>,
    destination: Option<&'a str>,
    size: Option<u64>,
    bytes: Option<u64>,
    percent: Option<u64>,
    last: Option<String>,
    state: &'static str,
    reason: Option<Reason<'a>>,
    several: Option<bool>,
    options: Option<&'a [String]>,
}

#[derive(Serialize)]
struct Reason<'a> {
    kind: &'a str,
    message: &'a str,
    at: Option<String>,
}

impl<'a> Line<'a> {
    fn new(transfer: &'a Interrupted) -> Self {
        let about = transfer.about.as_ref().ok();
        let reason = match (&transfer.about, about.map(|about| &about.state)) {
            (_, Some(State::Stopped(stopped))) => {
                let at = Timestamp::from_second(stopped.at).ok().map(|at| at.to_string());
                Some(Reason { kind: &stopped.kind, message: &stopped.why, at })
            }
            (Err(error), _) => Some(Reason { kind: "unreadable", message: error, at: None }),
            _ => None,
        };
        Self {
            id: &transfer.id,
            source: about.map(|about| about.source.as_str()),
            destination: about.map(|about| about.destination.as_str()),
            size: about.map(|about| about.size),
            bytes: about.map(|about| about.kept),
            percent: about.map(|about| percent(about.kept, about.size)),
            last: Timestamp::try_from(transfer.at)
                .ok()
                .and_then(|at| at.round(jiff::Unit::Second).ok())
                .map(|at| at.to_string()),
            state: match about.map(|about| &about.state) {
                Some(State::Running) => "running",
                Some(State::Stopped(_)) => "stopped",
                Some(State::Killed) => "killed",
                Some(State::Unknown) => "unknown",
                None => "unreadable",
            },
            reason,
            several: about.map(|about| about.request.several),
            options: about.map(|about| about.request.options.as_slice()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_as_short_as_tells_them_apart() {
        let transfer = |id: &str| Interrupted { id: id.into(), at: std::time::UNIX_EPOCH, about: Err(String::new()) };
        assert_eq!(short_ids(&[]), [""; 0]);
        assert_eq!(short_ids(&[transfer("0123456789abcdef")]), ["01234567"]);
        let alike = [transfer("0123456789abcdef"), transfer("0123456780abcdef")];
        assert_eq!(short_ids(&alike), ["0123456789", "0123456780"]);
    }
}
