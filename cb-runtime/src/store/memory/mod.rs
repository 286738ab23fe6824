//! The store inside one process.
//!
//! Registries that share one (through an `Arc`) are the instances of a fleet within one process. Times are
//! those of its clock, which a test may advance; only `watch` waits in real time.

mod breaker;
mod count_window;
mod failing;
#[cfg(test)]
mod faults;
mod leases;
mod notices;
mod overview;
mod role;
mod settings;
mod streak;
mod time_window;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::ready;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::{
    Acknowledged, Answer, Batch, BoxFuture, Counts, Entry, EventsAt, IDLE, Load, News, Position, Record,
    Report, Retention, Store, StreamEvent, View,
};
use crate::clock::{Clock, micros};
use crate::error::Error;
use crate::snapshot::State;
use breaker::StoredBreaker;
#[cfg(test)]
pub(crate) use faults::Backup;
use notices::Notices;

pub(crate) struct MemoryStore {
    clock: Clock,
    space: Mutex<Space>,
    /// Notified after an event has been added.
    news: Notify,
}

/// All that is kept.
#[cfg_attr(test, derive(Clone))]
struct Space {
    incarnation: String,
    /// The number of the last event.
    number: u64,
    /// The last event's id. Unlike the number it never restarts, so that a watch from an old position gets
    /// the events of a new incarnation.
    serial: u64,
    /// The serial of the last event.
    last: u64,
    events: VecDeque<StreamEvent>,
    retention: Retention,
    notices: Notices,
    board: overview::Board,
    breakers: BTreeMap<Arc<str>, StoredBreaker>,
    /// By instance: the highest number of a batch, and when it came.
    sequences: HashMap<Arc<str>, (u64, u64)>,
    swept_at: u64,
}

/// The interval in which idle breakers are removed.
const SWEEP: Duration = Duration::from_secs(300);

impl MemoryStore {
    pub(crate) fn new(clock: Clock) -> Self {
        let swept_at = clock.now().0;
        let space = Space {
            incarnation: new_incarnation(),
            number: 0,
            serial: 0,
            last: 0,
            events: VecDeque::new(),
            retention: Retention::default(),
            notices: Notices::default(),
            board: overview::Board::default(),
            breakers: BTreeMap::new(),
            sequences: HashMap::new(),
            swept_at,
        };
        MemoryStore { clock, space: Mutex::new(space), news: Notify::new() }
    }

    pub(crate) fn retaining(self, retention: Retention) -> Self {
        self.lock().retention = retention;
        self
    }

    /// [`Store::exchange`] without a future, for simulations.
    pub(crate) fn exchange_now(&self, batch: &Batch) -> Answer {
        let (answer, is_news) = {
            let mut space = self.lock();
            // Inside the lock: of two exchanges, the later one must not have the earlier time.
            let now = self.clock.now().0;
            let before = (space.serial, space.notices.latest());
            (space.exchange(batch, now), (space.serial, space.notices.latest()) != before)
        };
        if is_news {
            self.news.notify_waiters();
        }
        answer
    }

    /// [`Store::report`] without a future.
    pub(crate) fn report_now(&self, report: &Report) -> Acknowledged {
        let mut space = self.lock();
        let now = self.clock.now().0;
        space.report(report, now)
    }

    /// Nothing under the lock can panic halfway through a change, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, Space> {
        self.space.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn events_after(&self, from: &Position) -> Vec<StreamEvent> {
        let start = serial(&from.id);
        let is_later = |event: &&StreamEvent| serial(&event.position.id) > start;
        self.lock().events.iter().filter(is_later).cloned().collect()
    }
}

impl Space {
    fn exchange(&mut self, batch: &Batch, now: u64) -> Answer {
        let when = self.begin(&batch.instance, batch.seq, batch.as_of_us, now);
        let views = batch.entries.iter().map(|entry| self.entry(batch, entry, when)).collect();
        self.notices.give(now);
        Answer { now_us: now, position: self.position(), views, warnings: Vec::new() }
    }

