//! This instance's position in the event stream, and what shows that the stream has lost events.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::breaker::context::RegistryContext;
use crate::clock::Moment;
use crate::error::{Error, ErrorKind};
use crate::store::Position;
use crate::sync::lock;

/// An event that is part of an answered position, and has not arrived for this long, was trimmed away, or the
/// reader is connected to another server.
const LATE: Duration = Duration::from_secs(1);
/// The number of events whose ids are kept, to compare them with answers that come after them.
const RECENT: usize = 64;

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
    /// The position of the latest load.
    loaded: Mutex<Position>,
    /// A position in an answer that the reader has not reached: the first one, and when that is reached, the
    /// latest. If another event has its number by then, the store was restored, and has gone on since.
    awaited: Mutex<Option<Position>>,
    /// The latest events that were read: an answer may come after events that have overtaken it.
    recent: Mutex<VecDeque<Position>>,
    /// `running` or `position` has been set by the coordinator, or the reader needs a new connection: it
    /// drops the read that is under way, and its connection.
    changed: Notify,
    /// The problem that was reported last.
    reported: Mutex<Option<String>>,
}

impl Position {
    /// Whether another event has this number: the store was restored, and has gone on since.
    fn is_replaced_by(&self, other: &Position) -> bool {
        self.incarnation == other.incarnation && self.number == other.number && self.id != other.id
    }

    /// Whether the stream has fewer events at `later` than here, or another one in this place.
    fn is_undone_by(&self, later: &Position) -> bool {
        let has_fewer = later.incarnation == self.incarnation && later.number < self.number;
        has_fewer || self.is_replaced_by(later)
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
        now.clone_into(&mut lock(&self.loaded));
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
            lock(&self.recent).clear();
            drop(position);
            self.changed.notify_one();
        }
    }

    /// Whether an answer shows that the store has lost data: its stream is another one, has fewer events than
    /// before, or has another event in the place of the latest one. `before`: this instance's position when
    /// it sent the request. The reader may be ahead of the answer by now.
    pub(super) fn is_another(&self, answered: &Position, before: &Position) -> bool {
        if answered.incarnation == before.incarnation {
            return before.is_undone_by(answered);
        }
        answered.incarnation != lock(&self.position).incarnation
    }

    /// Notes the position in an answer. Returns whether the stream has lost events of which this answer or
    /// the one before told: the store has lost data, although the reader may not have read those events.
    pub(super) fn note_answered(&self, answered: &Position) -> bool {
        let before = std::mem::replace(&mut *lock(&self.answered), answered.clone());
        let goes_back = self.has_lost_between(&before, answered);
        if goes_back {
            self.note_break(Continuity::Lost);
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
        !before.incarnation.is_empty() && (!is_same || self.has_lost_between(&before, answered))
    }

    /// Whether the stream has fewer events than at the answer before, or another one in the place of one of
    /// which either answer told.
    fn has_lost_between(&self, before: &Position, answered: &Position) -> bool {
        before.is_undone_by(answered) || lock(&self.recent).iter().any(|read| read.is_replaced_by(answered))
    }

    /// Notes that the reader has read the event at this position. Returns whether it is the next one: if not,
    /// the stream was trimmed, deleted, restored or created anew.
    pub(super) fn read(&self, event: &Position) -> bool {
        let mut position = lock(&self.position);
        let is_replaced = self.note_reached(event);
        let is_next = event.follows(&position) && !is_replaced;
        if !is_next {
            let found = position.followed_by(event);
            self.note_break(if is_replaced { Continuity::Lost } else { found });
        }
        *position = event.clone();
        let mut recent = lock(&self.recent);
        recent.retain(|read| read.incarnation == event.incarnation && read.number < event.number);
        recent.push_back(event.clone());
        let surplus = recent.len().saturating_sub(RECENT);
        recent.drain(..surplus);
        is_next
    }

    /// Whether the latest load came after this event: it has the states that were still in force.
    pub(super) fn was_loaded_after(&self, event: &Position) -> bool {
        let loaded = lock(&self.loaded);
        loaded.incarnation == event.incarnation && loaded.number >= event.number
    }

    /// Notes that the reader has reached this position. Returns whether it is another event than the one that
    /// an answer has told of.
    fn note_reached(&self, read: &Position) -> bool {
        let mut awaited = lock(&self.awaited);
        let Some(expected) = awaited.take() else { return false };
        let is_ahead =
            |position: &Position| position.incarnation == read.incarnation && position.number > read.number;
        let is_replaced = expected.is_replaced_by(read);
        // Later answers may have told of later events.
        *awaited = [expected, lock(&self.answered).clone()].into_iter().find(is_ahead);
        is_replaced
    }

    /// Notes since when an event of the answered position is missing. Returns whether one is overdue.
    pub(super) fn note_missing(&self, answered: &Position, now: Moment) -> bool {
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
            self.note_break(Continuity::Gap);
        } else {
            self.changed.notify_one();
        }
    }

    fn note_break(&self, continuity: Continuity) {
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

    pub(super) fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }

    /// Waits until the reader must drop its read and its connection: see `changed`.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
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
    pub(crate) fn report_damage(&self, context: &RegistryContext, problem: &str) {
        let what = "a key".into();
        self.report(context, Error::new(ErrorKind::Data { what, problem: problem.to_owned() }));
    }

    /// Reports an error, unless it is the one that was reported last.
    pub(super) fn report(&self, context: &RegistryContext, error: Error) {
        let text = error.to_string();
        let mut last = lock(&self.reported);
        if last.as_ref() != Some(&text) {
            *last = Some(text);
            drop(last);
            context.events.error(error);
        }
    }
}

#[cfg(test)]
mod tests;
