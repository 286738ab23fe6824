//! The further arguments of an exchange that does nothing but open a closed breaker.

use super::{BatchMessage, EntryMessage};
use crate::snapshot::State;
use crate::store::{Entry, MAX_COUNT, MAX_SETTINGS, MAX_SPAN_US, Proposal, cut};
use crate::text::cut as cut_to;

impl BatchMessage<'_> {
    /// What the script needs to open a breaker at once, in the order in which `opening.lua` takes it; `None`
    /// if the batch has more than that. All instances wait for an opening, and to parse the batch takes the
    /// script an eighth of its time.
    pub(in crate::store::redis) fn opening(&self) -> Option<Vec<String>> {
        let [EntryMessage { name, entry, .. }] = &self.entries[..] else { return None };
        let Entry { failing: false, leaves: false, notice: false, last: None, role: None, .. } = entry else {
            return None;
        };
        let Some(Proposal { to, force: false, token: None, evidence }) = &entry.proposal else { return None };
        let known = entry.known()?;
        if to.state != State::Open
            || !to.actor.is_empty()
            || !entry.leases.is_nothing()
            || self.retention.is_some()
        {
            return None;
        }
        let reset = to.reset_timeout_us.min(MAX_SPAN_US);
        let left = to.state.remaining(to.remaining_us, reset).unwrap_or(0);
        let [successes, failures, slow] = evidence.bounded().map(|count| count.to_string());
        let failed = entry.delta.failure_age_us().map(|age| age.min(MAX_COUNT).to_string());
        Some(vec![
            "open".to_owned(),
            self.batch.instance.to_string(),
            self.batch.seq.min(MAX_COUNT).to_string(),
            name.clone(),
            known.epoch.to_string(),
            cut(&to.reason).to_owned(),
            left.to_string(),
            reset.to_string(),
            to.attempt.to_string(),
            successes,
            failures,
            slow,
            failed.unwrap_or_default(),
            cut_to(&entry.settings, MAX_SETTINGS).to_owned(),
            u8::from(entry.window.is_some()).to_string(),
        ])
    }
}
