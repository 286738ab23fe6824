//! A fleet in one thread: real coordinators and breakers on a simulated clock.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::mpsc;

use super::config;
use super::link::{Fate, SimulatedLink};
use crate::breaker::Core;
use crate::breaker::context::RegistryContext;
use crate::breaker::counters::Outcome;
use crate::breaker::permit::{Admission, CallPermit};
use crate::breakers::{BreakerKind, BreakerMap};
use crate::cache::Cache;
use crate::clock::{Clock, ManualClock};
use crate::config::{BreakerConfig, CacheLimits};
use crate::coordinator::follower::Follower;
use crate::coordinator::pace::Pace;
use crate::coordinator::stream::Stream;
use crate::coordinator::{Command, Coordinator};
use crate::event::{Event, EventBus, Events};
use crate::snapshot::State;
use crate::store::memory::MemoryStore;
use crate::store::tests;
use crate::store::{Batch, Counts, Entry, FleetRow, MAX_EVENTS, Proposal, Record, Store, StreamEvent};

/// A breaker that no instance has registered.
pub(super) const UNREGISTERED: &str = "unregistered";

/// One of the fleet's instances.
pub(super) struct Member {
    pub(super) link: Arc<SimulatedLink>,
    pub(super) core: Arc<Core>,
    pub(super) coordinator: Coordinator,
    pub(super) asked: mpsc::UnboundedSender<Command>,
    pub(super) events: Events,
    /// Epochs of the transitions that its subscriber has received.
    pub(super) received: Vec<u64>,
    /// The latest notice that it has received.
    pub(super) notice: String,
}

impl Drop for Member {
    /// Breakers that wait for an exchange and their context keep each other alive.
    fn drop(&mut self) {
        self.coordinator.end();
    }
}

pub(super) struct Fleet {
    pub(super) random: Rng,
    pub(super) store: Arc<MemoryStore>,
    pub(super) time: ManualClock,
    pub(super) instances: Vec<Member>,
}

pub(super) const RESET: Duration = Duration::from_secs(2);

impl Fleet {
    pub(super) fn new(seed: u64, size: usize, config: &BreakerConfig) -> Self {
        let (clock, time) = Clock::manual();
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let instances = (0..size)
            .map(|number| {
                let link = Arc::new(SimulatedLink::new(store.clone(), time.clone()));
                let bus = Arc::new(EventBus::new(None));
                let events = bus.subscribe();
                let cache = Cache::new(clock.clone(), CacheLimits::default(), Arc::new(|_| ()));
                let name = format!("instance-{number}").into();
                let up = Arc::new(AtomicBool::new(false));
                let context = RegistryContext::new(name, clock.clone(), bus, cache, up);
                let context = Arc::new(context.with_shared_store(true));
                let breakers = Arc::new(BreakerMap::new(1, clock.now()));
                let make = |name, held| Core::new(name, config, held, &context);
                let core = breakers.entry("b").insert(BreakerKind::Pinned, make);
                let (asked, requests) = mpsc::unbounded_channel();
                let pace = Pace::steady(clock.now());
                let stream = Arc::new(Stream::default());
                // The tests begin health checks by themselves.
                let no_check = Box::new(|_, _| {});
                let store = link.clone();
                let coordinator =
                    Coordinator::new(context, breakers, store, stream, requests, pace, no_check);
                Member { link, core, coordinator, asked, events, received: Vec::new(), notice: "0-0".into() }
            })
            .collect();
        Fleet { random: Rng::with_seed(seed), store, time, instances }
    }

    /// A fleet that has had time to get in contact with its store.
    pub(super) async fn settled(seed: u64, size: usize, config: &BreakerConfig) -> Self {
        let mut fleet = Fleet::new(seed, size, config);
        fleet.settle().await;
        fleet
    }

    /// A fleet that knows two breakers as forced open: "b", and one that no instance has registered.
    pub(super) async fn forced_open(seed: u64, size: usize) -> Self {
        let mut fleet = Fleet::settled(seed, size, &config()).await;
        fleet.force("b", State::ForcedOpen);
        fleet.force(UNREGISTERED, State::ForcedOpen);
        fleet.settle().await;
        assert_eq!(fleet.instances[size - 1].core.snapshot().state, State::ForcedOpen);
        fleet
    }

    /// Two instances that know that the circuit is open.
    pub(super) async fn opened(seed: u64) -> Self {
        let mut fleet = Fleet::settled(seed, 2, &config()).await;
        fleet.fail().await;
        fleet.settle().await;
        assert_eq!(fleet.truth().await, (State::Open, 1));
        fleet
    }

    /// Two instances whose store was restored from a backup just after the first one opened the circuit.
    /// Neither has read the event.
    pub(super) async fn opened_and_restored(seed: u64) -> Self {
        let mut fleet = Fleet::settled(seed, 2, &config()).await;
        let backup = fleet.store.back_up();
        fleet.fail().await;
        fleet.turn(0).await;
        assert_eq!(fleet.truth().await, (State::Open, 1));
        fleet.store.restore(&backup);
        assert_eq!(fleet.truth().await, (State::Closed, 0));
        fleet
    }

    pub(super) fn any(&mut self) -> usize {
        self.random.usize(..self.instances.len())
    }

    pub(super) fn advance(&self, span: Duration) {
        self.time.advance(span);
    }

    /// A call on this instance, with this result if it is made. Returns whether it was.
    pub(super) async fn call(&mut self, at: usize, success: bool) -> bool {
        self.call_ending(at, if success { Outcome::Success } else { Outcome::Failure }).await
    }

