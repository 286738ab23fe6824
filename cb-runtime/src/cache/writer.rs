//! Writing to the store: a bounded channel and one worker.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::entry::CachedEntry;
use super::envelope::{seal, whole_millis};
use super::local::LocalTier;
use super::reports::{Problem, Reports};
use super::shared::StoreLink;
use crate::clock::Clock;
use crate::store::ResultStore;

/// The maximum number of writes that wait.
pub(super) const MAX_WRITES: usize = 1024;
/// The maximum size of the writes that wait. The local tier usually holds the same bytes.
pub(super) const MAX_BYTES: usize = 16 << 20;
/// The number and size of concurrent writes. They share a round trip on the one connection, and delay the
/// breakers' exchanges by no more than this.
const BATCH: (usize, usize) = (32, 1 << 20);
/// The worker collects writes for this time, so that many successes wake it once.
const GATHER: Duration = Duration::from_millis(5);
/// The deadline of one write.
const DEADLINE: Duration = Duration::from_secs(1);
/// The pause after a failed write.
const PAUSE: Duration = Duration::from_millis(250);
/// The interval at which the worker checks whether a lost store is back.
const ABSENCE: Duration = Duration::from_secs(1);

/// Queues results for the worker, which ends when this is dropped.
pub(super) struct Writer {
    messages: Sender<Message>,
    bytes: Arc<AtomicUsize>,
    reports: Arc<Reports>,
    background: Handle,
}

enum Message {
    Write(Arc<CachedEntry>),
    /// Answered once everything before it has been written or given up.
    Flush(oneshot::Sender<()>),
}

impl Writer {
    pub(super) fn start(
        link: StoreLink,
        local: &Arc<LocalTier>,
        clock: Clock,
        reports: Arc<Reports>,
        background: Handle,
    ) -> Self {
        let (messages, incoming) = channel(MAX_WRITES);
        let bytes = Arc::new(AtomicUsize::new(0));
        let worker = Worker {
            incoming,
            bytes: bytes.clone(),
            local: Arc::downgrade(local),
            context: Arc::new(Context { link, clock, reports: reports.clone() }),
        };
        background.spawn(worker.run());
        Writer { messages, bytes, reports, background }
    }

    /// Queues the entry. Never waits. `replaced`: the entry that it has replaced in this process. If that
    /// one is still queued, the worker will write this entry in its place.
    pub(super) fn write(&self, entry: &Arc<CachedEntry>, replaced: Option<&CachedEntry>) {
        if replaced.is_some_and(|replaced| replaced.store_key.is_some() && !replaced.is_taken()) {
            return;
        }
        let size = entry.size();
        let waiting = self.bytes.fetch_add(size, Ordering::Relaxed);
        let queue_is_full = waiting + size > MAX_BYTES
            || match self.messages.try_send(Message::Write(entry.clone())) {
                Ok(()) => return,
                Err(TrySendError::Full(_)) => true,
                // The store is gone.
                Err(TrySendError::Closed(_)) => false,
            };
        self.bytes.fetch_sub(size, Ordering::Relaxed);
        entry.take();
        if queue_is_full {
            self.reports.problem(Problem::Full, &entry.owner.breaker, || {
                "a result is not written to the store: too many are waiting".to_owned()
            });
        }
    }

    /// Returns once everything queued has been written or given up, after `limit` at the latest. The time
    /// is kept in the background, so this works in any executor.
    pub(super) async fn flush(&self, limit: Duration) {
        let (done, is_done) = oneshot::channel();
        let messages = self.messages.clone();
        let (given_up, is_given_up) = oneshot::channel::<()>();
        self.background.spawn(async move {
            let flushed = async {
                if messages.send(Message::Flush(done)).await.is_ok() {
                    let _ = is_done.await;
                }
            };
            let _ = tokio::time::timeout(limit, flushed).await;
            drop(given_up);
        });
        let _ = is_given_up.await;
    }
}

