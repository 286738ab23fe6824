//! Events as log messages.

use super::Event;
use crate::snapshot::State;
use crate::text::single_line;

pub(super) fn log(event: &Event) {
    match event {
        Event::Transition(t) | Event::LocalTransition(t) => {
            let local = matches!(event, Event::LocalTransition(_));
            let (breaker, from, to) = (single_line(&t.breaker), t.from.as_str(), t.to.as_str());
            let (reason, actor, originator) =
                (single_line(&t.reason), single_line(&t.actor), single_line(&t.originator));
            macro_rules! at {
                ($level:ident) => {
                    tracing::$level!(
                        target: "cb_runtime", %breaker, epoch = t.epoch, from, to, %reason, %actor, %originator,
                        own = t.own, local, "circuit breaker is {to}"
                    )
                };
            }
            if t.to == State::Closed { at!(info) } else { at!(warn) }
        }
        Event::CacheHit { breaker, tier, age } => {
            let breaker = single_line(breaker);
            tracing::debug!(target: "cb_runtime", %breaker, ?tier, ?age, "answered from the cache");
        }
        Event::HealthCheck { breaker, result: Ok(()), took } => {
            let breaker = single_line(breaker);
            tracing::debug!(target: "cb_runtime", %breaker, ?took, "health check passed");
        }
        Event::HealthCheck { breaker, result: Err(error), took } => {
            let (breaker, error) = (single_line(breaker), single_line(error));
            tracing::warn!(target: "cb_runtime", %breaker, ?took, %error, "health check failed");
        }
        Event::WouldHaveOpened { breaker, reason } => {
            let (breaker, reason) = (single_line(breaker), single_line(reason));
            tracing::warn!(
                target: "cb_runtime", %breaker, %reason, "metrics-only circuit breaker would have opened"
            );
        }
        Event::StoreLost(error) => {
            let error = error.to_string();
            let error = single_line(&error);
            tracing::warn!(
                target: "cb_runtime", "store lost, circuit breakers decide by themselves until it is back: {error}"
            );
        }
        Event::StoreRestored => tracing::info!(target: "cb_runtime", "store restored"),
        Event::Error(error) => {
            let error = error.to_string();
            tracing::error!(target: "cb_runtime", "{}", single_line(&error));
        }
    }
}
