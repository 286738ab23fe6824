//! Scripted health checks: what each check of the fleet does, and which process made it.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::Instance;
use super::protocol::{CHECKS_LOG, CHECKS_SCRIPT, CheckStep};

/// The script of one breaker's health checks, shared by all instances of a fleet.
pub struct Checks {
    folder: TempDir,
}

impl Checks {
    /// The n-th check of the fleet does step n. Later checks repeat the last step.
    pub fn scripted(steps: &[CheckStep]) -> Checks {
        let checks = Checks { folder: TempDir::new().expect("a temporary directory") };
        checks.set_script(steps);
        checks
    }

    /// Replaces the script. Steps are still counted from the first check ever made.
    pub fn set_script(&self, steps: &[CheckStep]) {
        let lines: Vec<_> =
            steps.iter().map(|step| serde_json::to_string(step).expect("a step serializes")).collect();
        // A rename is atomic: no instance reads a half-written script.
        let new = self.folder.path().join("new");
        fs::write(&new, lines.join("\n")).expect("the script can be written");
        fs::rename(new, self.folder.path().join(CHECKS_SCRIPT)).expect("the script can be renamed");
    }

    /// Releases checks that wait for `signal`.
    pub fn signal(&self, signal: &str) {
        fs::write(self.folder.path().join(signal), "").expect("a file can be made");
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// The process id of each check's maker, in the order of the checks.
    pub fn pids(&self) -> Vec<u32> {
        let log = fs::read_to_string(self.folder.path().join(CHECKS_LOG)).unwrap_or_default();
        let pid = |line: &str| line.split(' ').next().and_then(|pid| pid.parse().ok()).expect("a pid");
        log.lines().map(pid).collect()
    }

    pub fn count(&self) -> usize {
        self.pids().len()
    }

    /// The instance that made the latest check.
    pub fn latest_checker<'a>(&self, fleet: &'a [Instance]) -> Option<&'a Instance> {
        let last = *self.pids().last()?;
        fleet.iter().find(|instance| instance.pid() == last)
    }
}
