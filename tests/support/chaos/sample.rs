//! What a process has in use.

/// One look at a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) memory: u64,
    /// Without those of directories.
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
}

impl Sample {
    /// Looks; `None` once it has ended.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().trim_end_matches(" kB").parse::<u64>().ok()
        };
        // haul keeps up to 64 directories open that it writes into, and closes all of them when there would be more.
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        let descriptors = open.filter(|entry| !entry.path().is_dir()).count() as u64;
        Some(Self { memory: number("VmRSS:")? << 10, descriptors, threads: number("Threads:")? })
    }
}

/// The samples of a process, in order.
#[derive(Debug, Default)]
pub(crate) struct Samples(pub(crate) Vec<Sample>);

impl Samples {
    /// Returns the medians of its first, middle and last third.
    pub(crate) fn thirds(&self, what: impl Fn(&Sample) -> u64) -> [u64; 3] {
        let length = self.0.len() / 3;
        [0, 1, 2].map(|third| {
            let mut part: Vec<_> = self.0.iter().skip(third * length).take(length.max(1)).map(&what).collect();
            part.sort_unstable();
            part.get(part.len() / 2).copied().unwrap_or(0)
        })
    }

    /// Says what grew from the middle third to the last, if something did.
    pub(crate) fn growth(&self) -> Vec<String> {
        let mut grown = Vec::new();
        let [_, middle, last] = self.thirds(|sample| sample.memory);
        if last > middle + middle / 8 + (2 << 20) {
            grown.push(format!("memory grew from {} to {} KiB", middle >> 10, last >> 10));
        }
        for (name, [_, middle, last]) in
            [("descriptors", self.thirds(|s| s.descriptors)), ("threads", self.thirds(|s| s.threads))]
        {
            // So many come and go.
            if last > middle + 8 {
                grown.push(format!("{name} grew from {middle} to {last}"));
            }
        }
        grown
    }
}
