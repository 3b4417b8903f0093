//! How many files and sockets this process may have open, and how many transfers at once fit into that.

use rustix::process::{Resource, getrlimit};

/// What one file in flight has open at most: the file, its directory, its journal.
const PER_JOB: usize = 3;
/// What a connection has open at most: FTP's has a second one for data.
const PER_CONNECTION: usize = 2;
/// What a further stream of a file has open: its end here, and a connection.
const PER_STREAM: usize = 1 + PER_CONNECTION;
/// Left for what comes and goes: listings, digests, the state folder, name look-ups.
const SPARE: usize = 12;

/// The room there was when a run began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Descriptors {
    room: usize,
}

impl Descriptors {
    /// Asks the system: what is open now stays open, with the first connections among it.
    pub(super) fn ask() -> Self {
        let limit = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        Self::new(limit.unwrap_or(usize::MAX), open)
    }

    fn new(limit: usize, open: usize) -> Self {
        Self { room: limit.saturating_sub(open + SPARE) }
    }

    /// Returns how many files may be in flight beside so many connections; one always.
    pub(super) fn jobs(self, connections: usize) -> usize {
        (self.room.saturating_sub(connections.saturating_mul(PER_CONNECTION)) / PER_JOB).max(1)
    }

    /// Returns how many connections there may be, so that most of the room is left for files.
    pub(super) fn connections(self) -> usize {
        (self.room / 4 / PER_CONNECTION).max(1)
    }

    /// Returns how many streams each of so many large files may have.
    pub(super) fn streams(self, files: usize) -> usize {
        (self.room / 2 / PER_STREAM / files.max(1)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_usual_limit_is_no_limit() {
        let descriptors = Descriptors::new(4096, 20);
        assert!(descriptors.jobs(16) >= 1024 && descriptors.connections() >= 100 && descriptors.streams(4) >= 16);
        assert!(Descriptors::new(usize::MAX, 20).jobs(usize::MAX) >= 1);
    }

    proptest! {
        #[test]
        fn all_together_fits(limit in 0usize..5000, open in 0usize..100) {
            let descriptors = Descriptors::new(limit, open);
            let connections = descriptors.connections();
            let jobs = descriptors.jobs(connections);
            let needed = open + connections * PER_CONNECTION + jobs * PER_JOB;
            prop_assert!(needed <= limit || (jobs == 1 && connections == 1), "{needed} of {limit}");
            prop_assert!(jobs >= 1 && connections >= 1 && descriptors.streams(jobs) >= 1);
        }
    }
}
