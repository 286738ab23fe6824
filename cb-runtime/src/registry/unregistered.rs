//! Breakers that the operator configures and no code registers: usually a misspelled name, whose settings
//! have no effect.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::background;
use crate::breaker::context::RegistryContext;
use crate::breakers::BreakerMap;
use crate::error::Error;
use crate::sync::lock;

/// The delay of the report, which leaves the program time to register its breakers. A breaker whose first
/// call comes later is reported, too.
const AFTER: Duration = Duration::from_secs(60);
/// The maximum number of registered names in a report.
const SHOWN: usize = 10;

/// The names that have been reported.
#[derive(Clone, Default)]
pub(super) struct Unregistered(Arc<Mutex<BTreeSet<String>>>);

impl Unregistered {
    /// Reports them once, after [`AFTER`]. The wait does not keep the registry alive.
    pub(super) fn report_later(&self, context: &Arc<RegistryContext>, breakers: &Arc<BreakerMap>) {
        if context.layers().configured().is_empty() {
            return;
        }
        // Without the thread, building the registry fails anyway.
        let Ok(runtime) = background::runtime() else { return };
        let (reported, context, breakers) = (self.clone(), Arc::downgrade(context), Arc::downgrade(breakers));
        runtime.spawn(async move {
            tokio::time::sleep(AFTER).await;
            reported.report(&context, &breakers);
        });
    }

    fn report(&self, context: &Weak<RegistryContext>, breakers: &Weak<BreakerMap>) {
        let (Some(context), Some(breakers)) = (context.upgrade(), breakers.upgrade()) else { return };
        let registered: BTreeSet<_> =
            breakers.registered().iter().map(|core| core.name().to_string()).collect();
        for name in context.layers().configured() {
            if !registered.contains(&name) && lock(&self.0).insert(name.clone()) {
                context.events.error(Error::config("breakers", problem(&name, &registered)));
            }
        }
    }
}

fn problem(name: &str, registered: &BTreeSet<String>) -> String {
    let shown: Vec<_> = registered.iter().take(SHOWN).map(|name| format!("\"{name}\"")).collect();
    let more = if registered.len() > SHOWN { ", …" } else { "" };
    let there_are = match &shown[..] {
        [] => "none is registered".to_owned(),
        shown => format!("registered are {}{more}", shown.join(", ")),
    };
    format!("\"{name}\" has settings, but no code has registered a breaker of that name yet; {there_are}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BreakerConfig, Registry};

    #[test]
    fn configured_breaker_that_no_code_registers_is_reported_once() {
        let reports = Arc::new(Mutex::new(Vec::new()));
        let log = reports.clone();
        let registry = Registry::builder()
            .configure("users", |config| config.failure_threshold(3))
            .configure("odrers", |config| config.failure_threshold(3))
            .on_error(move |error| lock(&log).push(error.to_string()))
            .build()
            .unwrap();
        registry.get_or_create("users", BreakerConfig::default());
        registry.get_or_create("orders", BreakerConfig::default());
        let (context, breakers) = (Arc::downgrade(&registry.context), Arc::downgrade(&registry.breakers));
        let unregistered = Unregistered::default();
        unregistered.report(&context, &breakers);
        unregistered.report(&context, &breakers);
        let begun = std::time::Instant::now();
        while lock(&reports).is_empty() && begun.elapsed() < Duration::from_secs(60) {
            std::thread::yield_now();
        }
        let expected = "breakers: \"odrers\" has settings, but no code has registered a breaker of that name yet; \
                        registered are \"orders\", \"users\"";
        assert_eq!(*lock(&reports), [expected]);
    }
}
