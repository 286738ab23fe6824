//! One name's place in the map, while the map is locked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLockWriteGuard};

use super::{BreakerMap, Breakers, KeyedSite, Registered};
use crate::breaker::{Core, Held};

/// One name's place in the map. Nothing else can happen to the map until it is dropped.
pub(crate) struct MapEntry<'a> {
    breakers: RwLockWriteGuard<'a, Breakers>,
    map: &'a BreakerMap,
    name: &'a str,
}

/// What a new breaker is registered for.
#[derive(Clone, Copy)]
pub(crate) enum BreakerKind {
    /// For a function or a handle that asks for it by a name of its own.
    Pinned,
    /// For calls of this function.
    Keyed(KeyedSite),
    /// Only looked at, or steered: keyed, though no function has asked for it.
    Observed,
}

impl<'a> MapEntry<'a> {
    pub(super) fn new(map: &'a BreakerMap, name: &'a str) -> Self {
        MapEntry { breakers: map.write(), map, name }
    }

    /// The breaker, if it is registered.
    pub(crate) fn get(&self) -> Option<Arc<Core>> {
        self.breakers.registered.get(self.name).map(|breaker| breaker.core.clone())
    }

    /// The breaker if it is registered, pinned from now on.
    pub(crate) fn pin(&mut self) -> Option<Arc<Core>> {
        let breaker = self.breakers.registered.get_mut(self.name)?;
        let was_keyed = std::mem::replace(&mut breaker.keyed, false);
        let core = breaker.core.clone();
        core.set_keyed(false);
        self.breakers.keyed -= usize::from(was_keyed);
        Some(core)
    }

    /// Whether a keyed breaker may be registered. One that the fleet has in a state other than closed always
    /// may: its state is kept here anyway.
    pub(crate) fn has_room(&self) -> bool {
        self.breakers.keyed < self.map.places || self.breakers.held.contains_key(self.name)
    }

    /// Registers the breaker that `make` creates from its name and from the fleet's state, if that is known.
    pub(crate) fn insert(
        mut self,
        kind: BreakerKind,
        make: impl FnOnce(Arc<str>, Option<Held>) -> Arc<Core>,
    ) -> Arc<Core> {
        let held = self.breakers.held.remove(self.name);
        let name: Arc<str> = self.name.into();
        let core = make(name.clone(), held);
        let site = if let BreakerKind::Keyed(site) = kind { Some(site) } else { None };
        let keyed = !matches!(kind, BreakerKind::Pinned);
        core.set_keyed(keyed);
        self.breakers.keyed += usize::from(keyed);
        if keyed && self.breakers.keyed == self.map.crowded_from() {
            // Otherwise it would look only at the next second, and a burst of names may fill the map before.
            core.context().wake();
        }
        let breaker = Registered {
            core: core.clone(),
            of_threads: Mutex::default(),
            keyed,
            used_at: AtomicU64::new(self.map.swept_at.load(Ordering::Relaxed)),
            met: AtomicU64::new(site.map_or(0, |site| site.bit)),
            pattern: site.map_or_else(OnceLock::new, |site| site.pattern.into()),
            #[cfg(feature = "metrics")]
            published: Mutex::default(),
        };
        self.breakers.registered.insert(name, breaker);
        core
    }
}
