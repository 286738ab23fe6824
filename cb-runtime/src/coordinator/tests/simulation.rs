//! A fleet in one thread: real coordinators and breakers, a simulated clock, and a network that loses
//! requests and answers.
//!
//! Every run is decided by its seed, so one that fails can be looked at again: `Fleet::new(seed)`.

mod batching;
mod health;
mod histories;
mod pace;
mod recovery;
mod resync;
mod rules;
mod steering;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::mpsc;

use crate::breaker::Core;
use crate::breaker::context::RegistryContext;
use crate::breaker::counters::Outcome;
use crate::breaker::permit::{Admission, CallPermit};
use crate::breakers::{BreakerMap, Place};
use crate::cache::Cache;
use crate::clock::{Clock, ManualClock};
use crate::config::{BreakerConfig, CacheLimits, PerFunction};
use crate::coordinator::pace::Pace;
use crate::coordinator::stream::{self, Stream};
use crate::coordinator::{Command, Coordinator};
use crate::error::Error;
use crate::event::{Event, EventBus, Events};
use crate::snapshot::State;
use crate::store::memory::MemoryStore;
use crate::store::{
    Acknowledged, Answer, Batch, BoxFuture, EventsAt, FleetRow, Load, News, Position, Report, Store,
    StreamEvent,
};
use crate::sync::lock;

/// One instance's way to the store.
struct SimulatedLink {
    store: Arc<MemoryStore>,
    fate: AtomicU8,
    /// Hears of every batch before it is answered.
    listener: Mutex<Option<Listener>>,
    /// Exchanges and reports, and the entries in them.
    requests: AtomicU64,
    entries: AtomicU64,
    /// How long an answer takes, in milliseconds of the simulated clock.
    delay: AtomicU64,
    hands: ManualClock,
}

type Listener = Box<dyn FnMut(&Batch) + Send>;

const UP: u8 = 0;
const CUT: u8 = 1;
/// The next request arrives, its answer does not.
const LOSE_ANSWER: u8 = 2;

impl SimulatedLink {
    async fn through<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.hands.advance(Duration::from_millis(self.delay.load(Ordering::Relaxed)));
        match self.fate.load(Ordering::Relaxed) {
            UP => answer.await,
            CUT => Err(Error::store("simulating", "cut")),
            _ => {
                self.fate.store(UP, Ordering::Relaxed);
                answer.await?;
                Err(Error::store("simulating", "the answer is lost"))
            }
        }
    }
}

impl SimulatedLink {
    fn count(&self, entries: usize) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.entries.fetch_add(entries as u64, Ordering::Relaxed);
    }
}

impl Store for SimulatedLink {
    fn exchange(&self, batch: Batch) -> BoxFuture<'_, Result<Answer, Error>> {
        if let Some(listener) = &mut *lock(&self.listener) {
            listener(&batch);
        }
        self.count(batch.entries.len());
        Box::pin(self.through(async move { Ok(self.store.exchange_now(&batch)) }))
    }
    fn report(&self, report: Report) -> BoxFuture<'_, Result<Acknowledged, Error>> {
        self.count(report.entries.len());
        Box::pin(self.through(async move { Ok(self.store.report_now(&report)) }))
    }
    fn load(&self) -> BoxFuture<'_, Result<Load, Error>> {
        Box::pin(self.through(self.store.load()))
    }
    fn watch(
        &self,
        from: Position,
        notice: String,
        patience: Duration,
    ) -> BoxFuture<'_, Result<News, Error>> {
        self.store.watch(from, notice, patience)
    }
    fn history(&self, at: EventsAt, limit: usize) -> BoxFuture<'_, Result<Vec<StreamEvent>, Error>> {
        Box::pin(self.through(self.store.history(at, limit)))
    }
    fn fleet(&self) -> BoxFuture<'_, Result<Vec<FleetRow>, Error>> {
        Box::pin(self.through(self.store.fleet()))
    }
}

struct Member {
    wire: Arc<SimulatedLink>,
    core: Arc<Core>,
    coordinator: Coordinator,
    asked: mpsc::UnboundedSender<Command>,
    events: Events,
    /// Epochs of the transitions it has been told of.
    told: Vec<u64>,
    /// The latest notice that it has received.
    notice: String,
}

impl Drop for Member {
    /// Breakers that wait for an exchange and their context keep each other alive.
    fn drop(&mut self) {
        self.coordinator.end();
    }
}

struct Fleet {
    random: Rng,
    store: Arc<MemoryStore>,
    hands: ManualClock,
    instances: Vec<Member>,
}

const RESET: Duration = Duration::from_secs(2);

