//! What a store has for people who look at the whole fleet. No decision rests on it.

use std::sync::Arc;
use std::time::Duration;

use super::{BoxFuture, FleetRow};
use crate::error::Error;

/// The names of all breakers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Names {
    /// Of those that may be in a state other than closed.
    pub(crate) held: Vec<Arc<str>>,
    /// Of all others.
    pub(crate) closed: Vec<Arc<str>>,
}

/// What is kept of a breaker beside its state and its counts. All instants are the store's.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Detail {
    pub(crate) opened_at_us: Option<u64>,
    pub(crate) last_failure_at_us: Option<u64>,
    /// Leases that are out.
    pub(crate) probes: u32,
    /// The instance that makes the health checks.
    pub(crate) leader: Option<String>,
}

/// What an instance tells of itself: one text for each topic, the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topic {
    /// Who it is, and when it was alive.
    About,
    /// Its calls, while somebody looks.
    Figures,
    /// What its breakers judge by.
    Settings,
}

impl Topic {
    pub(crate) const ALL: [Topic; 3] = [Topic::About, Topic::Figures, Topic::Settings];
}

pub(crate) trait Overview: Send + Sync + 'static {
    fn names(&self) -> BoxFuture<'_, Result<Names, Error>>;

    /// These breakers with their counts, by name; without those that are not there.
    fn read(&self, names: Vec<Arc<str>>) -> BoxFuture<'_, Result<Vec<FleetRow>, Error>>;

    /// One for each of these breakers, in their order. `now_us`: the store's time.
    fn details(&self, names: Vec<Arc<str>>, now_us: u64) -> BoxFuture<'_, Result<Vec<Detail>, Error>>;

    /// Puts up what an instance tells of itself, and answers whether somebody looks at the fleet.
    fn post(&self, instance: Arc<str>, posts: Vec<(Topic, String)>) -> BoxFuture<'_, Result<bool, Error>>;

    /// What all instances have told about this topic.
    fn posts(&self, topic: Topic) -> BoxFuture<'_, Result<Vec<(Arc<str>, String)>, Error>>;

    /// Removes what these instances have told.
    fn forget(&self, instances: Vec<Arc<str>>) -> BoxFuture<'_, Result<(), Error>>;

    /// Somebody looks at the fleet, for this long.
    fn watch_fleet(&self, span: Duration) -> BoxFuture<'_, Result<(), Error>>;
}
