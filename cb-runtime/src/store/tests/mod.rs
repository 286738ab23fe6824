//! What every store must do, run against each of them.

pub(super) mod contract;

use super::{FleetRow, Overview};

/// Every breaker that the store knows, by name, as it is read for display.
pub(crate) async fn fleet(store: &dyn Overview) -> Vec<FleetRow> {
    let roll = store.roll().await.unwrap();
    let mut rows = store.read([roll.held, roll.closed].concat()).await.unwrap();
    rows.extend(roll.complete);
    rows.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    rows.into_iter().map(|(row, _)| row).collect()
}
