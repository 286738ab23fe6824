//! The breakers of one registry, and what is known of others that the fleet holds in a state other than closed.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::breaker::Core;
use crate::clock::Moment;
use crate::snapshot::State;
use crate::store::Record;

#[derive(Default)]
pub(crate) struct Book(RwLock<Pages>);

#[derive(Default)]
struct Pages {
    cores: HashMap<Arc<str>, Arc<Core>>,
    /// Not registered here (yet), held by the fleet, as of a moment: a breaker that is created later is
    /// where the fleet is from its first call on.
    held: HashMap<Arc<str>, (Record, Moment)>,
}

impl Book {
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Core>> {
        self.read().cores.get(name).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Core>> {
        self.read().cores.values().cloned().collect()
    }

    /// The fleet holds a breaker of this name in some state other than closed, and it is not registered here.
    pub(crate) fn is_held(&self, name: &str) -> bool {
        self.read().held.contains_key(name)
    }

    /// The breaker of that name; `make` gets what the fleet is known to hold it in, with how long ago that was known.
    pub(crate) fn get_or_insert(
        &self,
        name: &str,
        make: impl FnOnce(Arc<str>, Option<(Record, Moment)>) -> Arc<Core>,
    ) -> Arc<Core> {
        let mut pages = self.write();
        if let Some(core) = pages.cores.get(name) {
            return core.clone();
        }
        let held = pages.held.remove(name);
        let name: Arc<str> = name.into();
        let core = make(name.clone(), held);
        pages.cores.insert(name, core.clone());
        core
    }

    /// The fleet's state of a breaker, registered here or not.
    pub(crate) fn adopt(&self, name: &Arc<str>, record: &Record, now: Moment) {
        let core = {
            let mut pages = self.write();
            let core = pages.cores.get(name).cloned();
            if core.is_none() {
                if record.state == State::Closed {
                    pages.held.remove(name);
                } else {
                    pages.held.insert(name.clone(), (record.clone(), now));
                }
            }
            core
        };
        if let Some(core) = core {
            core.adopt(record);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Pages> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Pages> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