impl Fleet {
    fn new(seed: u64, size: usize, config: &BreakerConfig) -> Self {
        let (clock, hands) = Clock::manual();
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let instances = (0..size)
            .map(|number| {
                let wire = Arc::new(SimulatedLink {
                    store: store.clone(),
                    fate: AtomicU8::new(UP),
                    listener: Mutex::default(),
                    requests: AtomicU64::new(0),
                    entries: AtomicU64::new(0),
                    delay: AtomicU64::new(0),
                    hands: hands.clone(),
                });
                let bus = Arc::new(EventBus::new(None));
                let events = bus.subscribe();
                let cache = Cache::new(clock.clone(), CacheLimits::default(), Arc::new(|_| ()));
                let name = format!("instance-{number}").into();
                let up = Arc::new(AtomicBool::new(false));
                let context = RegistryContext::new(name, clock.clone(), bus, cache, up);
                let context = Arc::new(context.with_shared_store(true));
                let breakers = Arc::new(BreakerMap::new(1, clock.now()));
                let make = |name, held| Core::new(name, config, held, &context);
                let core = breakers.entry("b").insert(Place::Pinned, make);
                let (asked, requests) = mpsc::unbounded_channel();
                let pace = Pace::steady(clock.now());
                let stream = Arc::new(Stream::default());
                let coordinator = Coordinator::new(context, breakers, wire.clone(), stream, requests, pace);
                Member { wire, core, coordinator, asked, events, told: Vec::new(), notice: "0-0".into() }
            })
            .collect();
        Fleet { random: Rng::with_seed(seed), store, hands, instances }
    }

    fn any(&mut self) -> usize {
        self.random.usize(..self.instances.len())
    }

    fn advance(&self, span: Duration) {
        self.hands.advance(span);
    }

    /// A call on this instance, with this result if it is made. Returns whether it was.
    async fn call(&mut self, at: usize, success: bool) -> bool {
        self.call_ending(at, if success { Outcome::Success } else { Outcome::Failure }).await
    }

    async fn call_ending(&mut self, at: usize, outcome: Outcome) -> bool {
        let core = self.instances[at].core.clone();
        let permit = self.permit(at, &core).await;
        let made = permit.is_some();
        if let Some(permit) = permit {
            permit.end(outcome);
        }
        made
    }

    /// Leave for a call on this instance.
    async fn permit<'c>(&mut self, at: usize, core: &'c Core) -> Option<CallPermit<'c>> {
        match core.admit() {
            Admission::Go(permit) => Some(permit),
            Admission::No(_) => None,
            Admission::Wait(mut waiting) => {
                let mut context = Context::from_waker(Waker::noop());
                let mut turns = 0;
                loop {
                    self.turn(at).await;
                    turns += 1;
                    match std::pin::Pin::new(&mut waiting).poll(&mut context) {
                        Poll::Ready(answer) => return answer.ok(),
                        // One to tell of the opening, one to ask for the probe; and a resync may come first.
                        Poll::Pending => assert!(turns < 4, "a caller waits for ever"),
                    }
                }
            }
        }
    }

    async fn turn(&mut self, at: usize) {
        let instance = &mut self.instances[at];
        while let Ok(request) = instance.coordinator.requests.try_recv() {
            if let Command::Resync = request {
                instance.coordinator.resync = true;
            }
        }
        instance.coordinator.turn().await;
    }

    /// What the stream has for this instance, if it can be reached.
    async fn follow(&mut self, at: usize) {
        let instance = &mut self.instances[at];
        if instance.wire.fate.load(Ordering::Relaxed) == CUT || !instance.coordinator.context.store_up() {
            return;
        }
        let coordinator = &instance.coordinator;
        let from = coordinator.stream.position();
        let news = self.store.watch(from, instance.notice.clone(), Duration::ZERO).await.unwrap();
        instance.notice = news.notice;
        if !news.notices.is_empty() {
            instance.core.take_notice();
        }
        for event in news.events {
            let requests = instance.asked.downgrade();
            stream::take(&coordinator.context, &coordinator.breakers, &coordinator.stream, &requests, &event);
        }
        while let Some(event) = instance.events.try_recv() {
            if let Event::Transition(transition) = event {
                instance.told.push(transition.epoch);
            }
        }
    }

    /// Everything heals, and nobody calls.
    async fn settle(&mut self) {
        for instance in &self.instances {
            instance.wire.fate.store(UP, Ordering::Relaxed);
        }
        for _ in 0..6 {
            self.advance(Duration::from_millis(450));
            for at in 0..self.instances.len() {
                self.turn(at).await;
                self.follow(at).await;
            }
        }
    }

    /// Lets all instances call successfully for this many half seconds.
    async fn get_well(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.advance(Duration::from_millis(500));
            for at in 0..self.instances.len() {
                self.call(at, true).await;
                self.turn(at).await;
                self.follow(at).await;
            }
        }
        self.settle().await;
    }

    /// Whether a random walk leads to one truth.
    async fn walk(&mut self, steps: usize, loses_data: bool) {
        self.walk_on(steps, loses_data).await;
        self.settle().await;
    }

    async fn walk_on(&mut self, steps: usize, loses_data: bool) {
        for at in 0..self.instances.len() {
            self.turn(at).await;
        }
        for _ in 0..steps {
            let at = self.any();
            match self.random.u8(..100) {
                0..30 => {
                    let success = self.random.bool();
                    self.call(at, success).await;
                }
                30..60 => {
                    self.call(at, false).await;
                }
                60..75 => {
                    let span = Duration::from_millis(self.random.u64(1..300));
                    self.advance(span);
                    self.turn(at).await;
                }
                75..85 => self.follow(at).await,
                85..88 => self.advance(RESET),
                88..92 => self.instances[at].wire.fate.store(CUT, Ordering::Relaxed),
                92..96 => self.instances[at].wire.fate.store(UP, Ordering::Relaxed),
                96..99 => self.instances[at].wire.fate.store(LOSE_ANSWER, Ordering::Relaxed),
                _ if loses_data => self.store.forget_everything(),
                _ => {}
            }
        }
    }

    async fn truth(&self) -> (State, u64) {
        match self.store.fleet().await.unwrap().first() {
            Some(row) => row.view.as_ref().map(|(record, ..)| (record.state, record.epoch)).unwrap(),
            None => (State::Closed, 0),
        }
    }

    async fn assert_agreed(&self) {
        let truth = self.truth().await;
        for instance in &self.instances {
            let snapshot = instance.core.snapshot();
            let known = (snapshot.state, snapshot.epoch);
            // Nobody is told of a breaker that has never left its first state.
            assert!(
                known == truth || truth.1 == 0 && known.0 == State::Closed,
                "{snapshot:?}, but {truth:?}"
            );
            assert!(!snapshot.local, "{snapshot:?}");
        }
    }
}

