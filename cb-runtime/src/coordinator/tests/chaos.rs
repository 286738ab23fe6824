//! A fleet under every fault at once, with its promises asserted after every step.
//!
//! Real coordinators, stream followers, breakers and the memory store run as tasks of one thread. Instances
//! and the store have clocks of their own, moved by hand. Requests, answers and events are delayed, reordered
//! and lost; instances are paused, killed and restarted; the store is emptied, rolled back, and forgets
//! events; its clock jumps. Calls last over many steps, some for ever, and begin and end while exchanges are
//! under way.
//!
//! A seed decides a history. One that fails prints itself; `CB_SEED=<seed>` replays it alone, and
//! `CB_SEEDS=<number>` runs as many (`scripts/simulate` does so).

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::breaker::Core;
use crate::breaker::context::RegistryContext;
use crate::breaker::counters::Outcome;
use crate::breaker::permit::{Admission, CallPermit};
use crate::breakers::{BreakerMap, Place};
use crate::cache::{Cache, CacheLimits};
use crate::clock::{Clock, ManualClock, Moment};
use crate::config::{BreakerConfig, PerFunction};
use crate::coordinator::pace::Pace;
use crate::coordinator::stream::{self, Stream};
use crate::coordinator::{Command, Coordinator};
use crate::error::Error;
use crate::event::{Event, EventBus, Events};
use crate::snapshot::{Snapshot, State};
use crate::store::memory::MemoryStore;
use crate::store::{
    Acknowledged, Answer, Batch, BoxFuture, Cached, EventsAt, FleetRow, Load, Position, Report, Store,
    StreamEvent,
};
use crate::sync::lock;

const BREAKERS: [&str; 2] = ["a", "b"];
const INSTANCES: usize = 3;
const STEPS: usize = 150;
const BUDGET: u32 = 2;
const RESET: Duration = Duration::from_secs(2);
/// A probe that has not ended by then counts as failed: `max(reset_timeout, 10 s)`.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

fn config() -> BreakerConfig {
    BreakerConfig::default()
        .failure_threshold(3)
        .success_threshold(2)
        .half_open_max_calls(BUDGET)
        .reset_timeout(RESET)
}

// ---- the network

/// What happens to one instance's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Arrives,
    RequestLost,
    AnswerLost,
    /// The request takes this long, then the answer.
    Slow(Duration, Duration),
}

/// One instance's connection to the store.
struct Wire {
    store: Arc<MemoryStore>,
    clock: Clock,
    cut: AtomicBool,
    /// For the next request only.
    fate: Mutex<Fate>,
    event_delay: AtomicU64,
}

impl Wire {
    async fn through<T>(&self, request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let fate = std::mem::replace(&mut *lock(&self.fate), Fate::Arrives);
        let lost = |what| Err(Error::store("simulating", what));
        if self.cut.load(Ordering::Relaxed) || fate == Fate::RequestLost {
            return lost("the request is lost");
        }
        let (before, after) = match fate {
            Fate::Slow(before, after) => (before, after),
            _ => (Duration::ZERO, Duration::ZERO),
        };
        self.clock.sleep_until(self.clock.now().after(before)).await;
        let answer = request.await;
        self.clock.sleep_until(self.clock.now().after(after)).await;
        if self.cut.load(Ordering::Relaxed) || fate == Fate::AnswerLost {
            return lost("the answer is lost");
        }
        answer
    }
}

impl Store for Wire {
    fn exchange(&self, batch: Batch) -> BoxFuture<'_, Result<Answer, Error>> {
        Box::pin(self.through(async move { Ok(self.store.exchange_now(&batch)) }))
    }
    fn report(&self, report: Report) -> BoxFuture<'_, Result<Acknowledged, Error>> {
        Box::pin(self.through(async move { Ok(self.store.report_now(&report)) }))
    }
    fn load(&self) -> BoxFuture<'_, Result<Load, Error>> {
        Box::pin(self.through(async move { self.store.load().await }))
    }
    fn watch(&self, from: Position, patience: Duration) -> BoxFuture<'_, Result<Vec<StreamEvent>, Error>> {
        Box::pin(async move {
            if self.cut.load(Ordering::Relaxed) {
                return Err(Error::store("simulating", "the stream is cut"));
            }
            let events = self.store.watch(from, patience).await?;
            let delay = Duration::from_micros(self.event_delay.load(Ordering::Relaxed));
            self.clock.sleep_until(self.clock.now().after(delay)).await;
            Ok(events)
        })
    }
    fn history(&self, at: EventsAt, limit: usize) -> BoxFuture<'_, Result<Vec<StreamEvent>, Error>> {
        Box::pin(self.through(async move { self.store.history(at, limit).await }))
    }
    fn fleet(&self) -> BoxFuture<'_, Result<Vec<FleetRow>, Error>> {
        Box::pin(self.through(async move { self.store.fleet().await }))
    }
    fn cache_get(&self, _key: String) -> BoxFuture<'_, Result<Option<Cached>, Error>> {
        Box::pin(async { Ok(None) })
    }
    fn cache_put(&self, _key: String, _value: Vec<u8>, _ttl: Duration) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
}

