//! The breakers of one registry, and what is known of others that the fleet holds in a state other than closed.
//!
//! Most breakers are *pinned*: functions and handles with a name of their own ask for them, so there are as many as the
//! program has names. The others are *keyed*: their names are made of arguments, and there is no end to those. So
//! their number is limited, and those that nobody needs are let go: the least recently used first, and none that
//! has something left to tell, is not closed, or is held by a call or a handle.

#[cfg(feature = "metrics")]
mod counted;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use crate::breaker::Core;
use crate::clock::{Moment, micros};
use crate::snapshot::State;
use crate::store::Record;

/// As many keyed as a registry has places for unless it is told otherwise.
pub(crate) const MAX_KEYED: usize = 10_000;
/// A keyed that has not been used for so long goes, even if there are places left.
const LONG_UNUSED: Duration = Duration::from_secs(600);
/// Guests are let go in bites of so many, because nobody can look a name up meanwhile.
const BITE: usize = 32;

/// What the fleet is known to hold a breaker in, as of a moment.
type Held = (Record, Moment);

pub(crate) struct BreakerMap {
    entries: RwLock<Entries>,
    /// Places for keyed.
    places: usize,
    /// When keyed were let go the last time. What has been used since counts as used then: fine enough to tell
    /// who goes first, and calls need not look at the clock.
    swept_at: AtomicU64,
}

#[derive(Default)]
struct Entries {
    cores: HashMap<Arc<str>, BreakerEntry>,
    keyed: usize,
    /// Not registered here (yet), held by the fleet: a breaker that is created later is where the fleet is from
    /// its first call on.
    held: HashMap<Arc<str>, Held>,
}

struct BreakerEntry {
    core: Arc<Core>,
    keyed: bool,
    used_at: AtomicU64,
    /// The sites that have met it, a bit for each: their settings have been compared with its own.
    met: AtomicU64,
    /// What a keyed's name is one of; not there while no function has asked for it.
    pattern: OnceLock<&'static str>,
    #[cfg(feature = "metrics")]
    published: std::sync::Mutex<crate::metrics::Calls>,
}

/// A function whose breakers are keyed.
#[derive(Clone, Copy)]
pub(crate) struct KeyedSite {
    /// Tells it from others. Beyond 64 of them some share one, and that their settings differ may go unnoticed.
    pub(crate) bit: u64,
    /// The name as it stands in the attribute: `"tenant-{id}"`.
    pub(crate) pattern: &'static str,
}

/// A keyed that a site has looked up.
pub(crate) struct KeyedBreaker {
    pub(crate) core: Arc<Core>,
    /// This site has not met it before.
    pub(crate) first: bool,
}

impl BreakerMap {
    pub(crate) fn new(places: usize, now: Moment) -> Self {
        BreakerMap { entries: RwLock::default(), places, swept_at: AtomicU64::new(now.0) }
    }

    pub(crate) fn places(&self) -> usize {
        self.places
    }

