//! Reads the event stream: every transition of the fleet, in order, without gaps.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use super::Command;
use crate::breaker::context::RegistryContext;
use crate::breakers::BreakerMap;
use crate::clock::Moment;
use crate::error::{Error, ErrorKind};
use crate::event::{Cursor, Event, Transition};
use crate::snapshot::State;
use crate::store::{Position, Store, StreamEvent};
use crate::sync::lock;

/// A blocking read of the stream returns after this, with or without events.
const PATIENCE: Duration = Duration::from_secs(5);
/// The delay before a stream that could not be read is read again. The coordinator loads all states
/// meanwhile.
const PAUSE: Duration = Duration::from_millis(300);

/// An event that is part of an answered position, and has not arrived for this long, was trimmed away.
const LATE: Duration = Duration::from_secs(2);

/// What has happened to the stream since this instance read it last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Continuity {
    /// Every event since can be read.
    #[default]
    Unbroken,
    /// Events have been trimmed away: the store's states are right, this instance's may be outdated.
    Gap,
    /// The stream is another one or has gone back: the store has lost data that this instance may know.
    Lost,
}

/// This instance's position in the stream; shared by the stream's reader and the coordinator.
#[derive(Default)]
pub(crate) struct Stream {
    position: Mutex<Position>,
    /// What the follower has found.
    continuity: Mutex<Continuity>,
    running: AtomicBool,
    lost: AtomicBool,
    /// While answers have a later position than this instance: its number here, and since when.
    behind: Mutex<Option<(u64, Moment)>>,
    /// The events up to the store's position are gone, so the next load continues behind them.
    skips: AtomicBool,
    /// `running` or `position` has been set by the coordinator.
    changed: Notify,
    /// The problem that was reported last.
    trouble: Mutex<Option<String>>,
}

impl Position {
    /// What it means that the next event to be read has this position.
    pub(super) fn followed_by(&self, next: &Position) -> Continuity {
        if self.incarnation.is_empty() {
            Continuity::Unbroken
        } else if self.incarnation != next.incarnation || next.number <= self.number {
            Continuity::Lost
        } else if next.number > self.number + 1 {
            Continuity::Gap
        } else {
            Continuity::Unbroken
        }
    }
}

impl Stream {
    /// Sets the position after a load. The same stream is read on from the old position, so that no event is
    /// missed. Another stream is read from `now`, its position at the time of the load.
    pub(crate) fn place(&self, now: &Position) {
        let mut position = lock(&self.position);
        let skips = self.skips.swap(false, Ordering::AcqRel);
        if skips || position.incarnation != now.incarnation || position.number > now.number {
            *position = now.clone();
            drop(position);
            self.changed.notify_one();
        }
    }

    /// Whether an answer shows that the store has lost data: its stream is another one, or has fewer events
    /// than before. `before`: this instance's position when it sent the request. The reader may be ahead of
    /// the answer by now.
    pub(super) fn is_another(&self, answered: &Position, before: &Position) -> bool {
        if answered.incarnation == before.incarnation {
            return answered.number < before.number;
        }
        answered.incarnation != lock(&self.position).incarnation
    }

    /// Whether an event of the answered position is overdue. It may have been trimmed away, and without a
    /// later event, nothing in the stream shows the gap.
    pub(super) fn misses_events(&self, answered: &Position, now: Moment) -> bool {
        let position = self.position();
        let mut behind = lock(&self.behind);
        if answered.incarnation != position.incarnation || answered.number <= position.number {
            *behind = None;
            return false;
        }
        match *behind {
            Some((number, since)) if number == position.number => {
                let misses = now.since(since) >= LATE;
                if misses {
                    *behind = None;
                }
                misses
            }
            _ => {
                *behind = Some((position.number, now));
                false
            }
        }
    }

    /// Makes the next load continue at the store's position: the events before it are gone.
    pub(super) fn skip(&self) {
        self.is_broken(Continuity::Gap);
        self.skips.store(true, Ordering::Release);
    }

    fn is_broken(&self, continuity: Continuity) {
        let mut known = lock(&self.continuity);
        *known = continuity.max(*known);
    }

    pub(super) fn take_continuity(&self) -> Continuity {
        std::mem::take(&mut *lock(&self.continuity))
    }

    pub(super) fn position(&self) -> Position {
        lock(&self.position).clone()
    }

    pub(crate) fn pause(&self) {
        self.running.store(false, Ordering::Release);
        self.changed.notify_one();
    }

