//! Follows the event stream: applies every transition of the fleet to this instance's breakers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::Command;
use super::stream::Stream;
use crate::breaker::context::RegistryContext;
use crate::breakers::BreakerMap;
use crate::event::{Cursor, Event, Transition};
use crate::snapshot::State;
use crate::store::{Position, Store, StreamEvent};

/// A watch of the stream returns after this, with or without events.
const PATIENCE: Duration = Duration::from_secs(5);
/// The delay before a stream that could not be read is read again. The coordinator loads all states
/// meanwhile.
const PAUSE: Duration = Duration::from_millis(300);

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
        if !stream.is_running() {
            stream.changed().await;
            continue;
        }
        let from = stream.position();
        let answer = tokio::select! {
            answer = store.watch(from, notice.clone(), PATIENCE) => answer,
            () = stream.changed() => continue,
        };
        match answer {
            Ok(news) => {
                for event in news.events {
                    take(&context, &breakers, &stream, &requests, event);
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
    mut event: StreamEvent,
) {
    if !stream.read(&event.position)
        && let Some(requests) = requests.upgrade()
    {
        // The missing events' effects are in the states.
        let _ = requests.send(Command::Resync);
    }
    let now = context.clock.now();
    let elapsed = now.0.wrapping_add(context.skew()).saturating_sub(event.at_us);
    let record = &mut event.record;
    record.since_us = elapsed;
    record.remaining_us = record.remaining_us.map(|left| left.saturating_sub(elapsed));
    if breakers.contradicts(&event.name, record) {
        // An answer was faster than this event, or the store has lost this breaker, and an instance that
        // knows less has gone on with it. Which state is in force, the store knows.
        match (breakers.get(&event.name), requests.upgrade()) {
            (Some(core), _) => core.exchange_next(),
            (None, Some(requests)) => drop(requests.send(Command::WriteBack(event.name.clone()))),
            (None, None) => {}
        }
    } else if record.state != State::Closed && stream.was_loaded_after(&event.position) {
        // Either the load has adopted it, or the store does not hold it any more.
        if let Some(core) = breakers.get(&event.name) {
            core.exchange_next();
        }
    } else {
        breakers.adopt(&event.name, record, now);
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
pub(crate) fn transition(context: &RegistryContext, event: StreamEvent, from: State) -> Transition {
    let StreamEvent { position: Position { incarnation, id, number }, name, record, evidence, at_us, .. } =
        event;
    Transition {
        breaker: name,
        epoch: record.epoch,
        at: context.wall_of_store(at_us),
        from,
        to: record.state,
        own: *record.originator == *context.instance,
        reason: record.reason,
        actor: record.actor,
        originator: record.originator,
        successes: evidence.successes,
        failures: evidence.failures,
        open_for: (record.state == State::Open).then(|| Duration::from_micros(record.reset_timeout_us)),
        cursor: Some(Cursor { incarnation, number, id }),
    }
}
