//! Steering a breaker by its name.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Registry, check_name};
use crate::breaker::Breaker;
use crate::breakers::Steered;
use crate::error::Error;
use crate::snapshot::FleetBreaker;

impl Registry {
    /// Returns a handle that steers the breaker of that name for the whole fleet: registered here or not,
    /// open or closed.
    ///
    /// A program that only watches the fleet steers by this. It does not judge the breaker, and declares no
    /// settings; and the breaker does not become one of [`breakers`](Self::breakers).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), cb_runtime::Error> {
    /// use std::time::Duration;
    /// use cb_runtime::{Registry, State};
    ///
    /// let registry = Registry::builder().build()?;
    /// let control = registry.control("user-service").by("on-call").expires_in(Duration::from_secs(3600));
    /// control.force_open("migration").await?;
    ///
    /// let fleet = registry.fleet().await?;
    /// assert_eq!((&*fleet[0].name, fleet[0].state), ("user-service", State::ForcedOpen));
    /// assert_eq!((&*fleet[0].actor, &*fleet[0].reason), ("on-call", "migration"));
    /// assert!(registry.breakers().is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn control(&self, name: &str) -> Control {
        Control { registry: self.clone(), name: name.into(), actor: None, expiry: None, reason: None }
    }

    /// [Resets](Control::reset) every breaker of the fleet.
    ///
    /// # Errors
    /// If the store does not answer; some breakers may have been reset then, and others not.
    pub async fn reset_all(&self) -> Result<(), Error> {
        // All are placed before the first is waited for: one batch carries many.
        let place = |row: FleetBreaker| {
            let (breaker, steered) = self.steered(&row.name);
            (breaker.begin_reset("reset"), steered)
        };
        let placed: Vec<_> = self.fleet().await?.into_iter().map(place).collect();
        let mut result = Ok(());
        for (placed, steered) in placed {
            result = result.and(placed.taken().await);
            drop(steered);
        }
        result
    }
}

/// Steers one breaker of the namespace; made by [`Registry::control`]. Each method returns once the store has
/// the change.
#[derive(Clone)]
#[must_use = "a control does nothing until one of its methods is awaited"]
pub struct Control {
    registry: Registry,
    name: Arc<str>,
    actor: Option<Arc<str>>,
    expiry: Option<Duration>,
    reason: Option<Arc<str>>,
}

impl Control {
    /// Attributes what is done through this handle to `actor`; see [`Breaker::by`].
    pub fn by(self, actor: &str) -> Self {
        Control { actor: Some(actor.into()), ..self }
    }

    /// Lets manual overrides end by themselves after this time; see [`Breaker::expires_in`].
    pub fn expires_in(self, span: Duration) -> Self {
        Control { expiry: Some(span), ..self }
    }

    /// Gives the reason of a [`release`](Self::release) or a [`reset`](Self::reset), which are otherwise
    /// recorded as "released" and "reset".
    pub fn because(self, reason: &str) -> Self {
        Control { reason: Some(reason.into()), ..self }
    }

    /// See [`Breaker::force_open`].
    ///
    /// # Errors
    /// If the store does not take it: nothing has changed then, or it is unknown whether something has. If
    /// the name is empty or the expiry is zero.
    pub async fn force_open(&self, reason: &str) -> Result<(), Error> {
        let (breaker, _steered) = self.target()?;
        breaker.force_open(reason).await
    }

    /// See [`Breaker::disable`].
    ///
    /// # Errors
    /// As [`force_open`](Self::force_open).
    pub async fn disable(&self, reason: &str) -> Result<(), Error> {
        let (breaker, _steered) = self.target()?;
        breaker.disable(reason).await
    }

    /// See [`Breaker::metrics_only`].
    ///
    /// # Errors
    /// As [`force_open`](Self::force_open).
    pub async fn metrics_only(&self, reason: &str) -> Result<(), Error> {
        let (breaker, _steered) = self.target()?;
        breaker.metrics_only(reason).await
    }

    /// See [`Breaker::release`].
    ///
    /// # Errors
    /// As [`force_open`](Self::force_open).
    pub async fn release(&self) -> Result<(), Error> {
        let (breaker, _steered) = self.target()?;
        breaker.release_because(self.reason.as_deref().unwrap_or("released")).await
    }

    /// See [`Breaker::reset`].
    ///
    /// # Errors
    /// As [`force_open`](Self::force_open).
    pub async fn reset(&self) -> Result<(), Error> {
        let (breaker, _steered) = self.target()?;
        breaker.begin_reset(self.reason.as_deref().unwrap_or("reset")).taken().await
    }

    /// The breaker, and what keeps it in the coordinator's care until the store has the change.
    fn target(&self) -> Result<(Breaker, Option<Steered>), Error> {
        check_name(&self.name)?;
        let (mut breaker, steered) = self.registry.steered(&self.name);
        if let Some(actor) = &self.actor {
            breaker = breaker.by(actor);
        }
        if let Some(span) = self.expiry {
            breaker = breaker.expires_in(span);
        }
        Ok((breaker, steered))
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("name", &self.name)
            .field("actor", &self.actor)
            .field("expiry", &self.expiry)
            .finish_non_exhaustive()
    }
}