    pub(crate) fn resume(&self) {
        self.running.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    pub(crate) fn set_lost(&self) {
        self.lost.store(true, Ordering::Release);
    }

    pub(crate) fn was_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Reports damage to a key.
    pub(crate) fn trouble(&self, context: &RegistryContext, problem: &str) {
        let what = "a key".into();
        self.report(context, Error::new(ErrorKind::Data { what, problem: problem.to_owned() }));
    }

    /// Reports an error, unless it is the one that was reported last.
    fn report(&self, context: &RegistryContext, error: Error) {
        let text = error.to_string();
        let mut last = lock(&self.trouble);
        if last.as_ref() != Some(&text) {
            *last = Some(text);
            drop(last);
            context.events.error(error);
        }
    }
}

/// Runs until it is aborted.
pub(crate) async fn follow(
    context: Arc<RegistryContext>,
    breakers: Arc<BreakerMap>,
    store: Arc<dyn Store>,
    stream: Arc<Stream>,
    requests: mpsc::WeakUnboundedSender<Command>,
) {
    let mut notice = String::new();
    loop {
        if !stream.running.load(Ordering::Acquire) {
            stream.changed.notified().await;
            continue;
        }
        let from = stream.position();
        let answer = tokio::select! {
            answer = store.follow(from.clone(), notice.clone(), PATIENCE) => answer,
            () = stream.changed.notified() => continue,
        };
        match answer {
            Ok(news) => {
                for event in news.events {
                    take(&context, &breakers, &stream, &requests, &event);
                }
                for core in news.notices.iter().filter_map(|name| breakers.get(name)) {
                    core.take_notice();
                }
                notice = news.notice;
            }
            Err(error) => {
                stream.report(&context, error);
                if let Some(requests) = requests.upgrade() {
                    let _ = requests.send(Command::Resync);
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

pub(super) fn take(
    context: &RegistryContext,
    breakers: &BreakerMap,
    stream: &Stream,
    requests: &mpsc::WeakUnboundedSender<Command>,
    event: &StreamEvent,
) {
    {
        let mut position = lock(&stream.position);
        let follows = event.position.incarnation == position.incarnation
            && event.position.number == position.number + 1;
        if !follows {
            // The stream was trimmed, deleted or created anew. The missing events' effects are in the states.
            stream.is_broken(position.followed_by(&event.position));
            if let Some(requests) = requests.upgrade() {
                let _ = requests.send(Command::Resync);
            }
        }
        *position = event.position.clone();
    }
    let now = context.clock.now();
    let mut record = event.record.clone();
    let elapsed = now.0.wrapping_add(context.skew()).saturating_sub(event.at_us);
    record.since_us = elapsed;
    record.remaining_us = record.remaining_us.map(|left| left.saturating_sub(elapsed));
    if event.from.is_none() && breakers.knows_later_than(&event.name, record.epoch) {
        // The store has lost this breaker, and an instance that knows less has written it back.
        match (breakers.get(&event.name), requests.upgrade()) {
            (Some(core), _) => core.exchange_next(),
            (None, Some(requests)) => drop(requests.send(Command::WriteBack(event.name.clone()))),
            (None, None) => {}
        }
        return;
    }
    breakers.adopt(&event.name, &record, now);
    // A state that was written back after the store had lost it: new instances adopt it, but it is no
    // transition.
    let Some(from) = event.from else { return };
    if breakers.get(&event.name).is_some_and(|core| !core.announce(record.epoch)) {
        return;
    }
    #[cfg(feature = "metrics")]
    if *record.originator != *context.instance {
        context.events.meter.arrived(Duration::from_micros(elapsed));
    }
    context.events.emit(Event::Transition(Arc::new(transition(context, event, from))));
}

/// The public form of an event. `from`: the previous state.
pub(crate) fn transition(context: &RegistryContext, event: &StreamEvent, from: State) -> Transition {
    let StreamEvent { position: Position { incarnation, id, number }, record, evidence, .. } = event;
    Transition {
        breaker: event.name.clone(),
        epoch: record.epoch,
        at: context.wall_of_store(event.at_us),
        from,
        to: record.state,
        reason: record.reason.clone(),
        actor: record.actor.clone(),
        originator: record.originator.clone(),
        own: *record.originator == *context.instance,
        successes: evidence.successes,
        failures: evidence.failures,
        open_for: (record.state == State::Open).then(|| Duration::from_micros(record.reset_timeout_us)),
        cursor: Some(Cursor { incarnation: incarnation.clone(), number: *number, id: id.clone() }),
    }
}
