//! The overview of the whole fleet, for display. No decision depends on it.

use std::sync::Arc;
use std::time::Duration;

use super::{BoxFuture, FleetRow};
use crate::error::Error;

/// All breakers of the namespace, each in one of the first three lists.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Roll {
    /// Breakers that may not be closed.
    pub(crate) held: Vec<Arc<str>>,
    /// Closed ones that have to be [read](Overview::read).
    pub(crate) closed: Vec<Arc<str>>,
    /// Closed breakers whose reports contain all there is to read. Most keyed breakers are among them, so
    /// that an overview of many breakers needs few requests. Also what is listed and cannot be read.
    pub(crate) complete: Vec<(FleetRow, Detail)>,
    /// As in [`Answer`](super::Answer).
    pub(crate) warnings: Vec<String>,
}

/// More about a breaker than its record and its counts. Times are the store's.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Detail {
    pub(crate) opened_at_us: Option<u64>,
    pub(crate) last_failure_at_us: Option<u64>,
    /// The number of held leases.
    pub(crate) probes: u32,
    /// The instance that makes the health checks.
    pub(crate) leader: Option<String>,
}

/// A topic of an instance's posts. The store keeps the latest post of each instance and topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topic {
    /// The instance: host, process, version, and its latest sign of life.
    About,
    /// Its calls; posted while the fleet is observed.
    Figures,
    /// Its breakers' settings.
    Settings,
}

impl Topic {
    #[cfg(feature = "redis")]
    pub(crate) const ALL: [Topic; 3] = [Topic::About, Topic::Figures, Topic::Settings];
}

/// By instance.
pub(crate) type Posts = Vec<(Arc<str>, String)>;

pub(crate) trait Overview: Send + Sync + 'static {
    /// Lists all breakers. One that exists during the whole request is listed exactly once.
    fn roll(&self) -> BoxFuture<'_, Result<Roll, Error>>;

    /// Reads these breakers and their counts, by name, and leaves missing ones out. Large requests are made
    /// in parts, so that the store serves other clients in between.
    fn read(&self, names: Vec<Arc<str>>) -> BoxFuture<'_, Result<Vec<(FleetRow, Detail)>, Error>>;

    /// Stores an instance's posts. Returns whether the fleet is observed.
    fn post(&self, instance: Arc<str>, posts: Vec<(Topic, String)>) -> BoxFuture<'_, Result<bool, Error>>;

    /// All instances' posts on this topic.
    fn posts(&self, topic: Topic) -> BoxFuture<'_, Result<Posts, Error>>;

    /// At most `count` of the posts on this topic, picked at random.
    fn some_posts(&self, topic: Topic, count: usize) -> BoxFuture<'_, Result<Posts, Error>>;

    /// Removes these instances' posts.
    fn forget(&self, instances: Vec<Arc<str>>) -> BoxFuture<'_, Result<(), Error>>;

    /// Marks the fleet as observed for this duration.
    fn watch_fleet(&self, span: Duration) -> BoxFuture<'_, Result<(), Error>>;
}
