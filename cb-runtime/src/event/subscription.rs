//! Receiving events.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::broadcast;

use super::{Cursor, Event, Transition};

/// A subscription to all events since it was made, or [since a cursor](crate::Registry::subscribe_from).
///
/// A subscriber that is more than 1,024 events behind loses the oldest ones; [`Events::lost`] counts them.
#[derive(Debug)]
pub struct Events {
    receiver: broadcast::Receiver<Event>,
    /// Past transitions that have not been received yet.
    past: VecDeque<Event>,
    /// The cursor of the last of them. The channel may contain some of them, too.
    resumed: Option<Cursor>,
    lost: u64,
}

impl Events {
    /// The next event; `None` once the registry has been shut down. Cancelling loses nothing.
    pub async fn recv(&mut self) -> Option<Event> {
        if let Some(event) = self.past.pop_front() {
            return Some(event);
        }
        loop {
            match self.receiver.recv().await {
                Ok(event) if self.is_known(&event) => {}
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(n)) => self.lost += n,
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// The next event, without waiting.
    pub fn try_recv(&mut self) -> Option<Event> {
        if let Some(event) = self.past.pop_front() {
            return Some(event);
        }
        loop {
            match self.receiver.try_recv() {
                Ok(event) if self.is_known(&event) => {}
                Ok(event) => return Some(event),
                Err(broadcast::error::TryRecvError::Lagged(n)) => self.lost += n,
                Err(_) => return None,
            }
        }
    }

    /// The minimum number of missing events: those that this subscriber was too slow for, and those between
    /// its cursor and the oldest event in the store.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    pub(super) fn new(receiver: broadcast::Receiver<Event>) -> Self {
        Events { receiver, past: VecDeque::new(), resumed: None, lost: 0 }
    }

    /// Prepends past transitions, which were read after the subscription was made. `lost`: the number of
    /// missing transitions before them.
    pub(crate) fn behind(mut self, past: Vec<Transition>, lost: u64) -> Self {
        self.resumed = past.last().and_then(|last| last.cursor.clone());
        self.past = past.into_iter().map(|transition| Event::Transition(Arc::new(transition))).collect();
        self.lost += lost;
        self
    }

    fn is_known(&self, event: &Event) -> bool {
        let Event::Transition(transition) = event else { return false };
        let (Some(here), Some(resumed)) = (&transition.cursor, &self.resumed) else { return false };
        here.is_covered_by(resumed)
    }
}