fn config() -> BreakerConfig {
    BreakerConfig::default()
        .failure_threshold(3)
        .success_threshold(2)
        .half_open_max_calls(2)
        .reset_timeout(RESET)
}

fn in_simulation(seeds: std::ops::Range<u64>, run: impl AsyncFn(u64)) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    for seed in seeds {
        runtime.block_on(async {
            eprintln!("seed {seed}");
            run(seed).await;
        });
    }
}

#[test]
fn whatever_happens_the_fleet_agrees_afterwards() {
    in_simulation(0..400, async |seed| {
        let mut fleet = Fleet::new(seed, 3, &config());
        fleet.walk(300, false).await;
        fleet.assert_agreed().await;
    });
}

#[test]
fn a_rate_over_a_window_agrees_too() {
    let rate = config().failure_rate_threshold(0.6).minimum_calls(6).window(Duration::from_secs(5));
    in_simulation(0..200, async |seed| {
        let mut fleet = Fleet::new(seed, 3, &rate);
        fleet.walk(300, false).await;
        fleet.assert_agreed().await;
    });
}

#[test]
fn a_store_that_loses_everything_gets_it_back() {
    in_simulation(0..400, async |seed| {
        let mut fleet = Fleet::new(seed, 3, &config());
        fleet.walk(300, true).await;
        let before = fleet.truth().await;
        fleet.assert_agreed().await;
        fleet.store.forget_everything();
        fleet.settle().await;
        // That something is closed is told when it is spoken of next; all else at once.
        assert!(before.0 == State::Closed || fleet.truth().await == before);
        fleet.assert_agreed().await;
    });
}

#[test]
fn nothing_is_counted_twice_or_lost() {
    let never = BreakerConfig::default().failure_threshold(1_000_000);
    in_simulation(0..200, async |seed| {
        let mut fleet = Fleet::new(seed, 3, &never);
        let (mut successes, mut failures) = (0, 0);
        for at in 0..3 {
            fleet.turn(at).await;
        }
        for _ in 0..300 {
            let at = fleet.any();
            let wire = fleet.instances[at].wire.clone();
            match fleet.random.u8(..10) {
                0..3 => successes += u64::from(fleet.call(at, true).await),
                3..6 => failures += u64::from(fleet.call(at, false).await),
                6 => wire.fate.store(LOSE_ANSWER, Ordering::Relaxed),
                7 => wire.fate.store(if fleet.random.bool() { CUT } else { UP }, Ordering::Relaxed),
                _ => {
                    fleet.advance(Duration::from_millis(150));
                    fleet.turn(at).await;
                }
            }
        }
        fleet.settle().await;
        let rows = fleet.store.fleet().await.unwrap();
        let (_, counts, _) = rows[0].view.as_ref().unwrap();
        assert_eq!((counts.successes, counts.failures), (successes, failures));
    });
}

#[test]
fn from_anywhere_a_healthy_dependency_leads_back_to_closed() {
    in_simulation(0..200, async |seed| {
        let mut fleet = Fleet::new(seed, 3, &config());
        fleet.walk(200, seed % 2 == 0).await;
        fleet.get_well(40).await;
        assert_eq!(fleet.truth().await.0, State::Closed);
        fleet.assert_agreed().await;
    });
}

#[test]
fn each_instance_is_told_of_each_transition_once_and_in_order() {
    in_simulation(0..200, async |seed| {
        let mut fleet = Fleet::new(seed, 3, &config());
        fleet.walk(300, false).await;
        let last = fleet.truth().await.1;
        for instance in &fleet.instances {
            assert_eq!(instance.told, (1..=last).collect::<Vec<_>>());
        }
    });
}