struct Worker {
    incoming: Receiver<Message>,
    bytes: Arc<AtomicUsize>,
    /// Weak, so that dropping a cache frees its entries immediately.
    local: Weak<LocalTier>,
    context: Arc<Context>,
}

/// The dependencies of a write.
struct Context {
    link: StoreLink,
    clock: Clock,
    reports: Arc<Reports>,
}

impl Worker {
    async fn run(mut self) {
        let mut messages = Vec::new();
        loop {
            let received = self.incoming.recv_many(&mut messages, BATCH.0).await;
            if received == 0 {
                return;
            }
            let mut batch = Vec::new();
            for message in messages.drain(..) {
                match message {
                    Message::Write(entry) => {
                        batch.push(entry);
                        if is_full(&batch) {
                            self.write(std::mem::take(&mut batch)).await;
                        }
                    }
                    Message::Flush(done) => {
                        self.write(std::mem::take(&mut batch)).await;
                        let _ = done.send(());
                    }
                }
            }
            self.write(batch).await;
            if self.context.link.is_gone() {
                return;
            }
            if received < BATCH.0 {
                tokio::time::sleep(GATHER).await;
            }
        }
    }

    /// Waits until the store is up, and writes.
    async fn write(&self, batch: Vec<Arc<CachedEntry>>) {
        if batch.is_empty() {
            return;
        }
        let waited: usize = batch.iter().map(|entry| entry.size()).sum();
        let store = loop {
            match self.context.link.store() {
                Some(store) => break Some(store),
                None if self.context.link.is_gone() || self.local.strong_count() == 0 => break None,
                None => tokio::time::sleep(ABSENCE).await,
            }
        };
        self.bytes.fetch_sub(waited, Ordering::Relaxed);
        let Some(store) = store else { return };
        let mut puts: JoinSet<bool> = batch
            .into_iter()
            .filter_map(|entry| self.latest(entry))
            .map(|entry| self.context.clone().put(store.clone(), entry))
            .collect();
        drop(store);
        let mut all_well = true;
        while let Some(done) = puts.join_next().await {
            all_well &= done.unwrap_or(false);
        }
        // A failed write is not retried: the next success queues the result again, and a write that the store
        // always refuses would block the queue.
        if !all_well {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The entry that has replaced this one in this process, or this one. `None`: it has been written
    /// already.
    fn latest(&self, mut entry: Arc<CachedEntry>) -> Option<Arc<CachedEntry>> {
        let mut is_first = entry.take();
        // Taken before the look-up: a success that replaces an entry that is not taken relies on this
        // look-up.
        while let Some(found) = self.local.upgrade().and_then(|local| local.peek(entry.key))
            && !Arc::ptr_eq(&found, &entry)
            && found.owner == entry.owner
            && found.store_key.is_some()
        {
            is_first = found.take();
            entry = found;
        }
        is_first.then_some(entry)
    }
}

fn is_full(batch: &[Arc<CachedEntry>]) -> bool {
    let (most, most_bytes) = BATCH;
    batch.len() >= most || batch.iter().map(|entry| entry.size()).sum::<usize>() >= most_bytes
}

impl Context {
    async fn put(self: Arc<Self>, store: Arc<dyn ResultStore>, entry: Arc<CachedEntry>) -> bool {
        let breaker = &entry.owner.breaker;
        let now = self.clock.now();
        let remaining = entry.remaining(now);
        let Some(key) = entry.store_key.as_deref().filter(|_| !remaining.is_zero()) else { return true };
        let envelope = seal(&entry.payload, entry.ttl(), entry.age(now));
        let put = store.cache_put(key.text(breaker), envelope, whole_millis(remaining));
        let problem = match tokio::time::timeout(DEADLINE, put).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => format!("a result could not be written to the store: {error}"),
            Err(_late) => format!("the store did not take a result within {DEADLINE:?}"),
        };
        self.reports.problem(Problem::Store, breaker, || problem);
        false
    }
}
