//! Breakers of several instances on one memory store, whose exchanges the test makes by hand.

mod credit;
mod exchange;
mod health;
mod order;
mod probes;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::Core;
use super::context::RegistryContext;
use super::counters::Outcome;
use super::permit::{Admission, CallPermit, Waiting};
use crate::cache::Cache;
use crate::clock::{Clock, ManualClock};
use crate::config::{BreakerConfig, CacheLimits};
use crate::error::Error;
use crate::event::{Event, EventBus, Events};
use crate::snapshot::{Snapshot, State};
use crate::store::memory::MemoryStore;
use crate::store::{Answer, Batch, Entry, Record};

const RESET: Duration = Duration::from_secs(5);

struct Peer {
    core: Arc<Core>,
    context: Arc<RegistryContext>,
    up: Arc<AtomicBool>,
    events: Events,
    store: Arc<MemoryStore>,
    seq: u64,
}

impl Peer {
    fn new(id: &str, config: &BreakerConfig, clock: &Clock, store: &Arc<MemoryStore>) -> Self {
        let bus = Arc::new(EventBus::new(None));
        let events = bus.subscribe();
        let cache = Cache::new(clock.clone(), CacheLimits::default(), Arc::new(|_| ()));
        let up = Arc::new(AtomicBool::new(true));
        let context = RegistryContext::new(id.into(), clock.clone(), bus, cache, up.clone());
        let context = Arc::new(context.with_shared_store(true));
        let core = Core::new("b".into(), config, None, &context);
        Peer { core, context, up, events, store: store.clone(), seq: 0 }
    }

    fn batch(&mut self, entry: Entry) -> Batch {
        self.seq += 1;
        let instance = self.context.instance.clone();
        Batch { instance, seq: self.seq, entries: vec![entry], ..Batch::default() }
    }

    /// An exchange up to its answer, which is left to the test.
    fn send(&mut self) -> Answer {
        let entry = self.core.encode(false);
        let batch = self.batch(entry);
        self.store.exchange_now(&batch)
    }

    fn receive(&self, answer: Answer) {
        let now_us = answer.now_us;
        self.core.receive(&answer.views.into_iter().next().unwrap().unwrap(), now_us);
    }

    fn exchange(&mut self) {
        let answer = self.send();
        self.receive(answer);
    }

    /// The store does not answer any more.
    fn lose_store(&self) {
        self.up.store(false, Ordering::Release);
        self.core.store_lost(&Error::store("testing", "it is away"));
    }

    fn call(&self, outcome: Outcome) {
        self.admitted().end(outcome);
    }

    fn fail(&self, times: usize) {
        (0..times).for_each(|_| self.call(Outcome::Failure));
    }

    fn admitted(&self) -> CallPermit<'_> {
        match self.core.admit() {
            Admission::Go(permit) => permit,
            Admission::No(_) => panic!("rejected"),
            Admission::Wait(_) => panic!("must wait"),
        }
    }

    fn is_rejected(&self) -> bool {
        matches!(self.core.admit(), Admission::No(_))
    }

    fn snapshot(&self) -> Snapshot {
        self.core.snapshot()
    }

    fn state(&self) -> State {
        self.snapshot().state
    }

    fn local_transitions(&mut self) -> Vec<(State, State, u64)> {
        let events = std::iter::from_fn(|| self.events.try_recv());
        events
            .filter_map(|event| match event {
                Event::LocalTransition(change) => Some((change.from, change.to, change.epoch)),
                _ => None,
            })
            .collect()
    }
}

struct Pair {
    hands: ManualClock,
    store: Arc<MemoryStore>,
    a: Peer,
    b: Peer,
}

impl Pair {
    fn new(config: &BreakerConfig) -> Self {
        let (clock, hands) = Clock::manual();
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let [mut a, mut b] = ["a", "b"].map(|id| Peer::new(id, config, &clock, &store));
        a.exchange();
        b.exchange();
        Pair { hands, store, a, b }
    }

    /// Open at both instances, and due for a probe.
    fn due(config: &BreakerConfig) -> Self {
        let mut bench = Pair::new(config);
        bench.a.fail(1);
        bench.sync();
        bench.hands.advance(RESET);
        assert_eq!(bench.stored(), State::Open);
        bench
    }

    /// Both instances learn what the other has done.
    fn sync(&mut self) {
        for _ in 0..2 {
            self.a.exchange();
            self.b.exchange();
        }
    }

    /// Time passes, with exchanges at their pace.
    fn pass(&mut self, span: Duration) {
        let step = Duration::from_millis(250);
        let steps = span.as_millis().div_ceil(step.as_millis());
        for _ in 0..steps {
            self.hands.advance(step);
            self.sync();
        }
    }

    /// What the store holds.
    fn stored(&self) -> State {
        self.record().state
    }

    fn record(&self) -> Record {
        let probe = Entry { name: "b".into(), ..Entry::default() };
        let batch =
            Batch { instance: "observer".into(), seq: u64::MAX, entries: vec![probe], ..Batch::default() };
        self.store.exchange_now(&batch).views.remove(0).unwrap().record
    }
}

/// The answer that a caller has by now.
fn answer<'a>(waiting: &mut Waiting<'a>) -> Option<CallPermit<'a>> {
    match Pin::new(waiting).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer.ok(),
        Poll::Pending => None,
    }
}

/// Opens at the first failure, and has one probe, which decides.
fn config() -> BreakerConfig {
    BreakerConfig::default()
        .failure_threshold(1)
        .reset_timeout(RESET)
        .half_open_max_calls(1)
        .success_threshold(1)
}
