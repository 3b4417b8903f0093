//! Listing a directory with several READDIRs under way.

use std::collections::VecDeque;

use super::client::{Client, File, Pending, unwanted};
use super::entry::named;
use super::fields::broken;
use super::request::Request;
use super::response::{Name, Response, StatusCode};
use crate::error::Result;
use crate::transport::{Entry, RemotePath};

/// READDIRs under way at the start: most directories end with the second.
const FIRST_REQUESTS: usize = 2;
/// READDIRs under way at most; each answer that brings names adds one.
const MAX_REQUESTS: usize = 16;
/// Answers without a name in a row, after which the server is taken for broken.
const EMPTY_ANSWERS: u32 = 3;

/// An open directory being listed; closed when dropped.
#[derive(Debug)]
pub(super) struct Listing {
    dir: File,
    names: VecDeque<Name>,
    in_flight: VecDeque<Pending>,
    requests: usize,
    empty_answers: u32,
    ended: bool,
}

impl Listing {
    pub(super) async fn open(client: &Client, path: &RemotePath) -> Result<Self> {
        let dir = client.open(Request::Opendir(super::bytes_of(path)), "list").await?;
        Ok(Self {
            dir,
            names: VecDeque::new(),
            in_flight: VecDeque::new(),
            requests: FIRST_REQUESTS,
            empty_answers: 0,
            ended: false,
        })
    }

    /// Returns the next entry, without `.` and `..`; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Entry>> {
        loop {
            while let Some(name) = self.names.pop_front() {
                if &*name.name != b"." && &*name.name != b".." {
                    return Ok(Some(named(&name)));
                }
            }
            if self.ended {
                return Ok(None);
            }
            self.receive().await?;
        }
    }

    async fn receive(&mut self) -> Result<()> {
        while self.in_flight.len() < self.requests {
            self.in_flight.push_back(self.dir.client.request(Request::Readdir(self.dir.handle())));
        }
        let Some(first) = self.in_flight.front_mut() else { return Ok(()) };
        let answer = first.answer().await?;
        self.in_flight.pop_front();
        match answer.response {
            Response::Names(names) => {
                self.empty_answers = if names.is_empty() { self.empty_answers + 1 } else { 0 };
                if self.empty_answers >= EMPTY_ANSWERS {
                    return Err(broken("a listing without names, again and again"));
                }
                self.names = names.into();
                self.requests = (self.requests + 1).min(MAX_REQUESTS);
            }
            Response::Status(status) if status.code == StatusCode::EOF => self.ended = true,
            other => return Err(unwanted(&other, "list")),
        }
        Ok(())
    }
}