// ---- an instance

/// Polls the future only while the instance runs, as SIGSTOP and SIGCONT would have it.
struct Pausable<F> {
    future: Pin<Box<F>>,
    pause: Arc<Pause>,
}

#[derive(Default)]
struct Pause {
    paused: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
}

impl Pause {
    fn resume(&self) {
        self.paused.store(false, Ordering::Relaxed);
        lock(&self.wakers).drain(..).for_each(Waker::wake);
    }
}

impl<F: Future> Future for Pausable<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.pause.paused.load(Ordering::Relaxed) {
            lock(&self.pause.wakers).push(context.waker().clone());
            return Poll::Pending;
        }
        self.future.as_mut().poll(context)
    }
}

struct Instance {
    wire: Arc<Wire>,
    pause: Arc<Pause>,
    context: Arc<RegistryContext>,
    cores: Vec<&'static Arc<Core>>,
    events: Events,
    tasks: Vec<JoinHandle<()>>,
    _requests: mpsc::UnboundedSender<Command>,
    /// It has been connected ever since: what it decides is the fleet's.
    connected_since: Option<Moment>,
    /// By breaker: the state and epoch after the last step, and whether the instance was connected then.
    seen: HashMap<&'static str, (State, u64, bool)>,
    /// By breaker: the epoch of the latest transition that a subscriber was told of.
    told: HashMap<Arc<str>, u64>,
}

/// A call that has begun and not ended.
struct Call {
    instance: usize,
    /// Restarts of the instance so far: its calls die with it.
    life: usize,
    breaker: usize,
    permit: Option<CallPermit<'static>>,
    probing: bool,
    epoch: u64,
    begun: Moment,
    /// Never ends.
    hangs: bool,
}

type WaitingCaller = Pin<Box<dyn Future<Output = Option<CallPermit<'static>>>>>;

struct World {
    random: Rng,
    clock: Clock,
    hands: ManualClock,
    store_hands: ManualClock,
    store: Arc<MemoryStore>,
    instances: Vec<Instance>,
    lives: Vec<usize>,
    calls: Vec<Call>,
    waiting: Vec<(usize, usize, usize, WaitingCaller)>,
    /// The store has lost data, or its clock has jumped, at this time: leases may have been handed out twice.
    disturbed_at: Moment,
}

impl World {
    fn new(seed: u64) -> World {
        let (clock, hands) = Clock::manual();
        let (store_clock, store_hands) = Clock::manual();
        let store = Arc::new(MemoryStore::new(store_clock));
        let random = Rng::with_seed(seed);
        let disturbed_at = Moment(0);
        let mut world = World {
            random,
            clock,
            hands,
            store_hands,
            store,
            instances: Vec::new(),
            lives: vec![0; INSTANCES],
            calls: Vec::new(),
            waiting: Vec::new(),
            disturbed_at,
        };
        world.instances = (0..INSTANCES).map(|number| world.start(number)).collect();
        world
    }