    pub(super) async fn call_ending(&mut self, at: usize, outcome: Outcome) -> bool {
        let core = self.instances[at].core.clone();
        let permit = self.permit(at, &core).await;
        let made = permit.is_some();
        if let Some(permit) = permit {
            permit.end(outcome);
        }
        made
    }

    /// Leave for a call on this instance.
    pub(super) async fn permit<'c>(&mut self, at: usize, core: &'c Core) -> Option<CallPermit<'c>> {
        match core.admit() {
            Admission::Go(permit) => Some(permit),
            Admission::No(_) => None,
            Admission::Wait(mut waiting) => {
                let mut context = Context::from_waker(Waker::noop());
                let mut turns = 0;
                loop {
                    self.turn(at).await;
                    turns += 1;
                    match Pin::new(&mut waiting).poll(&mut context) {
                        Poll::Ready(answer) => return answer.ok(),
                        // One to tell of the opening, one to ask for the probe; and a resync may come first.
                        Poll::Pending => assert!(turns < 4, "a caller waits for ever"),
                    }
                }
            }
        }
    }

    pub(super) async fn turn(&mut self, at: usize) {
        let instance = &mut self.instances[at];
        while let Ok(request) = instance.coordinator.requests.try_recv() {
            if let Command::Resync = request {
                instance.coordinator.resync = true;
            }
        }
        instance.coordinator.turn().await;
    }

    /// What the stream has for this instance, if it can be reached.
    pub(super) async fn follow(&mut self, at: usize) {
        let instance = &mut self.instances[at];
        if instance.link.is_cut() || !instance.coordinator.context.store_up() {
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
            self.apply(at, event);
        }
        let instance = &mut self.instances[at];
        while let Some(event) = instance.events.try_recv() {
            if let Event::Transition(transition) = event {
                instance.received.push(transition.epoch);
            }
        }
    }

    /// This instance reads an event.
    pub(super) fn apply(&self, at: usize, event: StreamEvent) {
        let Member { coordinator, asked, .. } = &self.instances[at];
        let follower = Follower {
            context: coordinator.context.clone(),
            breakers: coordinator.breakers.clone(),
            store: coordinator.store.clone(),
            stream: coordinator.stream.clone(),
            requests: asked.downgrade(),
        };
        follower.apply(event);
    }

    pub(super) fn states(&self) -> Vec<State> {
        self.instances.iter().map(|instance| instance.core.snapshot().state).collect()
    }

    /// Everything heals, and nobody calls.
    pub(super) async fn settle(&mut self) {
        for instance in &self.instances {
            instance.link.set(Fate::Up);
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
    pub(super) async fn get_well(&mut self, rounds: usize) {
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
    pub(super) async fn walk(&mut self, steps: usize, loses_data: bool) {
        self.walk_on(steps, loses_data).await;
        self.settle().await;
    }

    pub(super) async fn walk_on(&mut self, steps: usize, loses_data: bool) {
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
                88..92 => self.instances[at].link.set(Fate::Cut),
                92..96 => self.instances[at].link.set(Fate::Up),
                96..99 => self.instances[at].link.set(Fate::LoseAnswer),
                _ if loses_data => self.store.forget_everything(),
                _ => {}
            }
        }
    }

    /// What the store has of the breaker.
    pub(super) async fn stored(&self) -> Vec<FleetRow> {
        tests::fleet(&*self.store).await
    }

    pub(super) async fn truth(&self) -> (State, u64) {
        match self.stored().await.first() {
            Some(row) => row.view.as_ref().map(|(record, ..)| (record.state, record.epoch)).unwrap(),
            None => (State::Closed, 0),
        }
    }

    pub(super) async fn assert_agreed(&self) {
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

    /// An operator's override, without an instance of the fleet.
    pub(super) fn force(&self, name: &str, to: State) {
        self.place(name, Record { state: to, ..Record::closed() });
    }

    pub(super) fn place(&self, name: &str, to: Record) {
        let to = Record { reason: "by hand".into(), ..to };
        let proposal = Proposal { to, force: true, token: None, evidence: Counts::default() };
        let entry = Entry { name: name.into(), proposal: Some(proposal), ..Entry::default() };
        let batch = Batch { instance: "operator".into(), seq: 1, entries: vec![entry], ..Batch::default() };
        assert!(self.store.exchange_now(&batch).views[0].as_ref().unwrap().won);
    }

    pub(super) fn trim_stream(&self) {
        for number in 0..=MAX_EVENTS {
            self.force("noise", if number % 2 == 0 { State::Disabled } else { State::Closed });
        }
    }

    pub(super) fn cut(&self, at: usize) {
        self.instances[at].link.set(Fate::Cut);
    }

    /// As many failures on the first instance as open the circuit.
    pub(super) async fn fail(&mut self) {
        for _ in 0..3 {
            self.call(0, false).await;
        }
    }

    pub(super) async fn held(&self, name: &str) -> bool {
        self.store.load().await.unwrap().held.iter().any(|(held, _)| **held == *name)
    }

    /// Registers a breaker at one instance.
    pub(super) fn register(&self, at: usize, name: &str) -> Arc<Core> {
        let coordinator = &self.instances[at].coordinator;
        let make = |name, held| Core::new(name, &config(), held, &coordinator.context);
        coordinator.breakers.entry(name).insert(BreakerKind::Pinned, make)
    }

    /// All but the last instance go on for this long.
    pub(super) async fn go_on_without_last(&mut self, span: Duration) {
        for _ in 0..6 {
            self.advance(span / 6);
            for at in 0..self.instances.len() - 1 {
                self.turn(at).await;
                self.follow(at).await;
            }
            self.turn(self.instances.len() - 1).await;
        }
    }
}
