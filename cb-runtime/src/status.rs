//! The status of the connection to the store.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::error::Error;
use crate::snapshot::StoreStatus;
use crate::sync::lock;

/// A registry's connection to its store, as readiness probes and
/// [`connect_timeout`](crate::RegistryBuilder::connect_timeout) ask for it.
#[derive(Default)]
pub(crate) struct Connection {
    status: Mutex<Option<StoreStatus>>,
    /// Notified at every change.
    changed: Condvar,
    #[cfg(test)]
    pub(crate) failures: std::sync::atomic::AtomicU64,
}

impl Connection {
    /// The store has answered. It is in use `since` then, unless it was before.
    pub(crate) fn set_up(&self, since: SystemTime, in_memory: bool) {
        self.change(|status| match status {
            Some(StoreStatus::Connected { .. } | StoreStatus::InMemory) => {}
            _ if in_memory => *status = Some(StoreStatus::InMemory),
            _ => *status = Some(StoreStatus::Connected { since }),
        });
    }

    /// The store has not answered. It is lost `since` then, unless it was before. `error` replaces the
    /// previous one.
    pub(crate) fn set_lost(&self, since: SystemTime, error: &Error) {
        #[cfg(test)]
        self.failures.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.change(|status| {
            let since = match status {
                Some(StoreStatus::Lost { since, .. }) => *since,
                _ => since,
            };
            *status = Some(StoreStatus::Lost { since, error: error.clone() });
        });
    }

    /// `None` until the store has been asked for the first time.
    pub(crate) fn status(&self) -> Option<StoreStatus> {
        lock(&self.status).clone()
    }

    /// Waits until the store has answered.
    ///
    /// # Errors
    /// The latest error, if it has not answered within `limit`.
    pub(crate) fn wait_until_up(&self, limit: Duration) -> Result<(), Error> {
        let deadline = Instant::now().checked_add(limit);
        let mut status = lock(&self.status);
        while !matches!(&*status, Some(StoreStatus::Connected { .. } | StoreStatus::InMemory)) {
            let left = deadline.map_or(limit, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Err(match &*status {
                    Some(StoreStatus::Lost { error, .. }) => error.clone(),
                    _ => Error::store("connecting", format!("no answer within {limit:?} (connect_timeout)")),
                });
            }
            status = self.changed.wait_timeout(status, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    fn change(&self, change: impl FnOnce(&mut Option<StoreStatus>)) {
        change(&mut lock(&self.status));
        self.changed.notify_all();
    }
}