    fn start(&self, number: usize) -> Instance {
        let clock = self.clock.clone();
        let wire = Arc::new(Wire {
            store: self.store.clone(),
            clock: clock.clone(),
            cut: AtomicBool::new(false),
            fate: Mutex::new(Fate::Arrives),
            event_delay: AtomicU64::new(0),
        });
        let bus = Arc::new(EventBus::new(None));
        let events = bus.subscribe();
        let cache = Cache::new(clock.clone(), CacheLimits::default(), Arc::new(|_| ()));
        let name = format!("instance-{number}.{}", self.lives[number]).into();
        let up = Arc::new(AtomicBool::new(false));
        let context = Arc::new(RegistryContext::new(name, clock.clone(), bus, cache, up));
        let breakers = Arc::new(BreakerMap::new(16, clock.now()));
        let settings = config().resolve().unwrap();
        let cores = BREAKERS.map(|name| {
            let core = breakers.entry(name).insert(Place::Pinned, |name, held| {
                Core::new(name, config(), settings.clone(), PerFunction::default(), held, context.clone())
            });
            // Calls outlive the step that began them.
            &*Box::leak(Box::new(core))
        });
        let (requests, receiver) = mpsc::unbounded_channel();
        let stream = Arc::new(Stream::default());
        let follower = stream::follow(
            context.clone(),
            breakers.clone(),
            wire.clone() as Arc<dyn Store>,
            stream.clone(),
            requests.downgrade(),
        );
        let pace = Pace::steady(clock.now());
        let coordinator = Coordinator::new(context.clone(), breakers, wire.clone(), stream, receiver, pace);
        let pause = Arc::new(Pause::default());
        let (ready, _) = std::sync::mpsc::sync_channel(1);
        let pausable = |future: Pin<Box<dyn Future<Output = ()> + Send>>| {
            tokio::spawn(Pausable { future: Box::pin(future), pause: pause.clone() })
        };
        let tasks = vec![pausable(Box::pin(coordinator.run(ready))), pausable(Box::pin(follower))];
        Instance {
            wire,
            pause: pause.clone(),
            context,
            cores: cores.to_vec(),
            events,
            tasks,
            _requests: requests,
            connected_since: None,
            seen: HashMap::new(),
            told: HashMap::new(),
        }
    }

    /// SIGKILL: its calls are gone without a word, its leases stay with the store.
    fn kill(&mut self, number: usize) {
        for task in self.instances[number].tasks.drain(..) {
            task.abort();
        }
        for call in self.calls.iter_mut().filter(|call| call.instance == number) {
            std::mem::forget(call.permit.take());
        }
        self.calls.retain(|call| call.instance != number);
        for (_, _, _, waiting) in self.waiting.extract_if(.., |(instance, ..)| *instance == number) {
            std::mem::forget(waiting);
        }
        self.lives[number] += 1;
        self.instances[number] = self.start(number);
    }

    fn is_paused(&self, number: usize) -> bool {
        self.instances[number].pause.paused.load(Ordering::Relaxed)
    }

    /// Time passes for everyone.
    async fn advance(&mut self, span: Duration) {
        // In small pieces: nothing that is due is skipped over.
        let piece = Duration::from_millis(50);
        let mut left = span;
        while !left.is_zero() {
            let step = left.min(piece);
            self.hands.advance(step);
            self.store_hands.advance(step);
            tokio::time::advance(step).await;
            self.run_tasks().await;
            left -= step;
        }
    }

    /// Lets every task run until it waits for something.
    async fn run_tasks(&mut self) {
        for _ in 0..12 {
            tokio::task::yield_now().await;
        }
        let mut context = Context::from_waker(Waker::noop());
        let mut ended = Vec::new();
        for (index, (instance, _, _, waiting)) in self.waiting.iter_mut().enumerate() {
            if self.instances[*instance].pause.paused.load(Ordering::Relaxed) {
                continue;
            }
            if let Poll::Ready(permit) = waiting.as_mut().poll(&mut context) {
                ended.push((index, permit));
            }
        }
        for (index, permit) in ended.into_iter().rev() {
            let (instance, life, breaker, _) = self.waiting.swap_remove(index);
            if let Some(permit) = permit {
                self.begin(instance, life, breaker, permit);
            }
        }
    }

    fn begin(&mut self, instance: usize, life: usize, breaker: usize, permit: CallPermit<'static>) {
        let snapshot = self.instances[instance].cores[breaker].snapshot();
        let call = Call {
            instance,
            life,
            breaker,
            permit: Some(permit),
            probing: snapshot.state == State::HalfOpen,
            epoch: snapshot.epoch,
            begun: self.clock.now(),
            hangs: self.random.u8(..20) == 0,
        };
        self.calls.push(call);
    }

    fn call(&mut self, instance: usize, breaker: usize) {
        let core = self.instances[instance].cores[breaker];
        match core.admit() {
            Admission::Go(permit) => self.begin(instance, self.lives[instance], breaker, permit),
            Admission::No(_) => {}
            Admission::Wait(waiting) => {
                let waiting: WaitingCaller = Box::pin(async move { waiting.await.ok() });
                self.waiting.push((instance, self.lives[instance], breaker, waiting));
            }
        }
    }

    fn end(&mut self, index: usize, outcome: Outcome) {
        let call = self.calls.swap_remove(index);
        let core = self.instances[call.instance].cores[call.breaker];
        assert_eq!(call.life, self.lives[call.instance]);
        let before = core.snapshot();
        let Some(mut permit) = call.permit else { return };
        permit.end(outcome);
        let after = core.snapshot();
        if after.outcomes.late > before.outcomes.late {
            let judged = |s: &Snapshot| (s.state, s.epoch, s.failures, s.successes, s.consecutive_failures);
            assert_eq!(judged(&before), judged(&after), "a late outcome changes nothing");
        }
        if before.epoch != call.epoch && !after.local && !before.local {
            assert!(
                after.outcomes.late > before.outcomes.late || outcome == Outcome::Cancelled,
                "an outcome of an earlier epoch is late: {before:?} {after:?}"
            );
        }
    }

