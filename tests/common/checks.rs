//! What the fleet's health checks do, and who has made them.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::Instance;
use super::protocol::{CHECKS_LOG, CHECKS_SCRIPT, Verdict};

/// The script of one breaker's health checks, for all instances of a fleet.
pub struct Checks {
    folder: TempDir,
}

impl Checks {
    /// The first check does the first, and so on; all that follow do the last.
    pub fn that(verdicts: &[Verdict]) -> Checks {
        let checks = Checks { folder: TempDir::new().expect("a temporary directory") };
        checks.now(verdicts);
        checks
    }

    /// Another script: it counts from the very first check, too.
    pub fn now(&self, verdicts: &[Verdict]) {
        let lines: Vec<_> =
            verdicts.iter().map(|verdict| serde_json::to_string(verdict).expect("printable")).collect();
        // Renamed into its place, so that nobody reads half of it.
        let new = self.folder.path().join("new");
        fs::write(&new, lines.join("\n")).expect("the script can be written");
        fs::rename(new, self.folder.path().join(CHECKS_SCRIPT)).expect("and put in its place");
    }

    /// Lets the checks go on that wait for this.
    pub fn signal(&self, signal: &str) {
        fs::write(self.folder.path().join(signal), "").expect("a file can be made");
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// The process ids of those that have made checks, in that order.
    pub fn made_by(&self) -> Vec<u32> {
        let log = fs::read_to_string(self.folder.path().join(CHECKS_LOG)).unwrap_or_default();
        let pid = |line: &str| line.split(' ').next().and_then(|pid| pid.parse().ok()).expect("a pid");
        log.lines().map(pid).collect()
    }

    pub fn made(&self) -> usize {
        self.made_by().len()
    }

    /// Who has made the latest check.
    pub fn maker<'a>(&self, fleet: &'a [Instance]) -> Option<&'a Instance> {
        let last = *self.made_by().last()?;
        fleet.iter().find(|instance| instance.pid() == last)
    }
}
