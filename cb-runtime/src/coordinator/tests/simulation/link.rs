//! An instance's way to the store, which loses requests and answers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::ManualClock;
use crate::error::Error;
use crate::store::memory::MemoryStore;
use crate::store::{
    Acknowledged, Answer, Batch, BoxFuture, EventsAt, Load, News, Position, Report, Store, StreamEvent,
};
use crate::sync::lock;

/// One instance's way to the store.
pub(super) struct SimulatedLink {
    store: Arc<MemoryStore>,
    fate: Mutex<Fate>,
    /// Receives every batch before it is answered.
    pub(super) listener: Mutex<Option<Listener>>,
    /// Runs before the next exchange or report arrives.
    pub(super) before_next: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// Exchanges and reports, and the entries in them.
    pub(super) requests: AtomicU64,
    pub(super) entries: AtomicU64,
    /// How long an answer takes, by the simulated clock.
    delay: Mutex<Duration>,
    time: ManualClock,
}

type Listener = Box<dyn FnMut(&Batch) + Send>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fate {
    #[default]
    Up,
    Cut,
    /// The next request arrives, its answer does not.
    LoseAnswer,
}

impl SimulatedLink {
    pub(super) fn new(store: Arc<MemoryStore>, time: ManualClock) -> Self {
        SimulatedLink {
            store,
            fate: Mutex::default(),
            listener: Mutex::default(),
            before_next: Mutex::default(),
            requests: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            delay: Mutex::default(),
            time,
        }
    }

    pub(super) fn set(&self, fate: Fate) {
        *lock(&self.fate) = fate;
    }

    pub(super) fn is_cut(&self) -> bool {
        *lock(&self.fate) == Fate::Cut
    }

    pub(super) fn delay_answers(&self, span: Duration) {
        *lock(&self.delay) = span;
    }

    async fn through<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.time.advance(*lock(&self.delay));
        let fate = *lock(&self.fate);
        match fate {
            Fate::Up => answer.await,
            Fate::Cut => Err(Error::store("simulating", "cut")),
            Fate::LoseAnswer => {
                self.set(Fate::Up);
                answer.await?;
                Err(Error::store("simulating", "the answer is lost"))
            }
        }
    }

    fn count(&self, entries: usize) {
        if let Some(act) = lock(&self.before_next).take() {
            act();
        }
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
}