    async fn step(&mut self) {
        let number = self.random.usize(..INSTANCES);
        let breaker = self.random.usize(..BREAKERS.len());
        let milliseconds = |random: &mut Rng, most| Duration::from_millis(random.u64(1..most));
        match self.random.u8(..100) {
            0..40 if !self.is_paused(number) => {
                self.call(number, breaker);
                if self.random.u8(..4) > 0 && self.calls.last().is_some_and(|call| call.instance == number) {
                    // Most calls are short.
                    let outcome = if self.random.u8(..10) < 6 { Outcome::Failure } else { Outcome::Success };
                    self.end(self.calls.len() - 1, outcome);
                }
            }
            40..60 if !self.calls.is_empty() => {
                let index = self.random.usize(..self.calls.len());
                if !self.calls[index].hangs && !self.is_paused(self.calls[index].instance) {
                    let outcome = match self.random.u8(..10) {
                        0..5 => Outcome::Success,
                        5..9 => Outcome::Failure,
                        _ => Outcome::Cancelled,
                    };
                    self.end(index, outcome);
                }
            }
            60..72 => {
                let span = milliseconds(&mut self.random, 400);
                self.advance(span).await;
            }
            72..75 => self.advance(RESET).await,
            75..81 => {
                let slow =
                    Fate::Slow(milliseconds(&mut self.random, 300), milliseconds(&mut self.random, 300));
                let fates = [Fate::RequestLost, Fate::AnswerLost, slow, slow];
                *lock(&self.instances[number].wire.fate) = fates[self.random.usize(..fates.len())];
            }
            81..84 => {
                let delay = self.random.u64(..500_000);
                self.instances[number].wire.event_delay.store(delay, Ordering::Relaxed);
            }
            84..87 => self.instances[number].wire.cut.store(true, Ordering::Relaxed),
            87..91 => self.instances[number].wire.cut.store(false, Ordering::Relaxed),
            91 => self.instances[number].pause.paused.store(true, Ordering::Relaxed),
            92..95 => self.instances[number].pause.resume(),
            95 => self.kill(number),
            96 => {
                self.store.forget_everything();
                self.disturbed_at = self.clock.now();
            }
            97 => {
                self.store.forget_events();
            }
            98 => {
                let hour = Duration::from_secs(3600);
                if self.random.bool() {
                    self.store_hands.advance(hour)
                } else {
                    self.store_hands.set_back(hour)
                }
                self.disturbed_at = self.clock.now();
            }
            _ => {}
        }
        self.run_tasks().await;
        self.assert_promises();
    }

    fn assert_promises(&mut self) {
        let now = self.clock.now();
        for (number, instance) in self.instances.iter_mut().enumerate() {
            let mut lost = !instance.context.store_up() || instance.pause.paused.load(Ordering::Relaxed);
            while let Some(event) = instance.events.try_recv() {
                match event {
                    Event::Transition(transition) => {
                        let last = instance.told.insert(transition.breaker.clone(), transition.epoch);
                        assert!(
                            last.is_none_or(|last| last < transition.epoch),
                            "instance {number}: a subscriber was told of epoch {} after {last:?}",
                            transition.epoch
                        );
                    }
                    // Maybe it has been restored since.
                    Event::StoreLost(_) => lost = true,
                    _ => {}
                }
            }
            if lost {
                instance.connected_since = None;
            } else {
                instance.connected_since.get_or_insert(now);
            }
            for (name, core) in BREAKERS.into_iter().zip(&instance.cores) {
                let snapshot = core.snapshot();
                let (state, epoch) = (snapshot.state, snapshot.epoch);
                let before = instance.seen.insert(name, (state, epoch, !lost));
                if let Some((state_before, epoch_before, connected)) = before {
                    assert!(
                        epoch >= epoch_before,
                        "instance {number}: the epoch of {name} went back from {epoch_before} to {epoch}"
                    );
                    let undone = state_before == State::Open && state == State::Closed;
                    assert!(
                        !undone || epoch > epoch_before || lost || !connected || snapshot.local,
                        "instance {number}: the trip of {name} in epoch {epoch} was undone: {snapshot:?}"
                    );
                }
            }
        }
        self.assert_budgets(now);
    }