    fn report(&mut self, report: &Report, now: u64) -> Acknowledged {
        let when = self.begin(&report.instance, report.seq, report.as_of_us, now);
        let mut exchange = Vec::new();
        for (at, entry) in report.entries.iter().enumerate() {
            let mut breaker = self.take(&entry.name, now);
            if breaker.report(entry, when) {
                exchange.push(at);
            }
            if breaker.is_kept() {
                breaker.touch(now);
                self.breakers.insert(entry.name.clone(), breaker);
            }
        }
        Acknowledged {
            now_us: now,
            position: self.position(),
            exchange,
            suspects: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Notes the number of a batch or report.
    fn begin(&mut self, instance: &Arc<str>, seq: u64, as_of_us: Option<u64>, now: u64) -> When {
        self.sweep(now);
        let last = self.sequences.get(instance).map(|&(seq, _)| seq);
        let retry = last.is_some_and(|last| seq <= last);
        self.sequences.insert(instance.clone(), (seq.max(last.unwrap_or(0)), now));
        let second = micros(Duration::from_secs(1));
        let base = as_of_us.filter(|at| (now.saturating_sub(second)..=now).contains(at)).unwrap_or(now);
        When { now, base, retry }
    }

    fn announce(
        &mut self,
        name: &Arc<str>,
        from: Option<State>,
        record: Record,
        evidence: Counts,
        at_us: u64,
    ) {
        let position = self.next_position();
        let record = Record { since_us: 0, ..record };
        self.events.push_back(StreamEvent { position, name: name.clone(), from, record, evidence, at_us });
        while self.events.len() > self.retention.events {
            self.events.pop_front();
        }
    }

    fn entry(&mut self, batch: &Batch, entry: &Entry, when: When) -> Result<View, String> {
        entry.check()?;
        let (instance, node) = (&batch.instance, batch.node());
        let now = when.now;
        // A breaker that is only asked after is not kept, so it is put back only if it says so.
        let mut breaker = self.take(&entry.name, now);
        if let Some(known) = entry.known() {
            self.write_back(&mut breaker, &entry.name, known, now);
        }
        breaker.merge(node, entry, when);
        if entry.leaves {
            breaker.forget_failing(node, entry);
        }
        breaker.settle_leases(instance, &entry.leases, now);
        if let Some(role) = entry.role.filter(|role| role.want) {
            breaker.take_role(instance, role.term_us, now);
        }
        let from = breaker.state();
        let won = entry.proposal.as_ref().is_some_and(|proposal| {
            breaker.propose(proposal, entry.known().map(|known| known.epoch), instance, now)
        });
        if won && let Some(proposal) = &entry.proposal {
            self.announce(&entry.name, Some(from), breaker.record(now), proposal.evidence, now);
        }
        // A late release may arrive after a later request, which has taken the lease again.
        if entry.role.is_some_and(|role| !role.want) && !when.retry {
            breaker.role().give_up(instance);
        }
        if entry.notice {
            breaker.request_notice(&entry.name, &mut self.notices, now);
        }
        let (granted, lease_wait_us) = breaker.hand_out(instance, &entry.leases, now);
        let view = View {
            record: breaker.record(now),
            counts: breaker.counts(),
            streak: breaker.streak(),
            window: entry.window.map(|ask| breaker.window(ask, now)),
            won,
            granted,
            lease_wait_us,
            success_age_us: breaker.success_age_us(now),
            failing: if entry.failing { breaker.failing(node, now) } else { Vec::new() },
            last: entry.last.map(|ask| breaker.last(ask, entry.failing.then_some(&**node), now)),
            role: entry.role.map(|_| breaker.role().view(instance, now)),
            other_settings: breaker.settle_settings(&entry.settings, now),
            notice_age_us: breaker.notice_age_us(now).filter(|_| entry.notice || entry.known.is_none()),
        };
        breaker.note_streak();
        if breaker.is_kept() {
            breaker.touch(now);
            self.breakers.insert(entry.name.clone(), breaker);
        }
        Ok(view)
    }

    /// Takes over a record that was lost, if it is one.
    fn write_back(&mut self, breaker: &mut StoredBreaker, name: &Arc<str>, known: &Record, now: u64) {
        let before = breaker.state();
        let restored = breaker.write_back(known, now);
        // For those that are in the state that the store had, its end is a transition.
        let ended = Some(before).filter(|_| breaker.state() == State::Closed && before != State::Closed);
        if restored && (breaker.state() != State::Closed || ended.is_some()) {
            self.announce(name, ended, breaker.record(now), Counts::default(), now);
        }
    }

    /// Taken out, and put back by the caller if it is kept.
    fn take(&mut self, name: &Arc<str>, now: u64) -> StoredBreaker {
        self.breakers.remove(name).filter(|breaker| !breaker.has_lapsed(now)).unwrap_or_default()
    }

    fn position(&self) -> Position {
        Position {
            incarnation: self.incarnation.clone(),
            id: if self.number == 0 { "0-0".into() } else { format!("{}-0", self.last) },
            number: self.number,
        }
    }

    fn next_position(&mut self) -> Position {
        self.serial += 1;
        self.last = self.serial;
        self.number += 1;
        self.position()
    }

    fn sweep(&mut self, now: u64) {
        if now.saturating_sub(self.swept_at) < micros(SWEEP) {
            return;
        }
        self.swept_at = now;
        let idle = micros(IDLE);
        self.breakers.retain(|_, breaker| !breaker.is_idle(now) && !breaker.has_lapsed(now));
        self.sequences.retain(|_, &mut (_, at)| now.saturating_sub(at) < idle);
    }
}

/// The times that one batch is judged by.
#[derive(Clone, Copy)]
struct When {
    now: u64,
    /// What ages are counted back from.
    base: u64,
    retry: bool,
}

/// The serial in an event's id; 0 for a text that is no id.
fn serial(id: &str) -> u64 {
    id.split('-').next().and_then(|serial| serial.parse().ok()).unwrap_or(0)
}

fn new_incarnation() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("memory-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Store for MemoryStore {
    fn exchange(&self, batch: Batch) -> BoxFuture<'_, Result<Answer, Error>> {
        Box::pin(ready(Ok(self.exchange_now(&batch))))
    }

    fn report(&self, report: Report) -> BoxFuture<'_, Result<Acknowledged, Error>> {
        Box::pin(ready(Ok(self.report_now(&report))))
    }

