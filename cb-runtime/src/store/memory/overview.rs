//! The overview of the fleet.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use super::{MemoryStore, StoredBreaker};
use crate::error::Error;
use crate::snapshot::State;
use crate::store::{BoxFuture, Detail, FleetRow, Overview, Posts, Roll, Topic};

/// Instances' posts, and the time until which the fleet is observed.
#[derive(Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Board {
    posts: BTreeMap<(Topic, Arc<str>), String>,
    watched_until: u64,
}

impl Overview for MemoryStore {
    fn roll(&self) -> BoxFuture<'_, Result<Roll, Error>> {
        let space = self.lock();
        let now = self.clock.now().0;
        let is_held = |entry: &(&Arc<str>, &StoredBreaker)| entry.1.state() != State::Closed;
        let kept = space.breakers.iter().filter(|(_, breaker)| !breaker.has_lapsed(now));
        let (held, closed): (Vec<_>, Vec<_>) = kept.partition(is_held);
        let names = |some: Vec<(&Arc<str>, _)>| some.into_iter().map(|(name, _)| name.clone()).collect();
        Box::pin(ready(Ok(Roll { held: names(held), closed: names(closed), ..Roll::default() })))
    }

    fn read(&self, mut names: Vec<Arc<str>>) -> BoxFuture<'_, Result<Vec<(FleetRow, Detail)>, Error>> {
        names.sort_unstable();
        names.dedup();
        let space = self.lock();
        let now = self.clock.now().0;
        let row = |name: Arc<str>| {
            let breaker = space.breakers.get(&name).filter(|breaker| !breaker.has_lapsed(now))?;
            Some((breaker.row(name, now), breaker.detail(now)))
        };
        Box::pin(ready(Ok(names.into_iter().filter_map(row).collect())))
    }

    fn post(&self, instance: Arc<str>, posts: Vec<(Topic, String)>) -> BoxFuture<'_, Result<bool, Error>> {
        let now = self.clock.now().0;
        let board = &mut self.lock().board;
        for (topic, text) in posts {
            board.posts.insert((topic, instance.clone()), text);
        }
        Box::pin(ready(Ok(board.watched_until > now)))
    }

    fn posts(&self, topic: Topic) -> BoxFuture<'_, Result<Posts, Error>> {
        let space = self.lock();
        let posts = space.board.posts.iter().filter(|((of, _), _)| *of == topic);
        let posts = posts.map(|((_, instance), text)| (instance.clone(), text.clone()));
        Box::pin(ready(Ok(posts.collect())))
    }

    fn some_posts(&self, topic: Topic, count: usize) -> BoxFuture<'_, Result<Posts, Error>> {
        let all = self.posts(topic);
        Box::pin(async move { Ok(fastrand::choose_multiple(all.await?, count)) })
    }

    fn forget(&self, instances: Vec<Arc<str>>) -> BoxFuture<'_, Result<(), Error>> {
        self.lock().board.posts.retain(|(_, instance), _| !instances.contains(instance));
        Box::pin(ready(Ok(())))
    }

    fn watch_fleet(&self, span: Duration) -> BoxFuture<'_, Result<(), Error>> {
        self.lock().board.watched_until = self.clock.now().after(span).0;
        Box::pin(ready(Ok(())))
    }
}
