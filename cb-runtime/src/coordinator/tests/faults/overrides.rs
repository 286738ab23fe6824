//! Overrides by operators, and what the store holds afterwards.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::INSTANCES;
use super::world::{BREAKERS, World, name_of};
use crate::clock::Moment;
use crate::error::Error;
use crate::snapshot::State;

/// An override is answered within this time, in which its instance runs.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// An override whose caller waits for the answer.
pub(super) struct Override {
    pub(super) instance: usize,
    breaker: &'static str,
    to: Confirmed,
    /// While it was under way, the breaker had no other override, and the store lost no data.
    is_alone: bool,
    answer: Pin<Box<dyn Future<Output = Result<(), Error>>>>,
    /// For this long while its instance ran.
    pub(super) waited: Duration,
}

/// What the store holds after an override, until there is another one, or data is lost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Confirmed {
    /// `Closed`: the override is released, and none returns.
    state: State,
    /// It ends by itself, and not before this moment.
    ends: Option<Moment>,
}

impl World {
    /// An operator overrides a breaker, or releases or resets it, by this instance.
    pub(super) async fn step_override(&mut self, number: usize, breaker: usize) {
        if self.instances[number].is_paused() {
            return;
        }
        // Of two overrides, one is the later.
        self.advance(Duration::from_millis(1)).await;
        let states = [State::ForcedOpen, State::Disabled, State::MetricsOnly];
        let to = states.get(self.random.usize(..6)).copied().unwrap_or(State::Closed);
        let span = self.random.bool().then(|| self.milliseconds(5000));
        self.order(number, breaker, to, span);
    }

    fn order(&mut self, number: usize, breaker: usize, to: State, span: Option<Duration>) {
        let name = name_of(breaker);
        let (mut handle, steered) = self.instances[number].steered(name);
        if let Some(span) = span {
            handle = handle.expires_in(span);
        }
        let answer = Box::pin(async move {
            let _steered = steered;
            match to {
                State::ForcedOpen => handle.force_open("for now").await,
                State::Disabled => handle.disable("for now").await,
                State::MetricsOnly => handle.metrics_only("for now").await,
                // Which of the two it is does not matter to the invariants.
                _ if span.is_some() => handle.reset().await,
                _ => handle.release().await,
            }
        });
        self.confirmed.remove(name);
        // What the store has lost may be written back after the override: a state whose age is not known
        // exactly, or an override that is released meanwhile.
        let is_behind = self.is_behind(name);
        let mut others = self.overrides.iter_mut().filter(|other| other.breaker == name).peekable();
        let is_alone = others.peek().is_none() && !is_behind;
        others.for_each(|other| other.is_alone = false);
        let ends = span.filter(|_| to.is_manual()).map(|span| self.clock.now().after(span));
        let to = Confirmed { state: to, ends };
        let waited = Duration::ZERO;
        self.overrides.push(Override { instance: number, breaker: name, to, is_alone, answer, waited });
        self.poll_overrides();
    }

    pub(super) fn poll_overrides(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        let (instances, confirmed) = (&self.instances, &mut self.confirmed);
        self.overrides.retain_mut(|order| {
            if instances[order.instance].is_paused() {
                return true;
            }
            let Poll::Ready(answer) = order.answer.as_mut().poll(&mut context) else { return true };
            if answer.is_ok() && order.is_alone {
                confirmed.insert(order.breaker, order.to);
            }
            false
        });
    }

    /// The store has lost what it held of this breaker, or of all.
    pub(super) fn forget_confirmed(&mut self, breaker: Option<&str>) {
        let is_lost = |name: &str| breaker.is_none_or(|lost| lost == name);
        self.confirmed.retain(|name, _| !is_lost(name));
        for order in self.overrides.iter_mut().filter(|order| is_lost(order.breaker)) {
            order.is_alone = false;
        }
    }

    /// An instance knows a later epoch of this breaker than the store, which has lost it.
    fn is_behind(&self, name: &str) -> bool {
        let (_, epoch) = self.store.state_of(name);
        self.instances.iter().any(|instance| instance.known_epoch(name) > epoch)
    }

    /// The store's clock has jumped, so overrides may end at any time.
    pub(super) fn forget_ends(&mut self) {
        self.confirmed.retain(|_, confirmed| confirmed.ends.is_none());
        for order in self.overrides.iter_mut().filter(|order| order.to.ends.is_some()) {
            order.is_alone = false;
        }
    }

    /// The store holds each override that it has confirmed until its end, and none that was released.
    pub(super) fn assert_overrides(&self) {
        let now = self.clock.now();
        for (name, confirmed) in &self.confirmed {
            let (stored, _) = self.store.state_of(name);
            let has_ended = confirmed.ends.is_some_and(|ends| now >= ends);
            let is_kept =
                if confirmed.state.is_manual() { stored == confirmed.state } else { !stored.is_manual() };
            assert!(
                is_kept || has_ended,
                "{name} is {stored} in the store after {confirmed:?}: {}",
                self.states()
            );
        }
        for order in &self.overrides {
            assert!(order.waited < LONGEST_WAIT, "an override waits for ever: {}", self.states());
        }
    }

    /// Every breaker is released, by an instance that knows its latest override. The store may have lost that
    /// override, and the others would have nothing to release.
    pub(super) async fn release_all(&mut self) {
        for breaker in 0..BREAKERS {
            let known_epoch = |number: &usize| self.instances[*number].known_epoch(name_of(breaker));
            let number = (0..INSTANCES).max_by_key(known_epoch).expect("there are instances");
            self.order(number, breaker, State::Closed, None);
        }
        while !self.overrides.is_empty() {
            self.advance(Duration::from_millis(50)).await;
            self.trace(|| "releases".to_owned());
            self.assert_invariants();
        }
        for name in (0..BREAKERS).map(name_of) {
            let (stored, _) = self.store.state_of(name);
            assert!(!stored.is_manual(), "{name} cannot be released: {}", self.states());
        }
    }
}