    fn load(&self) -> BoxFuture<'_, Result<Load, Error>> {
        let space = self.lock();
        let now_us = self.clock.now().0;
        let held = |(name, breaker): (&Arc<str>, &StoredBreaker)| {
            let is_held = breaker.state() != State::Closed && !breaker.has_lapsed(now_us);
            is_held.then(|| (name.clone(), Ok(breaker.record(now_us))))
        };
        let load = Load {
            now_us,
            position: space.position(),
            held: space.breakers.iter().filter_map(held).collect(),
            ..Load::default()
        };
        Box::pin(ready(Ok(load)))
    }

    fn watch(
        &self,
        from: Position,
        notice: String,
        patience: Duration,
    ) -> BoxFuture<'_, Result<News, Error>> {
        Box::pin(async move {
            let deadline = Instant::now().checked_add(patience);
            let after = notice
                .split('-')
                .next()
                .and_then(|number| number.parse().ok())
                .unwrap_or_else(|| self.lock().notices.latest());
            let news = || {
                let (notices, latest) = self.lock().notices.after(after);
                News { events: self.events_after(&from), notices, notice: latest.to_string() }
            };
            loop {
                // Before looking: what comes between looking and waiting is then not missed.
                let changed = self.news.notified();
                let found = news();
                if !found.events.is_empty() || !found.notices.is_empty() {
                    return Ok(found);
                }
                match deadline {
                    None => changed.await,
                    Some(deadline) => {
                        if tokio::time::timeout_at(deadline, changed).await.is_err() {
                            return Ok(news());
                        }
                    }
                }
            }
        })
    }

    fn history(&self, at: EventsAt, limit: usize) -> BoxFuture<'_, Result<Vec<StreamEvent>, Error>> {
        let space = self.lock();
        let compared = |event: &StreamEvent, id: &str| serial(&event.position.id).cmp(&serial(id));
        let kept = space.events.iter();
        let events = match at {
            EventsAt::Newest => kept.rev().take(limit).cloned().collect(),
            EventsAt::Before(id) => {
                kept.rev().filter(|event| compared(event, &id).is_lt()).take(limit).cloned().collect()
            }
            EventsAt::After(id) => {
                kept.filter(|event| compared(event, &id).is_gt()).take(limit).cloned().collect()
            }
        };
        Box::pin(ready(Ok(events)))
    }
}
