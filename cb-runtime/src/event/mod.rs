//! The events of a registry: transitions, in the order of their epochs, and problems.

mod bus;
mod cursor;
mod log;
mod subscription;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::error::Error;
use crate::serial;
use crate::snapshot::State;
pub(crate) use bus::{EventBus, OnError};
pub use cursor::{Cursor, ParseCursorError};
pub use subscription::Events;

/// An event. Events of changes are sent after the change.
///
/// `serde` writes it as one object whose `event` is the kind: `{"event": "transition", "breaker": "orders",
/// …}`.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// A transition of the fleet's state of a breaker. Every instance receives each transition exactly
    /// once, and a breaker's transitions in the order of their epochs.
    Transition(Arc<Transition>),
    /// A transition of this instance alone, made while it could not reach the store or below the quorum. The
    /// instance returns to the fleet's state later.
    LocalTransition(Arc<Transition>),
    /// A cached result has answered in place of a failed or rejected call.
    CacheHit {
        /// The breaker's name.
        breaker: Arc<str>,
        /// Where the result was found.
        tier: CacheTier,
        /// How long ago it had been stored.
        #[serde(serialize_with = "serial::span")]
        age: Duration,
    },
    /// A health check that this instance made has ended. A transition tells what it led to.
    HealthCheck {
        /// The breaker's name.
        breaker: Arc<str>,
        /// `Ok` if it passed; else the check's own error, its panic, or that it took too long. `serde` writes
        /// it as `error`, which is `null` if the check passed.
        #[serde(rename = "error", serialize_with = "only_error")]
        result: Result<(), String>,
        /// From its beginning to its end, or until it was dropped.
        #[serde(serialize_with = "serial::span")]
        took: Duration,
    },
    /// A [metrics-only](crate::State::MetricsOnly) breaker would have opened. Sent once when its rules
    /// begin to be met, not for every call.
    WouldHaveOpened {
        /// The breaker's name.
        breaker: Arc<str>,
        /// The rule, with its figures and the limit.
        reason: String,
    },
    /// The store does not answer. From now on this instance decides locally. Where connections are dropped
    /// all the time, losses of less than a second in the ten seconds after such an event are not sent one by
    /// one, nor are their ends: an [`Error`](Event::Error) tells their number.
    StoreLost(Error),
    /// The store answers again, and this instance has adopted the fleet's states.
    StoreRestored,
    /// Another problem in the background. Calls are not affected.
    Error(Error),
}

#[allow(clippy::ref_option, reason = "the signature that serde asks for")]
fn only_error<S: Serializer>(result: &Result<(), String>, out: S) -> Result<S::Ok, S::Error> {
    result.as_ref().err().serialize(out)
}

/// A transition of a breaker's state.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Transition {
    /// The breaker's name.
    pub breaker: Arc<str>,
    /// The number of the new state. For a local transition, that of the last state which the store confirmed.
    pub epoch: u64,
    /// When it happened, by the store's clock, so that all instances see one time. For a local transition,
    /// this instance's estimate of the store's clock.
    #[serde(serialize_with = "serial::time")]
    pub at: SystemTime,
    /// The state before.
    pub from: State,
    /// The state from now on.
    pub to: State,
    /// The rule that led to it, with its figures and the limit; or the reason that an operator gave.
    pub reason: String,
    /// The [actor](crate::Breaker::by) of a manual override; empty if none was given.
    pub actor: String,
    /// The id of the instance that made the transition.
    pub originator: String,
    /// Whether that instance is this one.
    pub own: bool,
    /// The number of successes that the decision rests on.
    pub successes: u64,
    /// The number of failures that the decision rests on.
    pub failures: u64,
    /// The time from opening to half-open, if it has opened.
    #[serde(serialize_with = "serial::option_span")]
    pub open_for: Option<Duration>,
    /// Its position in the fleet's history, to [resume from](crate::Registry::subscribe_from). A local
    /// transition has none.
    pub cursor: Option<Cursor>,
}

/// Where a cached result was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CacheTier {
    /// In this process.
    Local,
    /// In the store that the fleet shares.
    Shared,
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn transition() -> Transition {
        Transition {
            breaker: "orders".into(),
            epoch: 3,
            at: crate::clock::wall(1_700_000_000_250_000),
            from: State::Closed,
            to: State::Open,
            reason: "5 failures".into(),
            actor: String::new(),
            originator: "1-a".into(),
            own: true,
            successes: 0,
            failures: 5,
            open_for: Some(Duration::from_secs(30)),
            cursor: Some(Cursor { incarnation: "ab".into(), number: 1, id: "5-0".into() }),
        }
    }

    #[test]
    fn every_event_is_serialized_as_one_tagged_object() {
        let breaker: Arc<str> = "orders".into();
        let took = Duration::from_millis(1500);
        let cases = [
            (
                Event::CacheHit { breaker: breaker.clone(), tier: CacheTier::Local, age: took },
                r#"{"event":"cache-hit","breaker":"orders","tier":"local","age":1.5}"#,
            ),
            (
                Event::HealthCheck { breaker: breaker.clone(), result: Err("no".into()), took },
                r#"{"event":"health-check","breaker":"orders","error":"no","took":1.5}"#,
            ),
            (
                Event::HealthCheck { breaker, result: Ok(()), took },
                r#"{"event":"health-check","breaker":"orders","error":null,"took":1.5}"#,
            ),
            (Event::StoreRestored, r#"{"event":"store-restored"}"#),
            (
                Event::StoreLost(Error::store("testing", "gone")),
                r#"{"event":"store-lost","kind":"store","message":"the store failed while testing: gone"}"#,
            ),
        ];
        for (event, json) in cases {
            assert_eq!(serde_json::to_string(&event).unwrap(), json);
        }
    }

    #[test]
    fn transition_is_written_with_its_time_and_its_cursor() {
        let json = serde_json::to_value(Event::Transition(Arc::new(transition()))).unwrap();
        assert_eq!(json["event"], "transition");
        assert_eq!(json["at"], "2023-11-14T22:13:20.250000Z");
        assert_eq!(json["to"], "open");
        assert_eq!(json["open_for"], 30.0);
        assert_eq!(json["cursor"], "ab:1:5-0");
    }
}
