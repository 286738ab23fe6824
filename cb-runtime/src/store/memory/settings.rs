//! The settings summaries that instances have reported.

use crate::clock::micros;
use crate::store::SAID_FOR;

#[derive(Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct StoredSettings {
    latest: String,
    /// The previous summary, and until when it was the latest.
    before: Option<(String, u64)>,
}

impl StoredSettings {
    /// Returns the other instances' summary, if it differs.
    pub(super) fn report(&mut self, summary: &str, now: u64) -> Option<String> {
        if self.latest != summary {
            let latest = std::mem::replace(&mut self.latest, summary.to_owned());
            self.before = Some((latest, now)).filter(|(latest, _)| !latest.is_empty());
        }
        let recent = self.before.as_ref().filter(|&&(_, until)| now.saturating_sub(until) < micros(SAID_FOR));
        recent.map(|(before, _)| before.clone())
    }
}
