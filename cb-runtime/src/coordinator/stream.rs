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

/// An event that is part of an answered position, and has not arrived for this long, was trimmed away, or the
/// reader is connected to another server.
const LATE: Duration = Duration::from_secs(1);

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

/// Events that an answer has announced, and which have not arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum MissingEvents {
    #[default]
    None,
    /// They may be on their way. `number`: this instance's position, at which it has been since `since`.
    Delayed { number: u64, since: Moment },
    /// They may have been trimmed away: without a later event, nothing in the stream shows the gap.
    Overdue,
    /// They are gone. The next load continues at the store's position.
    Gone,
}

/// This instance's position in the stream; shared by the stream's reader and the coordinator.
#[derive(Default)]
pub(crate) struct Stream {
    position: Mutex<Position>,
    /// What the follower has found.
    continuity: Mutex<Continuity>,
    running: AtomicBool,
    missing: Mutex<MissingEvents>,
    /// The position in the latest answer.
    answered: Mutex<Position>,
    /// The first position in an answer that the reader has not reached. If another event has its number by
    /// then, the store was restored, and has gone on since.
    awaited: Mutex<Option<Position>>,
    /// `running` or `position` has been set by the coordinator, or the reader needs a new connection: it
    /// drops the read that is under way, and its connection.
    changed: Notify,
    /// The problem that was reported last.
    trouble: Mutex<Option<String>>,
}

impl Position {
    /// Whether another event has this number: the store was restored, and has gone on since.
    fn is_replaced_by(&self, other: &Position) -> bool {
        self.incarnation == other.incarnation && self.number == other.number && self.id != other.id
    }

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
    /// missed. Another stream is read from `now`, its position at the time of the load. `before`: this
    /// instance's position when it asked. The reader may have read on since, and is right then.
    pub(crate) fn place(&self, now: &Position, before: &Position) {
        let mut position = lock(&self.position);
        let mut missing = lock(&self.missing);
        let skips = *missing == MissingEvents::Gone;
        if skips {
            *missing = MissingEvents::None;
        }
        let is_behind = skips
            || position.incarnation != now.incarnation
            || position.number > now.number
            || position.is_replaced_by(now);
        if is_behind && *position == *before {
            *position = now.clone();
            drop(position);
            self.changed.notify_one();
        }
    }

    /// Whether an answer shows that the store has lost data: its stream is another one, has fewer events than
    /// before, or has another event in the place of the latest one. `before`: this instance's position when
    /// it sent the request. The reader may be ahead of the answer by now.
    pub(super) fn is_another(&self, answered: &Position, before: &Position) -> bool {
        if answered.incarnation == before.incarnation {
            return answered.number < before.number || before.is_replaced_by(answered);
        }
        answered.incarnation != lock(&self.position).incarnation
    }

    /// Notes the position in an answer. Returns whether the stream has lost events of which the answer before
    /// told: the store has lost data, although the reader may not have read those events.
    pub(super) fn goes_back_to(&self, answered: &Position) -> bool {
        let before = std::mem::replace(&mut *lock(&self.answered), answered.clone());
        let has_fewer = answered.incarnation == before.incarnation && answered.number < before.number;
        let goes_back = has_fewer || before.is_replaced_by(answered);
        if goes_back {
            self.is_broken(Continuity::Lost);
        }
        let reached = self.position();
        let is_unread = |position: &Position| {
            reached.incarnation != position.incarnation || reached.number < position.number
        };
        let is_valid = |awaited: &Position| {
            !goes_back && awaited.incarnation == answered.incarnation && is_unread(awaited)
        };
        let mut awaited = lock(&self.awaited);
        if awaited.as_ref().is_none_or(|awaited| !is_valid(awaited)) {
            *awaited = is_unread(answered).then(|| answered.clone());
        }
        goes_back
    }

    /// Whether the store has lost data between the previous answer and this one, which is not noted yet.
    pub(super) fn has_lost_since(&self, answered: &Position) -> bool {
        let before = lock(&self.answered);
        let is_same = before.incarnation == answered.incarnation;
        !before.incarnation.is_empty()
            && (!is_same || answered.number < before.number || before.is_replaced_by(answered))
    }

    /// Notes that the reader has reached this position. Returns whether it is another event than the one that
    /// an answer has told of.
    fn reaches(&self, read: &Position) -> bool {
        let mut awaited = lock(&self.awaited);
        let Some(expected) = awaited.take() else { return false };
        let is_ahead = expected.incarnation == read.incarnation && expected.number > read.number;
        let is_replaced = expected.is_replaced_by(read);
        *awaited = is_ahead.then_some(expected);
        is_replaced
    }

    /// Whether an event of the answered position is overdue.
    pub(super) fn misses_events(&self, answered: &Position, now: Moment) -> bool {
        let position = self.position();
        let mut missing = lock(&self.missing);
        *missing = match *missing {
            _ if answered.incarnation != position.incarnation || answered.number <= position.number => {
                MissingEvents::None
            }
            MissingEvents::Delayed { number, since } if number == position.number => {
                if now.since(since) >= LATE { MissingEvents::Overdue } else { *missing }
            }
            MissingEvents::None | MissingEvents::Delayed { .. } => {
                MissingEvents::Delayed { number: position.number, since: now }
            }
            known => known,
        };
        matches!(*missing, MissingEvents::Overdue | MissingEvents::Gone)
    }

