//! Following the event stream: every change of state, in order, none missed.

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

/// How long one question to the stream may wait for its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// A stream that cannot be read is tried again after this; the states are learned another way meanwhile.
const PAUSE: Duration = Duration::from_millis(300);

/// An event that an answer told of arrives within this, or is gone.
const LATE: Duration = Duration::from_secs(2);

/// Where this instance stands in the stream; shared by the follower and the coordinator.
#[derive(Default)]
pub(crate) struct Stream {
    position: Mutex<Position>,
    running: AtomicBool,
    lost: AtomicBool,
    /// Where this instance stood while answers told of a later event, and since when.
    behind: Mutex<Option<(u64, Moment)>>,
    /// The events up to the answered position are gone.
    skips: AtomicBool,
    /// `running` or `position` has been set by the coordinator.
    changed: Notify,
    /// What has been reported already.
    trouble: Mutex<Option<String>>,
}

impl Stream {
    /// After a load: a stream that is the same is read on from where it was left, so that nothing is
    /// missed; another one from where it stands now.
    pub(crate) fn place(&self, now: &Position) {
        let mut position = lock(&self.position);
        let skips = self.skips.swap(false, Ordering::AcqRel);
        if skips || position.incarnation != now.incarnation || position.number > now.number {
            *position = now.clone();
            drop(position);
            self.changed.notify_one();
        }
    }

    /// Whether an answer tells of a store that has lost data: of another stream than the one that is
    /// followed, or of one that has gone back. `before`: where this instance stood when it asked. The
    /// follower may be ahead of an answer by then.
    pub(super) fn is_another(&self, answered: &Position, before: &Position) -> bool {
        if answered.incarnation == before.incarnation {
            return answered.number < before.number;
        }
        answered.incarnation != lock(&self.position).incarnation
    }

    /// Whether an event that an answer told of has not come for long: it may have been trimmed away, and no later
    /// one shows the gap.
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

    /// The events up to where the stream stands now are gone: the next load goes on behind them.
    pub(super) fn skip(&self) {
        self.skips.store(true, Ordering::Release);
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

    /// Something in the store that belongs to all breakers is damaged: told once per kind.
    pub(crate) fn trouble(&self, context: &RegistryContext, problem: &str) {
        let what = "what all breakers share".into();
        self.report(context, Error::new(ErrorKind::Data { what, problem: problem.to_owned() }));
    }

    /// Told once, until something else goes wrong.
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
            // Trimmed away, vanished or reborn: what was in between can only be learned from the states.
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
    breakers.adopt(&event.name, &record, now);
    // Written back after the store had lost it: news for newcomers, but no change of state.
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

/// An event of the stream as users see it. `from`: the state before.
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
