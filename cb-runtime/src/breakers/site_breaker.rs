//! A breaker as one annotated function sees it; of a keyed breaker, one for each thread that calls it.
//!
//! A call of a keyed breaker has to hold the breaker, and a reference count that all threads share would be
//! most of the cost of the call. So each thread has a [`SiteBreaker`] of its own, whose reference count no
//! other thread touches; the map lists them, and each thread finds its own by a weak reference.
//!
//! An eviction takes them back one by one. `Arc::try_unwrap` either finds that a call holds one, or makes
//! sure, in one atomic step, that no thread can find it any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Registered;
use crate::breaker::Core;
use crate::config::BreakerConfig;
use crate::sync::lock;

/// A breaker as one annotated function sees it: functions that share a breaker may differ in these durations.
///
/// A call reads the first two fields, which usually share a cache line with the reference count.
#[repr(C)]
pub struct SiteBreaker {
    core: Arc<Core>,
    /// Of a keyed breaker: see [`BreakerMap::swept_at`](super::BreakerMap).
    used_at: AtomicU64,
    call_timeout: Option<Duration>,
    cache_ttl: Option<Duration>,
}

impl SiteBreaker {
    pub(crate) fn of(core: Arc<Core>, settings: &BreakerConfig) -> Self {
        SiteBreaker {
            core,
            call_timeout: settings.call_timeout,
            cache_ttl: settings.cache_ttl,
            used_at: AtomicU64::new(0),
        }
    }

    #[inline]
    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    #[inline]
    #[expect(clippy::ref_option, reason = "calls borrow it: two words would be copied into every future")]
    pub(crate) fn call_timeout(&self) -> &Option<Duration> {
        &self.call_timeout
    }

    #[inline]
    pub(crate) fn cache_ttl(&self) -> Option<Duration> {
        self.core.cache_ttl(self.cache_ttl)
    }

    #[inline]
    pub(super) fn used(&self, at: u64) {
        if self.used_at.load(Ordering::Relaxed) != at {
            self.used_at.store(at, Ordering::Relaxed);
        }
    }
}

impl Registered {
    /// A reference for the calling thread.
    pub(super) fn site_breaker(&self, config: &BreakerConfig) -> Arc<SiteBreaker> {
        let breaker = Arc::new(SiteBreaker::of(self.core.clone(), config));
        let mut of_threads = lock(&self.of_threads);
        if of_threads.len() == of_threads.capacity() {
            // Threads that have ended use theirs no more.
            self.take_back(&mut of_threads, |breaker| Arc::weak_count(breaker) == 0);
        }
        of_threads.push(breaker.clone());
        breaker
    }

    /// When a thread used the breaker last, and whether nothing but the map refers to it.
    pub(super) fn last_use(&self) -> (u64, bool) {
        let of_threads = lock(&self.of_threads);
        let used_at = of_threads.iter().map(|breaker| breaker.used_at.load(Ordering::Relaxed)).max();
        let used_at = used_at.unwrap_or(0).max(self.used_at.load(Ordering::Relaxed));
        let is_free = Arc::strong_count(&self.core) == 1 + of_threads.len()
            && of_threads.iter().all(|breaker| Arc::strong_count(breaker) == 1);
        (used_at, is_free)
    }

    /// Takes the threads' references back, except those that calls hold.
    pub(super) fn take_all_back(&self) {
        self.take_back(&mut lock(&self.of_threads), |_| true);
    }

    fn take_back(&self, of_threads: &mut Vec<Arc<SiteBreaker>>, which: impl Fn(&Arc<SiteBreaker>) -> bool) {
        let all = std::mem::take(of_threads);
        of_threads.extend(all.into_iter().filter_map(|breaker| {
            if !which(&breaker) {
                return Some(breaker);
            }
            let taken = Arc::try_unwrap(breaker);
            if let Ok(taken) = &taken {
                self.used_at.fetch_max(taken.used_at.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            taken.err()
        }));
    }
}
