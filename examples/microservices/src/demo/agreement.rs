//! The time between the first and the last instance's observation of a transition.

use std::collections::BTreeMap;
use std::time::Duration;

use cb_runtime::State;

use crate::profile::Circuit;

/// A transition of the fleet, as its instances observed it.
#[derive(Clone, Debug)]
pub struct Agreement {
    /// The new state.
    pub to: State,
    /// The reason of the transition.
    pub reason: String,
    /// When the first instance observed it, in microseconds of the wall clock.
    pub first_us: u64,
    /// The time until the last instance observed it. `None` while an instance has not.
    pub spread: Option<Duration>,
}

/// The fleet's transitions, in order.
pub fn agreements(circuits: &[Circuit]) -> Vec<Agreement> {
    let mut by_epoch: BTreeMap<(u64, &'static str), (Agreement, Vec<u64>)> = BTreeMap::new();
    for change in circuits.iter().flat_map(|circuit| &circuit.changes).filter(|change| !change.local) {
        let fresh = || {
            let reason = change.reason.clone();
            (Agreement { to: change.to, reason, first_us: u64::MAX, spread: None }, Vec::new())
        };
        let (_, observed) = by_epoch.entry((change.epoch, change.to.as_str())).or_insert_with(fresh);
        observed.push(change.at_us);
    }
    let all = by_epoch.into_values().map(|(mut agreement, observed)| {
        agreement.first_us = observed.iter().copied().min().unwrap_or_default();
        let last = observed.iter().copied().max().unwrap_or_default();
        let by_all = observed.len() == circuits.len();
        agreement.spread = by_all.then(|| Duration::from_micros(last - agreement.first_us));
        agreement
    });
    all.collect()
}
