//! The event stream.

use std::sync::Arc;
use std::time::Duration;

use super::{Counts, IDLE, MAX_EVENTS, Record};
use crate::snapshot::State;

/// A position in the event stream. The default is before the first event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// Identifies the stream. It changes when the store loses its data.
    pub(crate) incarnation: String,
    /// The store's own id of the last event ("0-0" for none).
    pub(crate) id: String,
    /// The last event's number: events are numbered 1, 2, 3, … without gaps.
    pub(crate) number: u64,
}

impl Position {
    /// Whether the event at this position is the next one after that.
    pub(crate) fn follows(&self, previous: &Position) -> bool {
        self.incarnation == previous.incarnation && self.number == previous.number + 1
    }
}

/// A part of the event stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EventsAt {
    /// The latest, newest first.
    Newest,
    /// Those before the event with this id, newest first.
    Before(String),
    /// Those after the event with this id, oldest first.
    After(String),
}

/// The retention of the event stream: at least `events` events, for `age` after the latest of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retention {
    pub(crate) events: usize,
    pub(crate) age: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Retention { events: MAX_EVENTS, age: IDLE }
    }
}

/// A transition in the event stream.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StreamEvent {
    /// The stream's position after this event.
    pub(crate) position: Position,
    pub(crate) name: Arc<str>,
    /// The previous state. `None` if the event is no transition: a state was written back that the store had
    /// lost.
    pub(crate) from: Option<State>,
    /// The new state, with `remaining_us` and `since_us` at the time of the transition.
    pub(crate) record: Record,
    pub(crate) evidence: Counts,
    /// The store's time of the transition.
    pub(crate) at_us: u64,
}

/// What an instance has received while it followed the store.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct News {
    pub(crate) events: Vec<StreamEvent>,
    /// Breakers of which all instances are to report without delay.
    pub(crate) notices: Vec<Arc<str>>,
    /// The id of the latest notice.
    pub(crate) notice: String,
}
