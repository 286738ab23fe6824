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

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Metadata, Subscriber};

    use super::*;
    use crate::error::Error;
    use crate::event::tests::transition;
    use crate::sync::lock;

    /// The fields of all messages, as a plain log prints them.
    #[derive(Clone, Default)]
    struct Fields(Arc<Mutex<Vec<String>>>);

    impl Visit for &Fields {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            lock(&self.0).push(format!("{field}={value:?}"));
        }
    }

    impl Subscriber for Fields {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            let mut fields = self;
            event.record(&mut fields);
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn texts_of_operators_and_dependencies_are_one_line() {
        let text = "two\nlines";
        let mut change = transition();
        change.breaker = text.into();
        (change.reason, change.actor, change.originator) = (text.into(), text.into(), text.into());
        let breaker = || Arc::from(text);
        let error = || Error::store("testing", text);
        let fields = Fields::default();
        tracing::subscriber::with_default(fields.clone(), || {
            for event in [
                Event::Transition(Arc::new(change)),
                Event::HealthCheck { breaker: breaker(), result: Err(text.into()), took: Duration::ZERO },
                Event::WouldHaveOpened { breaker: breaker(), reason: text.into() },
                Event::StoreLost(error()),
                Event::Error(error()),
            ] {
                log(&event);
            }
        });
        let fields = lock(&fields.0);
        assert_eq!(fields.iter().filter(|field| field.contains("two\\nlines")).count(), 10, "{fields:?}");
        assert!(!fields.iter().any(|field| field.contains('\n')), "{fields:?}");
    }
}
