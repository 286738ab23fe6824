//! The breakers of one registry, and what is known of others that the fleet holds in a state other than closed.
//!
//! Most breakers are *kept*: functions and handles with a name of their own ask for them, so there are as many as the
//! program has names. The others are *guests*: their names are made of arguments, and there is no end to those. So
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

/// As many guests as a registry has places for unless it is told otherwise.
pub(crate) const GUESTS: usize = 10_000;
/// A guest that has not been used for so long goes, even if there are places left.
const LONG_UNUSED: Duration = Duration::from_secs(600);
/// Guests are let go in bites of so many, because nobody can look a name up meanwhile.
const BITE: usize = 32;

/// What the fleet is known to hold a breaker in, as of a moment.
type Held = (Record, Moment);

pub(crate) struct Book {
    pages: RwLock<Pages>,
    /// Places for guests.
    places: usize,
    /// When guests were let go the last time. What has been used since counts as used then: fine enough to tell
    /// who goes first, and calls need not look at the clock.
    swept_at: AtomicU64,
}

#[derive(Default)]
struct Pages {
    cores: HashMap<Arc<str>, Page>,
    guests: usize,
    /// Not registered here (yet), held by the fleet: a breaker that is created later is where the fleet is from
    /// its first call on.
    held: HashMap<Arc<str>, Held>,
}

struct Page {
    core: Arc<Core>,
    guest: bool,
    used_at: AtomicU64,
    /// The sites that have met it, a bit for each: their settings have been compared with its own.
    met: AtomicU64,
    /// What a guest's name is one of; not there while no function has asked for it.
    pattern: OnceLock<&'static str>,
    #[cfg(feature = "metrics")]
    published: std::sync::Mutex<crate::meter::Calls>,
}

/// A function whose breakers are guests.
#[derive(Clone, Copy)]
pub(crate) struct Site {
    /// Tells it from others. Beyond 64 of them some share one, and that their settings differ may go unnoticed.
    pub(crate) bit: u64,
    /// The name as it stands in the attribute: `"tenant-{id}"`.
    pub(crate) pattern: &'static str,
}

/// A guest that a site has looked up.
pub(crate) struct Visit {
    pub(crate) core: Arc<Core>,
    /// This site has not met it before.
    pub(crate) first: bool,
}

impl Book {
    pub(crate) fn new(places: usize, now: Moment) -> Self {
        Book { pages: RwLock::default(), places, swept_at: AtomicU64::new(now.0) }
    }

