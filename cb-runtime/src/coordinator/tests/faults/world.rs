//! The fleet, its calls, and what happens to them.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fastrand::Rng;

use super::checks::Checks;
use super::instance::Instance;
use super::invariants::{assert_outcome, shown};
use super::network::{Fate, Missing, NoticeFate, Wire};
use super::overrides::{Confirmed, Override};
use super::{INSTANCES, KEYED, PINNED, RESET, RULES, Rules};
use crate::breaker::Core;
use crate::breaker::counters::Outcome;
use crate::breaker::gate::GateWord;
use crate::breaker::permit::{Admission, CallPermit};
use crate::clock::{Clock, MANUAL_START, ManualClock, Moment};
use crate::snapshot::{Snapshot, State};
use crate::store::Retention;
use crate::store::memory::{Backup, MemoryStore};
use crate::sync::lock;

pub(super) const BREAKERS: usize = PINNED.len() + KEYED.len();

pub(super) fn name_of(breaker: usize) -> &'static str {
    PINNED.into_iter().chain(KEYED).nth(breaker).expect("a breaker")
}

/// A call that has begun and has not ended.
pub(super) struct Call {
    pub(super) instance: usize,
    pub(super) core: Arc<Core>,
    /// Its permit, without the reference to the breaker.
    word: GateWord,
    pub(super) is_probe: bool,
    pub(super) epoch: u64,
    /// It has begun in a state that the store had confirmed, and in which calls are counted.
    is_of_epoch: bool,
    /// When its caller asked for admission. Its lease, if it has one, was granted after that.
    pub(super) asked: Moment,
    pub(super) begun: Moment,
    /// It never ends.
    pub(super) hangs: bool,
}

/// A caller that waits for a probe.
pub(super) struct WaitingCaller {
    pub(super) instance: usize,
    core: Arc<Core>,
    asked: Moment,
    answer: Pin<Box<dyn Future<Output = Option<GateWord>>>>,
    /// For this long while its instance ran.
    pub(super) waited: Duration,
}

/// The store's latest loss of data.
#[derive(Clone, Copy, Default)]
pub(super) struct Loss {
    pub(super) at: Moment,
    /// The serial of the latest event before it.
    pub(super) serial: u64,
}

