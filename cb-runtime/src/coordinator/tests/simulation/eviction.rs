//! How often breakers are looked at that might be evicted.

use super::*;
use crate::coordinator::PACE;

#[tokio::test]
async fn keyed_breakers_are_looked_at_often_only_while_few_places_are_free() {
    let config = BreakerConfig::default();
    let mut fleet = Fleet::new(0, 1, &config);
    fleet.settle().await;
    let Member { coordinator, .. } = &mut fleet.instances[0];
    let places = coordinator.breakers.places();
    let insert = |number: usize| {
        let make = |name, held| Core::new(name, &config, held, &coordinator.context);
        coordinator.breakers.entry(&format!("{number}")).insert(BreakerKind::Observed, make);
    };
    (1..places * 3 / 4).for_each(insert);
    coordinator.context.take_urgent();
    assert_eq!(coordinator.sweep_interval(), Duration::from_secs(1));
    insert(0);
    assert!(coordinator.context.take_urgent(), "it is woken");
    assert_eq!(coordinator.sweep_interval(), PACE);
}
