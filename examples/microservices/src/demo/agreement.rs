//! How far apart the instances have heard of a change: what each of them reports, laid side by side.

use std::collections::BTreeMap;
use std::time::Duration;

use cb_runtime::State;

use crate::profile::Circuit;

/// A change of the fleet's state, as its instances have heard of it.
#[derive(Clone, Debug)]
pub struct Agreement {
    /// The state from then on.
    pub to: State,
    /// Why.
    pub reason: String,
    /// When the first instance heard of it, in microseconds of the wall clock.
    pub first_us: u64,
    /// How much later the last one did; `None` while there is one that has not.
    pub spread: Option<Duration>,
}

/// The fleet's changes, in order.
pub fn agreements(circuits: &[Circuit]) -> Vec<Agreement> {
    let mut by_epoch: BTreeMap<(u64, &'static str), (Agreement, Vec<u64>)> = BTreeMap::new();
    for change in circuits.iter().flat_map(|circuit| &circuit.changes).filter(|change| !change.local) {
        let fresh = || {
            let reason = change.reason.clone();
            (Agreement { to: change.to, reason, first_us: u64::MAX, spread: None }, Vec::new())
        };
        let (_, heard) = by_epoch.entry((change.epoch, change.to.as_str())).or_insert_with(fresh);
        heard.push(change.at_us);
    }
    let all = by_epoch.into_values().map(|(mut agreement, heard)| {
        agreement.first_us = heard.iter().copied().min().unwrap_or_default();
        let last = heard.iter().copied().max().unwrap_or_default();
        let everybody = heard.len() == circuits.len();
        agreement.spread = everybody.then(|| Duration::from_micros(last - agreement.first_us));
        agreement
    });
    all.collect()
}