#[expect(clippy::struct_excessive_bools, reason = "each tells one kind of history from the others")]
pub(super) struct World {
    pub(super) random: Rng,
    pub(super) clock: Clock,
    hands: ManualClock,
    store_hands: ManualClock,
    /// By how much the store's clock has been set ahead.
    store_ahead: Duration,
    pub(super) store: Arc<MemoryStore>,
    missing: Missing,
    backup: Backup,
    pub(super) is_trimmed: bool,
    /// Breakers whose keys alone have been deleted.
    pub(super) deleted: BTreeSet<&'static str>,
    pub(super) instances: Vec<Instance>,
    /// How many instances have been started.
    started: usize,
    pub(super) calls: Vec<Call>,
    pub(super) waiting: Vec<WaitingCaller>,
    pub(super) overrides: Vec<Override>,
    pub(super) checks: Checks,
    /// By breaker: what the store has confirmed.
    pub(super) confirmed: BTreeMap<&'static str, Confirmed>,
    /// When the store last lost data, or its clock jumped: leases may have been granted twice.
    pub(super) disturbed_at: Moment,
    pub(super) loss: Loss,
    /// Every fault has ended, and no call hangs any more.
    pub(super) is_healing: bool,
    pub(super) rules: Rules,
    /// Instances get other settings while they run.
    pub(super) is_configured_anew: bool,
    /// Instances register breakers when they call them, and look at breakers that they have not called.
    is_looked_at: bool,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let (clock, hands) = Clock::manual();
        let (store_clock, store_hands) = Clock::manual();
        let mut random = Rng::with_seed(seed);
        // Either the stream is trimmed all the time, or the store is restored from backups. Where both happen
        // unnoticed, nothing tells old events from new ones.
        let is_trimmed = random.bool();
        let events = if is_trimmed { 3 } else { 1000 };
        let retention = Retention { events, ..Retention::default() };
        let store = Arc::new(MemoryStore::new(store_clock).retaining(retention));
        let mut world = World {
            random,
            clock,
            hands,
            store_hands,
            store_ahead: Duration::ZERO,
            deleted: BTreeSet::new(),
            is_trimmed,
            backup: store.back_up(),
            store,
            missing: Missing::default(),
            instances: Vec::new(),
            started: 0,
            calls: Vec::new(),
            waiting: Vec::new(),
            overrides: Vec::new(),
            checks: Checks::default(),
            confirmed: BTreeMap::new(),
            disturbed_at: Moment(0),
            loss: Loss::default(),
            is_healing: false,
            rules: RULES[usize::try_from(seed % 3).expect("small")],
            is_configured_anew: seed.is_multiple_of(2),
            is_looked_at: seed % 5 == 1,
        };
        world.instances = (0..INSTANCES).map(|_| world.start()).collect();
        world
    }

    fn start(&mut self) -> Instance {
        self.started += 1;
        let wire = Wire::new(self.store.clone(), self.missing.clone(), self.clock.clone());
        let name = format!("instance-{}", self.started);
        Instance::start(&name, wire, self.rules, !self.is_looked_at, self.checks.begun.clone())
    }

    /// Its calls are gone without an outcome, and its leases stay with the store.
    fn kill(&mut self, number: usize) {
        self.instances[number].kill();
        self.calls.retain(|call| call.instance != number);
        self.waiting.retain(|caller| caller.instance != number);
        self.overrides.retain(|order| order.instance != number);
        self.checks.kill(number);
        self.instances[number] = self.start();
    }

    pub(super) fn end(self) {
        self.instances.iter().for_each(Instance::kill);
    }

    /// Time passes for everything, in small pieces: nothing that is due is skipped.
    pub(super) async fn advance(&mut self, span: Duration) {
        let mut left = span;
        while !left.is_zero() {
            let piece = left.min(Duration::from_millis(50));
            self.hands.advance(piece);
            self.store_hands.advance(piece);
            tokio::time::advance(piece).await;
            for caller in &mut self.waiting {
                if !self.instances[caller.instance].is_paused() {
                    caller.waited += piece;
                }
            }
            for order in &mut self.overrides {
                if !self.instances[order.instance].is_paused() {
                    order.waited += piece;
                }
            }
            self.time_checks_out();
            self.run_tasks().await;
            left -= piece;
        }
    }

    fn polls(&self) -> u64 {
        self.instances.iter().map(Instance::polls).sum()
    }

    /// Lets every task run until it waits for something.
    pub(super) async fn run_tasks(&mut self) {
        // A task that has become ready runs in the turn after the next.
        let (mut idle, mut before) = (0, self.polls());
        for _ in 0..12 {
            tokio::task::yield_now().await;
            let polls = self.polls();
            idle = if polls == before { idle + 1 } else { 0 };
            if idle == 2 {
                break;
            }
            before = polls;
        }
        self.poll_overrides();
        self.begin_checks();
        let mut context = Context::from_waker(Waker::noop());
        let mut at = 0;
        while at < self.waiting.len() {
            let caller = &mut self.waiting[at];
            if self.instances[caller.instance].is_paused() {
                at += 1;
                continue;
            }
            match caller.answer.as_mut().poll(&mut context) {
                Poll::Pending => at += 1,
                Poll::Ready(answer) => {
                    let caller = self.waiting.swap_remove(at);
                    if let Some(word) = answer {
                        self.begin(caller.instance, caller.core, word, caller.asked);
                    }
                }
            }
        }
    }

    fn begin(&mut self, instance: usize, core: Arc<Core>, word: GateWord, asked: Moment) {
        let Snapshot { state, epoch, local, .. } = core.snapshot_without_settings();
        self.calls.push(Call {
            instance,
            core,
            word,
            is_probe: state == State::HalfOpen,
            epoch,
            is_of_epoch: !local && state != State::Disabled,
            asked,
            begun: self.clock.now(),
            hangs: self.random.u8(..20) == 0 && !self.is_healing,
        });
    }

    /// Begins a call, or makes its caller wait for a probe.
    pub(super) fn call(&mut self, instance: usize, breaker: usize) {
        let Some(core) = self.instances[instance].breaker(breaker) else { return };
        let (owned, asked) = (core.clone(), self.clock.now());
        let mut answer: Pin<Box<dyn Future<Output = Option<GateWord>>>> = Box::pin(async move {
            match owned.admit() {
                Admission::Go(permit) => Some(permit.into_word()),
                Admission::No(_) => None,
                Admission::Wait(waiting) => waiting.await.ok().map(CallPermit::into_word),
            }
        });
        match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(word)) => self.begin(instance, core, word, asked),
            Poll::Ready(None) => {}
            Poll::Pending => {
                let waited = Duration::ZERO;
                self.waiting.push(WaitingCaller { instance, core, asked, answer, waited });
            }
        }
    }

    pub(super) fn end_call(&mut self, index: usize, outcome: Outcome) {
        let Call { core, word, epoch, is_of_epoch, .. } = self.calls.swap_remove(index);
        let before = core.snapshot_without_settings();
        match outcome {
            // The dependency has said when to come back.
            Outcome::Failure if !self.is_healing && self.random.u8(..20) == 0 => {
                core.record_opening(word, self.milliseconds(4000));
            }
            _ => core.record(word, outcome),
        }
        // A state that the store has not confirmed gets its epoch with the confirmation.
        let epoch = is_of_epoch.then_some(epoch);
        assert_outcome(epoch, outcome, &before, &core.snapshot_without_settings());
    }

    pub(super) async fn step(&mut self) {
        let number = self.random.usize(..INSTANCES);
        let breaker = self.random.usize(..BREAKERS);
        let dice = self.random.u8(..100);
        match dice {
            0..38 => self.step_call(number, breaker),
            38..40 => self.step_override(number, breaker).await,
            40..46 if self.checks.are_under_way() => self.step_end_check(),
            46 if self.is_configured_anew => self.step_configure(number),
            47 if self.is_looked_at => self.step_look(number, breaker),
            40..60 => self.step_end(),
            60..71 => {
                let span = self.milliseconds(400);
                self.advance(span).await;
            }
            71..74 => self.advance(RESET).await,
            74 => self.advance(Duration::from_secs(11)).await,
            75..80 => {
                let slow = Fate::Slow(self.milliseconds(300), self.milliseconds(300));
                let fates = [Fate::RequestLost, Fate::AnswerLost, slow, slow];
                *lock(&self.instances[number].wire.fate) = fates[self.random.usize(..fates.len())];
            }
            80..82 => {
                let delay = self.random.u64(..500_000);
                self.instances[number].wire.event_delay.store(delay, Ordering::Relaxed);
            }
            82 => {
                let late = self.random.bool();
                let fate = if late { NoticeFate::Late } else { NoticeFate::Lost };
                *lock(&self.instances[number].wire.notices) = fate;
            }
            83..86 => self.instances[number].wire.cut.store(true, Ordering::Relaxed),
            86 => self.instances[number].wire.deaf.store(true, Ordering::Relaxed),
            87..90 => self.instances[number].wire.cut.store(false, Ordering::Relaxed),
            90 => self.instances[number].pause(),
            91..93 => self.instances[number].resume(),
            93 => self.step_stop(number).await,
            _ => self.step_store(breaker),
        }
        self.run_tasks().await;
        self.trace(|| format!("{dice} instance {number} breaker {breaker}"));
        self.assert_invariants();
    }

    /// Shows what has happened, if a seed is replayed alone.
    pub(super) fn trace(&self, what: impl FnOnce() -> String) {
        if std::env::var_os("CB_SEED").is_some() {
            // A look at a breaker takes random numbers, and must not change the history.
            let seed = fastrand::get_seed();
            let at = self.clock.now().since(Moment(MANUAL_START));
            eprintln!("{at:?} {}: {}; the store: {}", what(), self.states(), self.store.positions());
            fastrand::seed(seed);
        }
    }

    pub(super) fn milliseconds(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.random.u64(1..most))
    }

    fn step_call(&mut self, number: usize, breaker: usize) {
        if self.instances[number].is_paused() {
            return;
        }
        let before = self.calls.len();
        self.call(number, breaker);
        // Most calls are short.
        if self.calls.len() > before && self.random.u8(..4) > 0 {
            let outcome = if self.random.u8(..10) < 6 { Outcome::Failure } else { Outcome::Success };
            self.end_call(before, outcome);
        }
    }

    /// The instance gets the settings of other rules.
    fn step_configure(&mut self, number: usize) {
        if !self.instances[number].is_paused() {
            let rules = RULES[self.random.usize(..RULES.len())];
            self.instances[number].configure(rules);
        }
    }

    fn step_look(&self, number: usize, breaker: usize) {
        if !self.instances[number].is_paused() {
            self.instances[number].look(name_of(breaker));
        }
    }

    /// The process is killed, or shuts down, and starts anew.
    async fn step_stop(&mut self, number: usize) {
        if self.random.bool() && !self.instances[number].is_paused() {
            self.instances[number].shut_down();
            let span = self.milliseconds(1000);
            self.advance(span).await;
        }
        self.kill(number);
    }

    fn step_end(&mut self) {
        if self.calls.is_empty() {
            return;
        }
        let index = self.random.usize(..self.calls.len());
        let outcome = match self.random.u8(..10) {
            0..5 => Outcome::Success,
            5..9 => Outcome::Failure,
            _ => Outcome::Cancelled,
        };
        let call = &self.calls[index];
        if !call.hangs && !self.instances[call.instance].is_paused() {
            self.end_call(index, outcome);
        }
    }

    /// Something happens to the store.
    fn step_store(&mut self, breaker: usize) {
        let name = name_of(breaker);
        let loss = Loss { at: self.clock.now(), serial: self.store.latest_serial() };
        let mut only = None;
        match self.random.u8(..8) {
            0 => self.store.forget_everything(),
            1 if self.is_trimmed => return self.store.forget_events(),
            2 => {
                self.backup = self.store.back_up();
                return;
            }
            3 if !self.is_trimmed => self.store.restore(&self.backup),
            4 => {
                self.store.forget(name);
                only = Some(name);
                self.deleted.insert(name);
                lock(&self.missing).insert(name.into());
            }
            5 | 6 => {
                self.disturbed_at = loss.at;
                self.forget_ends();
                return self.set_store_clock();
            }
            _ => return,
        }
        self.forget_confirmed(only);
        (self.loss, self.disturbed_at) = (loss, loss.at);
    }

    /// The store's clock jumps ahead or back. Never by half an hour: states that nobody uses lapse then.
    fn set_store_clock(&mut self) {
        let minutes = self.random.u64(..3) * 10;
        let (before, after) = (self.store_ahead, Duration::from_secs(60 * minutes));
        self.store_hands.advance(after.saturating_sub(before));
        self.store_hands.set_back(before.saturating_sub(after));
        self.store_ahead = after;
    }

    pub(super) fn snapshots(&self) -> impl Iterator<Item = Snapshot> {
        self.instances.iter().flat_map(|instance| {
            instance.registered().into_iter().map(|core| core.snapshot_without_settings()).collect::<Vec<_>>()
        })
    }

    pub(super) fn states(&self) -> String {
        self.snapshots().map(|snapshot| shown(&snapshot)).collect::<Vec<_>>().join("; ")
    }
}
