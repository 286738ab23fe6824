//! The breakers of one registry, and the states of others that the fleet has in a state other than closed.
//!
//! Most breakers are *pinned*: functions and handles ask for them by a name of their own, so there are as
//! many as the program has names. The others are *keyed*: their names are made of arguments, and their number
//! has no end. So a registry has a limited number of places for them, and [evicts](BreakerMap::sweep) those
//! that it can make anew without a loss.

#[cfg(feature = "metrics")]
mod counts;
mod entry;
mod eviction;
mod site_breaker;

use std::collections::{BTreeMap, HashMap};
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use crate::breaker::machine::state::DatedRecord;
use crate::breaker::{Core, Held};
use crate::clock::{Moment, micros};
use crate::config::BreakerConfig;
use crate::snapshot::State;
use crate::store::{IDLE, Record};
use crate::sync::lock;
pub(crate) use entry::{BreakerKind, MapEntry};
pub(crate) use site_breaker::SiteBreaker;

/// The default number of places for keyed breakers.
pub(crate) const MAX_KEYED: usize = 10_000;
/// The map's lock is held for this number of breakers at a time, because no breaker can be registered
/// meanwhile.
const CHUNK: usize = 32;

pub(crate) struct BreakerMap {
    // A lock of std's: it is held for a lookup or an insertion only, and never across an await.
    breakers: RwLock<Breakers>,
    /// Places for keyed breakers.
    places: usize,
    /// When breakers were evicted last. A breaker that has been used since counts as used then: fine enough
    /// to tell the least recently used, and calls need not read the clock.
    swept_at: AtomicU64,
    /// Breakers that are being steered without being registered: the coordinator serves them, no call finds
    /// them.
    steered: Mutex<Vec<Arc<Core>>>,
}

#[derive(Default)]
struct Breakers {
    registered: HashMap<Arc<str>, Registered>,
    keyed: usize,
    /// The fleet's states of breakers that are not registered here. A breaker that is registered later starts
    /// from its state.
    held: HashMap<Arc<str>, Held>,
}

struct Registered {
    core: Arc<Core>,
    /// Of a keyed breaker: the shared references of all threads that have called it.
    of_threads: Mutex<Vec<Arc<SiteBreaker>>>,
    keyed: bool,
    used_at: AtomicU64,
    /// A bit for each function that has looked it up: its settings have been compared with the breaker's.
    met: AtomicU64,
    /// The name as it stands in the attribute, of a keyed breaker that a function has looked up.
    pattern: OnceLock<&'static str>,
    #[cfg(feature = "metrics")]
    published: Mutex<crate::metrics::OutcomeCounts>,
}

/// A function whose breakers are keyed.
#[derive(Clone, Copy)]
pub(crate) struct KeyedSite {
    /// Identifies the function. Beyond 64 functions some share a bit, and a difference of their settings may
    /// go unnoticed.
    pub(crate) bit: u64,
    /// The name as it stands in the attribute: `"tenant-{id}"`.
    pub(crate) pattern: &'static str,
    /// Where the attribute stands.
    pub(crate) at: &'static Location<'static>,
}

/// A keyed breaker that a function has looked up.
pub(crate) struct KeyedBreaker {
    pub(crate) breaker: Arc<SiteBreaker>,
    pub(crate) core: Arc<Core>,
    /// This function has not met it before.
    pub(crate) first: bool,
}

impl BreakerMap {
    pub(crate) fn new(places: usize, now: Moment) -> Self {
        BreakerMap {
            breakers: RwLock::default(),
            places,
            swept_at: AtomicU64::new(now.0),
            steered: Mutex::default(),
        }
    }

    pub(crate) fn places(&self) -> usize {
        self.places
    }

    /// Whether less than a quarter of the places is free.
    pub(crate) fn is_crowded(&self) -> bool {
        self.read().keyed >= self.crowded_from()
    }

