//! Writing to the store, in the background and only while there is something to write.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::envelope::whole_millis;
use super::key::Identity;
use super::pending::{Pushed, Write};
use super::reports::Trouble;
use super::shared::Shared;
use crate::clock::Moment;
use crate::store::Store;
use crate::sync::lock;

/// How much is under way at one time, in writes and in bytes: one connection carries them all, so this
/// many share a round trip, and what breakers have to say waits behind no more than this.
const BATCH: (usize, usize) = (32, 1 << 20);
/// How long one write may take.
const DEADLINE: Duration = Duration::from_secs(1);
/// How long nothing is written after a write has failed.
const PAUSE: Duration = Duration::from_millis(250);
/// How often a store that is away is looked for.
const ABSENCE: Duration = Duration::from_secs(1);

impl Shared {
    /// Leaves a result to be written. Never waits.
    pub(super) fn write(self: &Arc<Self>, identity: Identity, write: Write) {
        let breaker = write.breaker.clone();
        let pushed = lock(&self.pending).push(identity, write);
        match pushed {
            Pushed::Waits => {}
            Pushed::First => {
                let keeper = Keeper(Arc::downgrade(self));
                self.background.spawn(keeper.drain());
            }
            Pushed::Dropped => {
                let problem = "a result is not written to the store: too many are waiting".to_owned();
                self.reports.trouble(Trouble::Full, &breaker, problem);
            }
        }
    }

    /// Returns once nothing waits to be written, and after `limit` (which the background keeps) at the latest; at
    /// once if the store is away.
    pub(super) async fn flush(self: &Arc<Self>, limit: Duration) {
        if self.store().is_none() {
            return;
        }
        let (done, is_done) = oneshot::channel::<()>();
        let shared = self.clone();
        self.background.spawn(async move {
            let _ = tokio::time::timeout(limit, shared.settled()).await;
            drop(done);
        });
        let _ = is_done.await;
    }

    async fn settled(&self) {
        loop {
            let settled = self.settled.notified();
            let mut settled = std::pin::pin!(settled);
            settled.as_mut().enable();
            if !lock(&self.pending).is_drained() {
                return;
            }
            settled.await;
        }
    }

    async fn put(self: Arc<Self>, store: Arc<dyn Store>, identity: Identity, write: Write) -> bool {
        let remaining = write.remaining(self.clock.now());
        if remaining.is_zero() {
            return true;
        }
        let key = identity.store_key(&write.breaker);
        let put = store.cache_put(key, write.envelope.bytes().to_vec(), whole_millis(remaining));
        let problem = match tokio::time::timeout(DEADLINE, put).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => format!("a result could not be written to the store: {error}"),
            Err(_late) => format!("the store did not take a result within {DEADLINE:?}"),
        };
        self.reports.trouble(Trouble::Store, &write.breaker, problem);
        false
    }
}

/// Looks after the queue until it is empty. Dropped before that, it lets the next write start another.
struct Keeper(Weak<Shared>);

impl Keeper {
    async fn drain(self) {
        // Not kept over a pause: a registry that has been dropped must be able to go while its store is away.
        while let Some(shared) = self.0.upgrade() {
            let pause = if let Some(store) = shared.store() {
                let batch = lock(&shared.pending).take(BATCH);
                let Some(batch) = batch else { return self.leave(&shared) };
                let mut puts: JoinSet<bool> = batch
                    .into_iter()
                    .map(|(identity, write)| shared.clone().put(store.clone(), identity, write))
                    .collect();
                drop(store);
                let mut all_well = true;
                while let Some(done) = puts.join_next().await {
                    all_well &= done.unwrap_or(false);
                }
                // What failed is not tried again: the same success will come by again, and what the
                // store refuses for a reason of its own would stand in the way for ever.
                if all_well {
                    continue;
                }
                PAUSE
            } else {
                let now = if shared.is_store_gone() { Moment(u64::MAX) } else { shared.clock.now() };
                if !lock(&shared.pending).purge(now) {
                    return self.leave(&shared);
                }
                ABSENCE
            };
            drop(shared);
            tokio::time::sleep(pause).await;
        }
    }

    /// The queue is empty, and knows that nobody looks after it.
    fn leave(mut self, shared: &Shared) {
        self.0 = Weak::new();
        shared.settled.notify_waiters();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            lock(&shared.pending).abandon();
            shared.settled.notify_waiters();
        }
    }
}
