//! One instance's connection to the store, with its faults.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::Clock;
use crate::error::Error;
use crate::snapshot::State;
use crate::store::memory::MemoryStore;
use crate::store::{
    Acknowledged, Answer, Batch, BoxFuture, EventsAt, Load, News, Position, Report, Store, StreamEvent,
};
use crate::sync::lock;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Arrives,
    RequestLost,
    AnswerLost,
    /// The request takes the first time, the answer the second.
    Slow(Duration, Duration),
}

/// What happens to the notices that are read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoticeFate {
    Arrive,
    /// They have been trimmed away.
    Lost,
    /// They arrive after the events that they were read with.
    Late,
}

/// Breakers whose keys are gone, though Redis' set of breakers that are not closed still names them.
pub(super) type Missing = Arc<Mutex<BTreeSet<Arc<str>>>>;

pub(super) struct Wire {
    pub(super) store: Arc<MemoryStore>,
    pub(super) missing: Missing,
    /// The instance's.
    pub(super) clock: Clock,
    pub(super) cut: AtomicBool,
    /// Of the next request.
    pub(super) fate: Mutex<Fate>,
    pub(super) notices: Mutex<NoticeFate>,
    /// The stream's reader is connected to another server, until it makes a new connection.
    pub(super) deaf: AtomicBool,
    /// How long events are on their way, in microseconds.
    pub(super) event_delay: AtomicU64,
}

impl Wire {
    pub(super) fn new(store: Arc<MemoryStore>, missing: Missing, clock: Clock) -> Wire {
        Wire {
            store,
            missing,
            clock,
            cut: AtomicBool::new(false),
            fate: Mutex::new(Fate::Arrives),
            notices: Mutex::new(NoticeFate::Arrive),
            deaf: AtomicBool::new(false),
            event_delay: AtomicU64::new(0),
        }
    }

    pub(super) fn mend(&self) {
        self.cut.store(false, Ordering::Relaxed);
        *lock(&self.fate) = Fate::Arrives;
        *lock(&self.notices) = NoticeFate::Arrive;
        self.event_delay.store(0, Ordering::Relaxed);
    }

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
        self.sleep(before).await;
        let answer = request.await;
        self.sleep(after).await;
        if self.cut.load(Ordering::Relaxed) || fate == Fate::AnswerLost {
            return lost("the answer is lost");
        }
        answer
    }

    async fn sleep(&self, span: Duration) {
        self.clock.sleep_until(self.clock.now().after(span)).await;
    }

    fn exchange_now(&self, batch: &Batch) -> Answer {
        let answer = self.store.exchange_now(batch);
        for (entry, view) in batch.entries.iter().zip(&answer.views) {
            if view.as_ref().is_ok_and(|view| view.record.state != State::Closed) {
                lock(&self.missing).remove(&entry.name);
            }
        }
        answer
    }

    /// As Redis does, it names breakers that are listed, and not there.
    fn report_now(&self, report: &Report) -> Acknowledged {
        let suspects = lock(&self.missing).iter().cloned().collect();
        Acknowledged { suspects, ..self.store.report_now(report) }
    }
}

/// A read that is dropped takes its connection with it.
struct ReaderConnection<'a> {
    wire: &'a Wire,
    is_kept: bool,
}

impl ReaderConnection<'_> {
    fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for ReaderConnection<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            self.wire.deaf.store(false, Ordering::Relaxed);
        }
    }
}

impl Store for Wire {
    fn exchange(&self, batch: Batch) -> BoxFuture<'_, Result<Answer, Error>> {
        Box::pin(self.through(async move { Ok(self.exchange_now(&batch)) }))
    }
    fn report(&self, report: Report) -> BoxFuture<'_, Result<Acknowledged, Error>> {
        Box::pin(self.through(async move { Ok(self.report_now(&report)) }))
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
        Box::pin(async move {
            if self.cut.load(Ordering::Relaxed) {
                return Err(Error::store("simulating", "the stream is cut"));
            }
            let connection = ReaderConnection { wire: self, is_kept: false };
            let mut news = self.store.watch(from, notice.clone(), patience).await?;
            if self.deaf.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            connection.keep();
            self.sleep(Duration::from_micros(self.event_delay.load(Ordering::Relaxed))).await;
            if self.cut.load(Ordering::Relaxed) {
                return Err(Error::store("simulating", "the stream is cut"));
            }
            if !news.notices.is_empty() {
                match std::mem::replace(&mut *lock(&self.notices), NoticeFate::Arrive) {
                    NoticeFate::Arrive => {}
                    NoticeFate::Lost => news.notices.clear(),
                    NoticeFate::Late => (news.notices, news.notice) = (Vec::new(), notice),
                }
            }
            Ok(news)
        })
    }
    fn history(&self, at: EventsAt, limit: usize) -> BoxFuture<'_, Result<Vec<StreamEvent>, Error>> {
        Box::pin(self.through(self.store.history(at, limit)))
    }
}