    fn crowded_from(&self) -> usize {
        self.places - self.places / 4
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Core>> {
        self.read().registered.get(name).map(|breaker| breaker.core.clone())
    }

    pub(crate) fn count(&self) -> usize {
        self.read().registered.len()
    }

    /// All registered breakers.
    pub(crate) fn registered(&self) -> Vec<Arc<Core>> {
        self.read().registered.values().map(|breaker| breaker.core.clone()).collect()
    }

    /// All breakers that the coordinator serves: registered ones, and those that are being steered.
    pub(crate) fn all(&self) -> Vec<Arc<Core>> {
        let mut all = self.registered();
        all.extend(lock(&self.steered).iter().cloned());
        all
    }

    /// All pinned ones.
    pub(crate) fn pinned(&self) -> Vec<Arc<Core>> {
        let breakers = self.read();
        breakers.registered.values().filter(|b| !b.keyed).map(|b| b.core.clone()).collect()
    }

    /// At most `most` registered breakers, pinned ones first.
    pub(crate) fn first(&self, most: usize) -> Vec<Arc<Core>> {
        let breakers = self.read();
        let (keyed, mut first): (Vec<_>, Vec<_>) = breakers.registered.values().partition(|b| b.keyed);
        first.extend(keyed.into_iter().take(most.saturating_sub(first.len())));
        first.into_iter().take(most).map(|breaker| breaker.core.clone()).collect()
    }

    /// The settings of at most `most` breakers, by name. Keyed breakers have one entry, under the pattern in
    /// their attribute, except for names that have settings of their own (`has_own`).
    pub(crate) fn settings_lines(
        &self,
        most: usize,
        has_own: impl Fn(&str) -> bool,
    ) -> BTreeMap<String, (Arc<str>, Arc<Core>)> {
        let cores: Vec<_> = {
            let breakers = self.read();
            let mut cores = HashMap::new();
            for (name, breaker) in &breakers.registered {
                let label = match breaker.pattern.get() {
                    Some(pattern) if breaker.keyed && !has_own(name) => pattern,
                    _ => &**name,
                };
                cores.entry(label.to_owned()).or_insert_with(|| breaker.core.clone());
            }
            cores.into_iter().take(most).collect()
        };
        cores.into_iter().filter_map(|(label, core)| Some((label, (core.settings_line()?, core)))).collect()
    }

    /// Whether the fleet has this breaker in a state other than closed, and it is not registered here.
    pub(crate) fn is_held(&self, name: &str) -> bool {
        self.read().held.contains_key(name)
    }

    /// The entry of this name. The map is locked until the entry is dropped.
    pub(crate) fn entry<'a>(&'a self, name: &'a str) -> MapEntry<'a> {
        MapEntry::new(self, name)
    }

    /// The breaker of that name if it is registered, pinned from now on.
    pub(crate) fn pin(&self, name: &str) -> Option<Arc<Core>> {
        let breakers = self.read();
        let breaker = breakers.registered.get(name)?;
        if !breaker.keyed {
            return Some(breaker.core.clone());
        }
        drop(breakers);
        self.entry(name).pin()
    }

    /// Notes that a call uses a keyed breaker.
    #[inline]
    pub(crate) fn used(&self, breaker: &SiteBreaker) {
        breaker.used(self.swept_at.load(Ordering::Relaxed));
    }

    /// The breaker of that name if it is registered, for this thread's calls of this function.
    pub(crate) fn get_keyed(
        &self,
        name: &str,
        config: &BreakerConfig,
        site: KeyedSite,
    ) -> Option<KeyedBreaker> {
        let breakers = self.read();
        let registered = breakers.registered.get(name)?;
        let first = registered.met.fetch_or(site.bit, Ordering::Relaxed) & site.bit == 0;
        if first {
            registered.pattern.get_or_init(|| site.pattern);
        }
        let breaker = registered.site_breaker(config);
        self.used(&breaker);
        Some(KeyedBreaker { breaker, core: registered.core.clone(), first })
    }

    /// Adopts the fleet's state of a breaker, which need not be registered here.
    pub(crate) fn adopt(&self, name: &Arc<str>, record: &Record, now: Moment) {
        let core = {
            let mut breakers = self.write();
            let core = breakers.registered.get(name).map(|breaker| breaker.core.clone());
            if core.is_none() {
                breakers.hold(name, record, now);
            }
            core
        };
        if let Some(core) = core {
            core.adopt(record);
        }
    }

    /// Whether this breaker's known state contradicts an event with this record.
    pub(crate) fn contradicts(&self, name: &str, event: &Record) -> bool {
        match self.get(name) {
            Some(core) => core.contradicts(event),
            None => self.read().held.get(name).is_some_and(|(known, _)| known.contradicts(event)),
        }
    }

    /// The state of a breaker that is not registered here.
    pub(crate) fn held_state(&self, name: &str) -> Option<Held> {
        self.read().held.get(name).cloned()
    }

    /// The states, as of `now`, of breakers that are not registered here and that `wants` accepts.
    pub(crate) fn held(&self, now: Moment, wants: impl Fn(&str) -> bool) -> Vec<(Arc<str>, Record)> {
        let breakers = self.read();
        let is_current = |name: &str, held: &Held| wants(name) && !is_lapsed(held, now, IDLE / 2);
        let current = breakers.held.iter().filter(|(name, held)| is_current(name, held));
        current.map(|(name, held)| (name.clone(), aged(held, now))).collect()
    }

    /// Breakers that are not registered here, and whose manual override has expired.
    pub(crate) fn expired(&self, now: Moment) -> Vec<Arc<str>> {
        let breakers = self.read();
        let manual = breakers.held.iter().filter(|(_, (record, _))| record.state.is_manual());
        manual.filter(|(_, held)| aged(held, now).has_expired()).map(|(name, _)| name.clone()).collect()
    }

    /// Forgets states that the store has let lapse.
    fn forget_lapsed(&self, now: Moment) {
        let is_lapsed = |held: &Held| is_lapsed(held, now, IDLE);
        if self.read().held.values().any(is_lapsed) {
            self.write().held.retain(|_, held| !is_lapsed(held));
        }
    }

    /// This instance has missed events. `listed`: all breakers that the store held in a state other than
    /// closed at `as_of`. Any other state, and any later epoch, that is known here may have ended since.
    pub(crate) fn doubt(&self, listed: &[(Arc<str>, Result<Record, String>)], as_of: Moment) {
        // A state that cannot be read is one that the store has lost.
        let epoch = |(name, record): &(Arc<str>, Result<Record, String>)| {
            (name.clone(), record.as_ref().map_or(u64::MAX, |record| record.epoch))
        };
        let listed: HashMap<Arc<str>, u64> = listed.iter().map(epoch).collect();
        let is_listed = |name: &str, known: u64| listed.get(name).is_some_and(|epoch| *epoch >= known);
        self.write()
            .held
            .retain(|name, (record, learned_at)| is_listed(name, record.epoch) || *learned_at >= as_of);
        for core in self.all() {
            core.doubt(|known| !is_listed(core.name(), known), as_of);
        }
    }

    /// Ends all doubts. The store has lost data, so a state that it does not hold may still be in force.
    pub(crate) fn end_doubts(&self) {
        for core in self.all() {
            core.end_doubt();
        }
    }

    /// Adopts a state that the store has confirmed, unless a later one is known.
    pub(crate) fn learn(&self, name: &Arc<str>, record: &Record, now: Moment) {
        let is_known = |held: &Held| held.0.epoch > record.epoch;
        if !self.read().held.get(name).is_some_and(is_known) {
            self.adopt(name, record, now);
        }
    }

    /// Whether all are closed, so that the store has no state that could be lost.
    pub(crate) fn are_closed(&self) -> bool {
        let breakers = self.read();
        breakers.held.is_empty() && breakers.registered.values().all(|breaker| breaker.core.is_closed())
    }

    /// Lets the coordinator serve a breaker that is not registered, until the answer is dropped.
    pub(crate) fn steer(self: &Arc<Self>, core: Arc<Core>) -> Steered {
        lock(&self.steered).push(core.clone());
        Steered { map: self.clone(), core }
    }

    fn read(&self) -> RwLockReadGuard<'_, Breakers> {
        self.breakers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Breakers> {
        self.breakers.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Breakers {
    fn hold(&mut self, name: &Arc<str>, record: &Record, now: Moment) {
        if record.state == State::Closed {
            self.held.remove(name);
        } else {
            self.held.insert(name.clone(), (record.clone(), now));
        }
    }
}

/// Whether the state was due this long ago, and is not durable.
fn is_lapsed((record, as_of): &Held, now: Moment, span: Duration) -> bool {
    let known = DatedRecord::new(record.clone(), *as_of);
    known.lapses_after().is_some_and(|due| now >= due.after(span))
}

fn aged((record, as_of): &Held, now: Moment) -> Record {
    record.clone().aged(micros(now.since(*as_of)))
}

/// A breaker that is being steered without being registered.
pub(crate) struct Steered {
    map: Arc<BreakerMap>,
    core: Arc<Core>,
}

impl Steered {
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }
}

impl Drop for Steered {
    fn drop(&mut self) {
        {
            let mut steered = lock(&self.map.steered);
            if let Some(at) = steered.iter().position(|core| Arc::ptr_eq(core, &self.core)) {
                steered.swap_remove(at);
            }
        }
        // The event of the change may arrive later than the breaker is registered.
        if let Some(record) = self.core.synced_record() {
            self.map.learn(self.core.name(), &record, self.core.clock().now());
        }
    }
}