    /// Probes of one epoch in flight at instances that have been connected all the while.
    fn assert_budgets(&self, now: Moment) {
        for (breaker, name) in BREAKERS.iter().enumerate() {
            let mut probes: HashMap<u64, usize> = HashMap::new();
            for call in self.calls.iter().filter(|call| call.probing && call.breaker == breaker) {
                let instance = &self.instances[call.instance];
                let snapshot = instance.cores[breaker].snapshot();
                let connected = instance.connected_since.is_some_and(|since| since < call.begun);
                let counted = connected
                    && !snapshot.local
                    && self.disturbed_at < call.begun
                    && now.since(call.begun) < PROBE_LIMIT
                    && (snapshot.state, snapshot.epoch) == (State::HalfOpen, call.epoch);
                if counted {
                    *probes.entry(call.epoch).or_default() += 1;
                }
            }
            for (epoch, count) in probes {
                assert!(count <= BUDGET as usize, "{count} probes of {name} in epoch {epoch}");
            }
        }
    }

    /// Every fault ends; then the fleet agrees, and a healthy dependency leads back to closed.
    async fn heal(&mut self) {
        for instance in &self.instances {
            instance.wire.cut.store(false, Ordering::Relaxed);
            *lock(&instance.wire.fate) = Fate::Arrives;
            instance.wire.event_delay.store(0, Ordering::Relaxed);
            instance.pause.resume();
        }
        for _ in 0..20 {
            self.advance(Duration::from_millis(200)).await;
            self.assert_promises();
        }
        self.assert_agreed().await;
        for round in 0.. {
            assert!(round < 60, "a healthy dependency does not lead back to closed: {}", self.states());
            for number in 0..INSTANCES {
                for breaker in 0..BREAKERS.len() {
                    self.call(number, breaker);
                }
            }
            self.run_tasks().await;
            while let Some(index) = self.calls.iter().position(|call| !call.hangs) {
                self.end(index, Outcome::Success);
            }
            self.advance(Duration::from_millis(500)).await;
            self.assert_promises();
            if self.all_snapshots().all(|snapshot| snapshot.state == State::Closed && !snapshot.local) {
                break;
            }
        }
        self.advance(Duration::from_secs(2)).await;
        self.assert_agreed().await;
    }

    fn all_snapshots(&self) -> impl Iterator<Item = Snapshot> {
        self.instances.iter().flat_map(|instance| instance.cores.iter().map(|core| core.snapshot()))
    }

    fn states(&self) -> String {
        let shown = |s: Snapshot| format!("{} {} epoch {} local {}", s.name, s.state, s.epoch, s.local);
        self.all_snapshots().map(shown).collect::<Vec<_>>().join("; ")
    }

    async fn assert_agreed(&self) {
        let rows = self.store.fleet().await.unwrap();
        for (breaker, name) in BREAKERS.iter().enumerate() {
            let stored = rows.iter().find(|row| *row.name == **name);
            let truth = stored.map_or((State::Closed, 0), |row| {
                let (record, ..) = row.view.as_ref().unwrap();
                (record.state, record.epoch)
            });
            for instance in &self.instances {
                let snapshot = instance.cores[breaker].snapshot();
                let known = (snapshot.state, snapshot.epoch);
                assert!(!snapshot.local, "{name}: an instance goes on alone: {}", self.states());
                // A closed breaker is not asked after until it is called.
                let closed = known.0 == State::Closed && (truth.0 == State::Closed || known.1 > truth.1);
                assert!(known == truth || closed, "{name}: the store has {truth:?}: {}", self.states());
            }
        }
    }
}

async fn history(seed: u64) {
    let mut world = World::new(seed);
    world.run_tasks().await;
    for _ in 0..STEPS {
        world.step().await;
    }
    world.heal().await;
    for instance in &world.instances {
        instance.tasks.iter().for_each(JoinHandle::abort);
    }
    // Calls that hang are never dropped.
    for call in world.calls {
        std::mem::forget(call.permit);
    }
    world.waiting.into_iter().for_each(std::mem::forget);
}

fn run(seed: u64) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    // What a broken promise leaves behind is the seed.
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(history(seed))));
    if let Err(panic) = failed {
        eprintln!("seed {seed}: replay it alone with CB_SEED={seed}");
        std::panic::resume_unwind(panic);
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

#[test]
fn promises_hold_at_every_step_under_every_fault() {
    if let Some(seed) = number("CB_SEED") {
        return run(seed);
    }
    for seed in 0..number("CB_SEEDS").unwrap_or(2_000) {
        run(seed);
    }
}
