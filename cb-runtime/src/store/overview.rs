//! What a store has for people who look at the whole fleet. No decision rests on it.

use std::sync::Arc;
use std::time::Duration;

use super::{BoxFuture, FleetRow};
use crate::error::Error;

/// All breakers of the namespace, each in one of the three lists.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Roll {
    /// Those that may be in a state other than closed.
    pub(crate) held: Vec<Arc<str>>,
    /// Closed ones that have to be [read](Overview::read).
    pub(crate) closed: Vec<Arc<str>>,
    /// Closed ones of which reports have told all that there is. A fleet's many keyed breakers are among
    /// them, which is why its overview need not read each.
    pub(crate) complete: Vec<(FleetRow, Detail)>,
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

/// By instance.
pub(crate) type Posts = Vec<(Arc<str>, String)>;

pub(crate) trait Overview: Send + Sync + 'static {
    /// Which breakers there are. A breaker that is there all the while is in the answer, once.
    fn roll(&self) -> BoxFuture<'_, Result<Roll, Error>>;

    /// These breakers with their counts, by name; without those that are not there. Some at a time, so that
    /// other clients of the store are served in between.
    fn read(&self, names: Vec<Arc<str>>) -> BoxFuture<'_, Result<Vec<(FleetRow, Detail)>, Error>>;

    /// Puts up what an instance tells of itself, and answers whether somebody looks at the fleet.
    fn post(&self, instance: Arc<str>, posts: Vec<(Topic, String)>) -> BoxFuture<'_, Result<bool, Error>>;

    /// What all instances have told about this topic.
    fn posts(&self, topic: Topic) -> BoxFuture<'_, Result<Posts, Error>>;

    /// Removes what these instances have told.
    fn forget(&self, instances: Vec<Arc<str>>) -> BoxFuture<'_, Result<(), Error>>;

    /// Somebody looks at the fleet, for this long.
    fn watch_fleet(&self, span: Duration) -> BoxFuture<'_, Result<(), Error>>;
}