    pub(crate) fn has_keyed(&self) -> bool {
        self.read().keyed > 0
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Core>> {
        self.read().cores.get(name).map(|entry| entry.core.clone())
    }

    pub(crate) fn all(&self) -> Vec<Arc<Core>> {
        self.read().cores.values().map(|entry| entry.core.clone()).collect()
    }

    /// The fleet holds a breaker of this name in some state other than closed, and it is not registered here.
    pub(crate) fn is_held(&self, name: &str) -> bool {
        self.read().held.contains_key(name)
    }

    /// The breaker of that name, to be pinned from now on, if it is there.
    pub(crate) fn pin(&self, name: &str) -> Option<Arc<Core>> {
        let entries = self.read();
        let entry = entries.cores.get(name)?;
        if !entry.keyed {
            return Some(entry.core.clone());
        }
        drop(entries);
        self.write().pin(name)
    }

    /// The breaker of that name, pinned; `make` gets what the fleet is known to hold it in.
    pub(crate) fn get_or_insert(
        &self,
        name: &str,
        make: impl FnOnce(Arc<str>, Option<Held>) -> Arc<Core>,
    ) -> Arc<Core> {
        let mut entries = self.write();
        match entries.pin(name) {
            Some(core) => core,
            None => entries.insert(name, false, make).core.clone(),
        }
    }

    /// The breaker of that name, if it is there, for a call of this site.
    pub(crate) fn get_keyed(&self, name: &str, site: KeyedSite) -> Option<KeyedBreaker> {
        let entries = self.read();
        let entry = entries.cores.get(name)?;
        let now = self.swept_at.load(Ordering::Relaxed);
        if entry.used_at.load(Ordering::Relaxed) != now {
            entry.used_at.store(now, Ordering::Relaxed);
        }
        let first = entry.met.load(Ordering::Relaxed) & site.bit == 0
            && entry.met.fetch_or(site.bit, Ordering::Relaxed) & site.bit == 0;
        if first {
            entry.pattern.get_or_init(|| site.pattern);
        }
        Some(KeyedBreaker { core: entry.core.clone(), first })
    }

    /// The breaker of that name, as a keyed if it is not there; `None` if there is no place for one. What the fleet holds
    /// in a state other than closed always has a place: the states themselves are known here, too.
    pub(crate) fn get_or_admit(
        &self,
        name: &str,
        site: KeyedSite,
        make: impl FnOnce(Arc<str>, Option<Held>) -> Arc<Core>,
    ) -> Option<Arc<Core>> {
        let mut entries = self.write();
        if let Some(entry) = entries.cores.get(name) {
            return Some(entry.core.clone());
        }
        if entries.keyed >= self.places && !entries.held.contains_key(name) {
            return None;
        }
        Some(self.admit(&mut entries, name, Some(site), make))
    }

    /// The breaker of that name for someone who only looks at it or steers it: a keyed, place or not, if it is not there.
    pub(crate) fn look(
        &self,
        name: &str,
        make: impl FnOnce(Arc<str>, Option<Held>) -> Arc<Core>,
    ) -> Arc<Core> {
        let mut entries = self.write();
        if let Some(entry) = entries.cores.get(name) {
            return entry.core.clone();
        }
        self.admit(&mut entries, name, None, make)
    }

    fn admit(
        &self,
        entries: &mut Entries,
        name: &str,
        site: Option<KeyedSite>,
        make: impl FnOnce(Arc<str>, Option<Held>) -> Arc<Core>,
    ) -> Arc<Core> {
        let entry = entries.insert(name, true, make);
        *entry.used_at.get_mut() = self.swept_at.load(Ordering::Relaxed);
        if let Some(site) = site {
            *entry.met.get_mut() = site.bit;
            entry.pattern = site.pattern.into();
        }
        entry.core.clone()
    }

    /// The fleet's state of a breaker, registered here or not.
    pub(crate) fn adopt(&self, name: &Arc<str>, record: &Record, now: Moment) {
        let core = {
            let mut entries = self.write();
            let core = entries.cores.get(name).map(|entry| entry.core.clone());
            if core.is_none() {
                if record.state == State::Closed {
                    entries.held.remove(name);
                } else {
                    entries.held.insert(name.clone(), (record.clone(), now));
                }
            }
            core
        };
        if let Some(core) = core {
            core.adopt(record);
        }
    }

    /// Lets go of keyed that nobody needs: those that have not been used for long, and beyond them as many as it
    /// takes for a quarter of the places to be free, once less than an eighth is.
    pub(crate) fn sweep(&self, now: Moment) {
        self.swept_at.store(now.0, Ordering::Relaxed);
        let is_old = |used_at: u64| used_at.saturating_add(micros(LONG_UNUSED)) <= now.0;
        let (mut idle, mut wanted) = self.idle_guests(is_old);
        idle.sort_unstable();
        for bite in idle.chunks(BITE) {
            let most = wanted.max(bite.partition_point(|(used_at, _)| is_old(*used_at)));
            if most == 0 {
                return;
            }
            // They are dropped here, after the lock.
            wanted = wanted.saturating_sub(self.let_go(bite, most).len());
        }
    }

    /// Guests that might go, with when they were used, and how many have to.
    fn idle_guests(&self, is_old: impl Fn(u64) -> bool) -> (Vec<(u64, Arc<str>)>, usize) {
        let entries = self.read();
        if entries.keyed == 0 {
            return (Vec::new(), 0);
        }
        let spare = (self.places / 8).max(1);
        let free = self.places.saturating_sub(entries.keyed);
        let over = entries.keyed.saturating_sub(self.places);
        let wanted = if free < spare { over + 2 * spare - free } else { 0 };
        let idle = entries.cores.iter().filter_map(|(name, entry)| {
            let used_at = entry.used_at.load(Ordering::Relaxed);
            ((wanted > 0 || is_old(used_at)) && entry.is_idle()).then(|| (used_at, name.clone()))
        });
        (idle.collect(), wanted)
    }

    /// Lets at most so many of these go.
    fn let_go(&self, names: &[(u64, Arc<str>)], most: usize) -> Vec<BreakerEntry> {
        let mut entries = self.write();
        let mut gone = Vec::with_capacity(names.len());
        for (used_at, name) in names {
            if gone.len() == most {
                break;
            }
            // Nobody but the breakers has it, and nobody can get it from there now: what is at rest stays so.
            let goes = |entry: &BreakerEntry| {
                entry.used_at.load(Ordering::Relaxed) == *used_at
                    && entry.is_idle()
                    && entry.core.is_at_rest()
            };
            if entries.cores.get(name).is_some_and(goes) {
                #[cfg(feature = "metrics")]
                entries.count_out(name);
                gone.extend(entries.cores.remove(name));
                entries.keyed -= 1;
            }
        }
        gone
    }

    fn read(&self) -> RwLockReadGuard<'_, Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Entries> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn pin(&mut self, name: &str) -> Option<Arc<Core>> {
        let entry = self.cores.get_mut(name)?;
        self.keyed -= usize::from(std::mem::replace(&mut entry.keyed, false));
        Some(entry.core.clone())
    }

    fn insert(
        &mut self,
        name: &str,
        keyed: bool,
        make: impl FnOnce(Arc<str>, Option<Held>) -> Arc<Core>,
    ) -> &mut BreakerEntry {
        let held = self.held.remove(name);
        let name: Arc<str> = name.into();
        let core = make(name.clone(), held);
        self.keyed += usize::from(keyed);
        let entry = BreakerEntry {
            core,
            keyed,
            used_at: AtomicU64::new(0),
            met: AtomicU64::new(0),
            pattern: OnceLock::new(),
            #[cfg(feature = "metrics")]
            published: std::sync::Mutex::default(),
        };
        self.cores.entry(name).insert_entry(entry).into_mut()
    }
}

impl BreakerEntry {
    /// A keyed that is closed, and that nobody but the breakers holds.
    fn is_idle(&self) -> bool {
        self.keyed && Arc::strong_count(&self.core) == 1 && self.core.is_closed()
    }
}