    /// The position after which the stream has to be asked for events that are overdue.
    pub(super) fn overdue_after(&self) -> Option<Position> {
        (*lock(&self.missing) == MissingEvents::Overdue).then(|| self.position())
    }

    /// The store was asked for the overdue events. If they are gone, the next load continues at its position.
    /// If they are there, the reader's connection leads to another server than the one for commands: a
    /// failover or a proxy has left it with the old one. A new connection then reads them.
    pub(super) fn settle_overdue(&self, are_gone: bool) {
        *lock(&self.missing) = if are_gone { MissingEvents::Gone } else { MissingEvents::None };
        if are_gone {
            self.is_broken(Continuity::Gap);
        } else {
            self.changed.notify_one();
        }
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

    /// The number of the latest event that was read.
    pub(super) fn number(&self) -> u64 {
        lock(&self.position).number
    }

    /// The number of the latest event that was read, or of which an answer has told.
    pub(super) fn latest_number(&self) -> u64 {
        self.number().max(lock(&self.answered).number)
    }

    pub(crate) fn pause(&self) {
        self.running.store(false, Ordering::Release);
        self.changed.notify_one();
    }

    pub(crate) fn resume(&self) {
        self.running.store(true, Ordering::Release);
        self.changed.notify_one();
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
            answer = store.watch(from.clone(), notice.clone(), PATIENCE) => answer,
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
        let is_replaced = stream.reaches(&event.position);
        if !follows || is_replaced {
            // The stream was trimmed, deleted, restored or created anew. The missing events' effects are in
            // the states.
            let found = position.followed_by(&event.position);
            stream.is_broken(if is_replaced { Continuity::Lost } else { found });
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
    if breakers.knows_later_than(&event.name, record.epoch) {
        // An answer was faster than this event, or the store has lost this breaker, and an instance that
        // knows less has gone on with it.
        match (breakers.get(&event.name), requests.upgrade()) {
            (Some(core), _) => core.exchange_next(),
            (None, Some(requests)) => drop(requests.send(Command::WriteBack(event.name.clone()))),
            (None, None) => {}
        }
    } else {
        breakers.adopt(&event.name, &record, now);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_with_fewer_events_than_the_one_before_shows_a_loss_of_data() {
        let at = |incarnation: &str, number: u64| Position {
            incarnation: incarnation.into(),
            id: format!("{number}-0"),
            number,
        };
        let stream = Stream::default();
        let is_lost = |answered: &Position| (stream.goes_back_to(answered), stream.take_continuity());
        for position in [at("one", 5), at("one", 5), at("one", 6), at("two", 1)] {
            assert_eq!(is_lost(&position), (false, Continuity::Unbroken));
        }
        assert_eq!(is_lost(&at("two", 0)), (true, Continuity::Lost));
        assert_eq!(is_lost(&at("two", 0)), (false, Continuity::Unbroken));
    }

    #[test]
    fn another_event_with_the_number_of_an_unread_one_shows_a_loss_of_data() {
        let at = |serial: u64, number: u64| Position {
            incarnation: "one".into(),
            id: format!("{serial}-0"),
            number,
        };
        let stream = Stream::default();
        stream.place(&at(6, 6), &stream.position());
        assert!(!stream.goes_back_to(&at(7, 7)) && !stream.has_lost_since(&at(7, 7)));
        assert!(stream.has_lost_since(&at(9, 7)) && stream.goes_back_to(&at(9, 7)));
        assert_eq!(stream.take_continuity(), Continuity::Lost);
        // The store was restored to the sixth event, and has two further ones when it answers again.
        assert!(!stream.goes_back_to(&at(12, 8)));
        assert!(stream.reaches(&at(11, 7)), "the answer told of another seventh event");
        assert!(!stream.reaches(&at(12, 8)));
        // One that is read before it is answered.
        assert!(!stream.reaches(&at(13, 9)) && !stream.reaches(&at(14, 10)));
    }

    #[test]
    fn another_event_with_the_number_of_the_latest_shows_a_loss_of_data() {
        let at = |id: &str| Position { incarnation: "one".into(), id: id.into(), number: 2 };
        let stream = Stream::default();
        stream.place(&at("7-0"), &stream.position());
        assert!(!stream.is_another(&at("7-0"), &stream.position()));
        assert!(stream.is_another(&at("9-0"), &stream.position()));
        stream.place(&at("9-0"), &at("7-0"));
        assert_eq!(stream.position(), at("9-0"), "the next answer would show the loss again");
    }

    #[test]
    fn load_does_not_set_a_reader_back_that_has_read_on() {
        let at = |number: u64| Position { incarnation: "one".into(), id: format!("{number}-0"), number };
        let stream = Stream::default();
        stream.place(&at(5), &stream.position());
        // An event arrives while the answer to a load is under way.
        *lock(&stream.position) = at(6);
        stream.place(&at(5), &at(5));
        assert_eq!(stream.position(), at(6), "the event would be read twice");
        stream.place(&at(2), &at(6));
        assert_eq!(stream.position(), at(2), "the store has lost events");
    }
}
