//! Locks that ignore poisoning, and values that each process makes for itself.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex even if it is poisoned. Critical sections in this crate leave their data consistent at every
/// step, so a panic elsewhere must not make guarded calls panic, too.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A value that each process makes once, and that lives as long as the process. A forked process makes its
/// own, because none of its parent's threads exists in it.
pub(crate) struct PerProcess<T: 'static>(Mutex<Option<(u32, &'static T)>>);

impl<T> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        PerProcess(Mutex::new(None))
    }

    /// `make` runs without the lock, so that a process that is forked meanwhile does not inherit a held one.
    /// If two threads make the value concurrently, one of the two is never used.
    pub(crate) fn get_or_make<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<&'static T, E> {
        let process = std::process::id();
        let known = *lock(&self.0);
        if let Some((_, value)) = known.filter(|(owner, _)| *owner == process) {
            return Ok(value);
        }
        let new = Box::leak(Box::new(make()?));
        let mut known = lock(&self.0);
        match *known {
            Some((owner, value)) if owner == process => Ok(value),
            _ => {
                *known = Some((process, new));
                Ok(new)
            }
        }
    }
}