    pub(crate) fn places(&self) -> usize {
        self.places
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Core>> {
        self.read().cores.get(name).map(|page| page.core.clone())
    }

    pub(crate) fn all(&self) -> Vec<Arc<Core>> {
        self.read().cores.values().map(|page| page.core.clone()).collect()
    }

    /// The fleet holds a breaker of this name in some state other than closed, and it is not registered here.
    pub(crate) fn is_held(&self, name: &str) -> bool {
        self.read().held.contains_key(name)
    }

    /// The breaker of that name, to be kept from now on, if it is there.
    pub(crate) fn keep(&self, name: &str) -> Option<Arc<Core>> {
        let pages = self.read();
        let page = pages.cores.get(name)?;
        if !page.guest {
            return Some(page.core.clone());
        }
        drop(pages);
        self.write().keep(name)
    }

    /// The breaker of that name, kept; `make` gets what the fleet is known to hold it in.
    pub(crate) fn get_or_insert(
        &self,
        name: &str,
        make: impl FnOnce(Arc<str>, Option<Held>) -> Arc<Core>,
    ) -> Arc<Core> {
        let mut pages = self.write();
        match pages.keep(name) {
            Some(core) => core,
            None => pages.insert(name, false, make).core.clone(),
        }
    }

    /// The breaker of that name, if it is there, for a call of this site.
    pub(crate) fn visit(&self, name: &str, site: Site) -> Option<Visit> {
        let pages = self.read();
        let page = pages.cores.get(name)?;
        let now = self.swept_at.load(Ordering::Relaxed);
        if page.used_at.load(Ordering::Relaxed) != now {
            page.used_at.store(now, Ordering::Relaxed);
        }
        let first = page.met.load(Ordering::Relaxed) & site.bit == 0
            && page.met.fetch_or(site.bit, Ordering::Relaxed) & site.bit == 0;
        if first {
            page.pattern.get_or_init(|| site.pattern);
        }
        Some(Visit { core: page.core.clone(), first })
    }

    /// The breaker of that name, as a guest if it is not there; `None` if there is no place for one. What the fleet holds
    /// in a state other than closed always has a place: the states themselves are known here, too.
    pub(crate) fn get_or_admit(
        &self,
        name: &str,
        site: Site,
        make: impl FnOnce(Arc<str>, Option<Held>) -> Arc<Core>,
    ) -> Option<Arc<Core>> {
        let mut pages = self.write();
        if let Some(page) = pages.cores.get(name) {
            return Some(page.core.clone());
        }
        if pages.guests >= self.places && !pages.held.contains_key(name) {
            return None;
        }
        Some(self.admit(&mut pages, name, Some(site), make))
    }

    /// The breaker of that name for someone who only looks at it or steers it: a guest, place or not, if it is not there.
    pub(crate) fn look(
        &self,
        name: &str,
        make: impl FnOnce(Arc<str>, Option<Held>) -> Arc<Core>,
    ) -> Arc<Core> {
        let mut pages = self.write();
        if let Some(page) = pages.cores.get(name) {
            return page.core.clone();
        }
        self.admit(&mut pages, name, None, make)
    }

    fn admit(
        &self,
        pages: &mut Pages,
        name: &str,
        site: Option<Site>,
        make: impl FnOnce(Arc<str>, Option<Held>) -> Arc<Core>,
    ) -> Arc<Core> {
        let page = pages.insert(name, true, make);
        *page.used_at.get_mut() = self.swept_at.load(Ordering::Relaxed);
        if let Some(site) = site {
            *page.met.get_mut() = site.bit;
            page.pattern = site.pattern.into();
        }
        page.core.clone()
    }

    /// The fleet's state of a breaker, registered here or not.
    pub(crate) fn adopt(&self, name: &Arc<str>, record: &Record, now: Moment) {
        let core = {
            let mut pages = self.write();
            let core = pages.cores.get(name).map(|page| page.core.clone());
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

    /// Lets go of guests that nobody needs: those that have not been used for long, and beyond them as many as it
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
        let pages = self.read();
        if pages.guests == 0 {
            return (Vec::new(), 0);
        }
        let spare = (self.places / 8).max(1);
        let free = self.places.saturating_sub(pages.guests);
        let over = pages.guests.saturating_sub(self.places);
        let wanted = if free < spare { over + 2 * spare - free } else { 0 };
        let idle = pages.cores.iter().filter_map(|(name, page)| {
            let used_at = page.used_at.load(Ordering::Relaxed);
            ((wanted > 0 || is_old(used_at)) && page.is_idle()).then(|| (used_at, name.clone()))
        });
        (idle.collect(), wanted)
    }

    /// Lets at most so many of these go.
    fn let_go(&self, names: &[(u64, Arc<str>)], most: usize) -> Vec<Page> {
        let mut pages = self.write();
        let mut gone = Vec::with_capacity(names.len());
        for (used_at, name) in names {
            if gone.len() == most {
                break;
            }
            // Nobody but the book has it, and nobody can get it from there now: what is at rest stays so.
            let goes = |page: &Page| {
                page.used_at.load(Ordering::Relaxed) == *used_at && page.is_idle() && page.core.is_at_rest()
            };
            if pages.cores.get(name).is_some_and(goes) {
                #[cfg(feature = "metrics")]
                pages.count_out(name);
                gone.extend(pages.cores.remove(name));
                pages.guests -= 1;
            }
        }
        gone
    }

    fn read(&self) -> RwLockReadGuard<'_, Pages> {
        self.pages.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Pages> {
        self.pages.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn keep(&mut self, name: &str) -> Option<Arc<Core>> {
        let page = self.cores.get_mut(name)?;
        self.guests -= usize::from(std::mem::replace(&mut page.guest, false));
        Some(page.core.clone())
    }

    fn insert(
        &mut self,
        name: &str,
        guest: bool,
        make: impl FnOnce(Arc<str>, Option<Held>) -> Arc<Core>,
    ) -> &mut Page {
        let held = self.held.remove(name);
        let name: Arc<str> = name.into();
        let core = make(name.clone(), held);
        self.guests += usize::from(guest);
        let page = Page {
            core,
            guest,
            used_at: AtomicU64::new(0),
            met: AtomicU64::new(0),
            pattern: OnceLock::new(),
            #[cfg(feature = "metrics")]
            published: std::sync::Mutex::default(),
        };
        self.cores.entry(name).insert_entry(page).into_mut()
    }
}

impl Page {
    /// A guest that is closed, and that nobody but the book holds.
    fn is_idle(&self) -> bool {
        self.guest && Arc::strong_count(&self.core) == 1 && self.core.is_closed()
    }
}
