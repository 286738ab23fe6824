//! One instance's breakers. (SKELETON: no store; the real one is being built.)

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use once_cell::sync::Lazy;

use crate::breaker::Core;
use crate::config::BreakerConfig;

/// One instance's breakers.
pub struct Registry {
    id: u64,
    breakers: Mutex<HashMap<String, Arc<Core>>>,
}

impl Registry {
    /// The global registry; built from the environment if none has been installed.
    pub fn global() -> &'static Registry {
        static GLOBAL: Lazy<Registry> = Lazy::new(Registry::skeleton);
        &GLOBAL
    }

    fn skeleton() -> Registry {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Registry { id: NEXT.fetch_add(1, Ordering::Relaxed), breakers: Mutex::default() }
    }

    /// Tells registries of one process apart; never 0.
    #[inline]
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The breaker of an annotated function, created with the attribute's `config` at its first call. Never
    /// fails: a config that contradicts the operator's is reported and left out.
    pub(crate) fn core(&self, name: &str, config: &BreakerConfig) -> Arc<Core> {
        let _ = config;
        let mut breakers = self.breakers.lock().unwrap();
        breakers.entry(name.to_owned()).or_insert_with(|| Arc::new(Core::skeleton(name))).clone()
    }
}
