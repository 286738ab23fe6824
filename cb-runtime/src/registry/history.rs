//! The fleet's past transitions, from the store.

use super::Registry;
use crate::clock::micros;
use crate::coordinator::follower;
use crate::error::Error;
use crate::event::{Cursor, Events, Transition};
use crate::store::{EventsAt, StreamEvent};

/// The number of events per read.
const CHUNK: usize = 256;

impl Registry {
    /// The fleet's latest transitions, newest first: at most `limit` of them, as far back as the store
    /// [keeps them](crate::RegistryBuilder::retain_history).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), cb_runtime::Error> {
    /// use cb_runtime::{Registry, State};
    ///
    /// let registry = Registry::builder().build()?;
    /// registry.control("user-service").by("on-call").force_open("migration").await?;
    /// registry.control("user-service").by("on-call").release().await?;
    ///
    /// let history = registry.history(10).await?;
    /// let states: Vec<_> = history.iter().map(|change| (change.from, change.to)).collect();
    /// assert_eq!(states, [(State::ForcedOpen, State::Closed), (State::Closed, State::ForcedOpen)]);
    /// assert_eq!(history[1].reason, "migration");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn history(&self, limit: usize) -> Result<Vec<Transition>, Error> {
        let mut history = Vec::new();
        let mut at = EventsAt::Newest;
        while history.len() < limit {
            let chunk = self.read_events(at).await?;
            let Some(oldest) = chunk.last() else { break };
            at = EventsAt::Before(oldest.position.id.clone());
            history.extend(chunk.into_iter().filter_map(|event| self.transition(event)));
        }
        history.truncate(limit);
        Ok(history)
    }

    /// A subscription that begins with the transitions after `cursor` and continues with all new events. No
    /// transition between them is missing or received twice.
    ///
    /// Transitions that the store no longer [keeps](crate::RegistryBuilder::retain_history) are missing,
    /// and [`Events::lost`] counts them. If the store has lost its data since the cursor was made, the
    /// subscription begins with all transitions in the store.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), cb_runtime::Error> {
    /// use cb_runtime::{Cursor, Event, Registry, State};
    ///
    /// let registry = Registry::builder().build()?;
    /// registry.control("user-service").disable("load test").await?;
    /// let seen = registry.history(1).await?.remove(0).cursor.unwrap().to_string();
    ///
    /// registry.control("user-service").release().await?;
    /// // The browser has reconnected, and sends `Last-Event-ID: {seen}`.
    /// let cursor: Cursor = seen.parse().unwrap();
    /// let mut events = registry.subscribe_from(&cursor).await?;
    /// let Some(Event::Transition(change)) = events.recv().await else { panic!() };
    /// assert_eq!((change.to, events.lost()), (State::Closed, 0));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn subscribe_from(&self, cursor: &Cursor) -> Result<Events, Error> {
        // Subscribed before the read, so that no event is missed in between.
        let events = self.subscribe();
        let mut past: Vec<StreamEvent> = Vec::new();
        let mut at = EventsAt::After(cursor.id.clone());
        loop {
            let chunk = self.read_events(at).await?;
            let Some(newest) = chunk.last() else { break };
            at = EventsAt::After(newest.position.id.clone());
            past.extend(chunk);
        }
        let is_same = |event: &&StreamEvent| event.position.incarnation == cursor.incarnation;
        let trimmed = match past.first() {
            Some(first) if is_same(&first) => {
                first.position.number.saturating_sub(cursor.number.saturating_add(1))
            }
            Some(_) => 1,
            None => self.expired_after(cursor).await?,
        };
        let too_old = past.iter().filter(|event| event.from.is_some() && !self.is_kept(event)).count();
        let past = past.into_iter().filter_map(|event| self.transition(event)).collect();
        Ok(events.behind(past, trimmed + too_old as u64))
    }

    /// The number of events after `cursor`, if the store does not hold any event.
    async fn expired_after(&self, cursor: &Cursor) -> Result<u64, Error> {
        if !self.read_events(EventsAt::Newest).await?.is_empty() {
            return Ok(0);
        }
        let store = self.shared.store.clone();
        let load = self.in_background("reading the history", async move { store.load().await }).await?;
        let is_same = load.position.incarnation == cursor.incarnation;
        Ok(if is_same { load.position.number.saturating_sub(cursor.number) } else { 1 })
    }

    fn transition(&self, event: StreamEvent) -> Option<Transition> {
        let is_kept = self.is_kept(&event);
        // An event without `from` was written back after a loss of data: no transition.
        event.from.filter(|_| is_kept).map(|from| follower::transition(&self.context, event, from))
    }

    fn is_kept(&self, event: &StreamEvent) -> bool {
        let age_us = self.context.store_now().saturating_sub(event.at_us);
        self.shared.retention.is_none_or(|retention| age_us <= micros(retention.age))
    }

    async fn read_events(&self, at: EventsAt) -> Result<Vec<StreamEvent>, Error> {
        let store = self.shared.store.clone();
        self.in_background("reading the history", async move { store.history(at, CHUNK).await }).await
    }
}
