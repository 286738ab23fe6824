//! The public handle on a breaker.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Core;
use crate::clock::micros;
use crate::deadline::{ANSWER, within};
use crate::error::{Error, ErrorKind};
use crate::snapshot::{Snapshot, State};
use crate::store::{Counts, MAX_SPAN_US, Proposal, Record, cut};

/// A handle on one breaker. Cheap to clone; all clones are the same breaker.
#[derive(Clone)]
pub struct Breaker {
    core: Arc<Core>,
    /// The `call_timeout` of the config that this handle was made with. It belongs to the handle, as an
    /// annotated function's does to the function.
    call_timeout: Option<Duration>,
    /// The actor of overrides through this handle.
    actor: Option<Arc<str>>,
    /// The expiry of overrides through this handle.
    expiry: Option<Duration>,
}

impl Breaker {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Breaker { core, call_timeout: None, actor: None, expiry: None }
    }

    pub(crate) fn with_call_timeout(self, call_timeout: Option<Duration>) -> Self {
        Breaker { call_timeout, ..self }
    }

    #[expect(clippy::ref_option, reason = "calls borrow it: two words would be copied into every future")]
    pub(crate) fn given_call_timeout(&self) -> &Option<Duration> {
        &self.call_timeout
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    pub(crate) fn shared(&self) -> Arc<Core> {
        self.core.clone()
    }

    /// The breaker's name.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// The current state at this instance; one atomic load.
    pub fn state(&self) -> State {
        self.core.gate.word().state()
    }

    /// The breaker's state, counts and settings, from this instance's memory, without I/O.
    pub fn snapshot(&self) -> Snapshot {
        self.core.snapshot()
    }

    /// Returns a handle that attributes manual overrides to `actor`, a person or a program:
    /// [`Snapshot::actor`], events and [`FleetBreaker::actor`](crate::FleetBreaker::actor) show it. At most
    /// 200 bytes are kept.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), cb_runtime::Error> {
    /// use std::time::Duration;
    /// use cb_runtime::{BreakerConfig, Registry, State};
    ///
    /// let registry = Registry::builder().build()?;
    /// let breaker = registry.get_or_create("overrides", BreakerConfig::default());
    /// breaker.by("alice").expires_in(Duration::from_secs(3600)).force_open("migration").await?;
    ///
    /// let snapshot = breaker.snapshot();
    /// assert_eq!(snapshot.state, State::ForcedOpen);
    /// assert_eq!((&*snapshot.actor, &*snapshot.reason), ("alice", "migration"));
    /// assert!(snapshot.retry_after.unwrap() <= Duration::from_secs(3600));
    /// # Ok(())
    /// # }
    /// ```
    pub fn by(&self, actor: &str) -> Breaker {
        Breaker { actor: Some(cut(actor).into()), ..self.clone() }
    }

    /// Returns a handle whose manual overrides expire after this time: the circuit is then closed, and its
    /// counts start at zero. The time is measured by the store's clock, and is a century at most. It
    /// applies to [`force_open`](Self::force_open), [`disable`](Self::disable) and
    /// [`metrics_only`](Self::metrics_only).
    pub fn expires_in(&self, span: Duration) -> Breaker {
        Breaker { expiry: Some(span), ..self.clone() }
    }

    /// Opens the circuit for the whole fleet until it is [released](Self::release) or expires. Returns once
    /// the store has the override. Cancelling abandons the answer, not the override.
    ///
    /// # Errors
    /// If the store does not accept the override, or does not answer; in the latter case it may still have
    /// it. If the expiry is zero.
    pub async fn force_open(&self, reason: &str) -> Result<(), Error> {
        self.hold(State::ForcedOpen, reason).await
    }

    /// Disables the breaker for the whole fleet until it is [released](Self::release) or expires: calls are
    /// made, and nothing is counted. Returns once the store has the override.
    ///
    /// # Errors
    /// As [`force_open`](Self::force_open).
    pub async fn disable(&self, reason: &str) -> Result<(), Error> {
        self.hold(State::Disabled, reason).await
    }

    /// Makes the breaker only count, for the whole fleet, until it is [released](Self::release) or expires:
    /// calls are made and counted, none is rejected, and
    /// [`Event::WouldHaveOpened`](crate::Event::WouldHaveOpened) reports when it would have opened. Returns
    /// once the store has the override.
    ///
    /// # Errors
    /// As [`force_open`](Self::force_open).
    pub async fn metrics_only(&self, reason: &str) -> Result<(), Error> {
        self.hold(State::MetricsOnly, reason).await
    }

    /// Ends a manual override: the circuit is closed, and its counts start at zero. Has no effect if the
    /// breaker is not overridden in the store.
    ///
    /// # Errors
    /// As [`force_open`](Self::force_open).
    pub async fn release(&self) -> Result<(), Error> {
        self.release_because("released").await
    }

    pub(crate) async fn release_because(&self, reason: &str) -> Result<(), Error> {
        self.place(self.pending(State::Closed, reason), true).taken().await
    }

    /// Closes the circuit for the whole fleet, from any state. Its counts start at zero.
    ///
    /// # Errors
    /// As [`force_open`](Self::force_open).
    pub async fn reset(&self) -> Result<(), Error> {
        self.begin_reset("reset").taken().await
    }

    pub(crate) fn begin_reset(&self, reason: &str) -> Placed {
        self.place(self.pending(State::Closed, reason), false)
    }

    async fn hold(&self, to: State, reason: &str) -> Result<(), Error> {
        if self.expiry.is_some_and(|span| span.is_zero()) {
            return Err(Error::config("expires_in", "0 is not a span of time; it must be longer"));
        }
        let mut pending = self.pending(to, reason);
        if let Some(span) = self.expiry {
            let span = micros(span).clamp(1, MAX_SPAN_US);
            // The whole span is stored, too, because it reveals a store's clock that was set back.
            (pending.to.remaining_us, pending.to.reset_timeout_us) = (Some(span), span);
        }
        self.place(pending, false).taken().await
    }

    fn pending(&self, to: State, reason: &str) -> Proposal {
        let actor = self.actor.as_deref().unwrap_or_default().to_owned();
        let to = Record { state: to, reason: cut(reason).to_owned(), actor, ..Record::closed() };
        Proposal { to, force: true, token: None, evidence: Counts::default() }
    }

    /// Queues an override for the coordinator.
    fn place(&self, proposal: Proposal, release: bool) -> Placed {
        let (answer, answered) = oneshot::channel();
        self.core.transact(|inner, _| {
            // Under the lock that the coordinator takes at its end: either it finds this override, or we see
            // the end.
            if !self.core.context.has_ended() {
                let id = inner.machine.override_state(proposal, release);
                inner.overrides.push((id, answer));
            }
        });
        Placed(answered)
    }
}

/// An override on its way to the store.
pub(crate) struct Placed(oneshot::Receiver<Result<(), Error>>);

impl Placed {
    /// Returns once the store has the override.
    pub(crate) async fn taken(self) -> Result<(), Error> {
        if let Some(answer) = within(ANSWER, self.0).await {
            answer.unwrap_or_else(|_| Err(Error::new(ErrorKind::ShutDown)))
        } else {
            let problem = format!("the coordinator has not answered within {ANSWER:?}");
            Err(Error::store("overriding the state", problem))
        }
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("name", &self.core.name)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
