//! A permit that its holder keeps, for guarded work that is not one future.

use std::fmt;
use std::sync::Arc;

use crate::breaker::counters::Outcome;
use crate::breaker::gate::GateWord;
use crate::breaker::stopwatch::Stopwatch;
use crate::breaker::{Breaker, Core};
use crate::call::admitted;
use crate::error::BreakerError;

/// A permit for one call, whose outcome its holder reports. From [`Breaker::acquire`].
///
/// For work that is not one future: a stream, a connection's driver, a callback. The work's duration, from
/// the permit to its outcome, counts where a rule looks at slow calls. A permit is a probe's lease while
/// the circuit is half-open: it lapses when the work takes longer than the `call_timeout` of the handle, or
/// than max(`reset_timeout`, 10 s) where there is none. The probe then counts as failed, and its outcome
/// changes nothing any more.
///
/// A permit that is dropped counts as cancelled: neither success nor failure. One that is dropped by a panic
/// counts as a failure.
#[must_use = "a permit that is dropped counts as a cancelled call"]
pub struct Permit {
    core: Arc<Core>,
    word: GateWord,
    watch: Stopwatch,
    ended: bool,
}

impl Breaker {
    /// Waits for a permit to make one call, whose outcome is reported to the permit. Returns at once, unless
    /// a probe is due: then it waits for the store's answer, for the `response_timeout` (0.4 s) at most.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use cb_runtime::{BreakerConfig, Registry};
    ///
    /// let registry = Registry::builder().build()?;
    /// let breaker = registry.get_or_create("stream", BreakerConfig::default().failure_threshold(1));
    /// let permit = breaker.acquire().await?;
    /// // … the connection breaks …
    /// permit.failure();
    /// assert!(breaker.acquire().await.unwrap_err().is_open());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Cancelling returns a granted probe.
    ///
    /// # Errors
    /// If the call is rejected: the circuit is open, or half-open with all its probes in flight.
    pub async fn acquire(&self) -> Result<Permit, BreakerError> {
        let permit = admitted(self.core()).await?;
        let core = self.shared();
        if let Some(limit) = core.call_timeout(*self.given_call_timeout()) {
            permit.limit(limit);
        }
        let watch = permit.stopwatch().suspended(core.clock());
        Ok(Permit { core, word: permit.into_word(), watch, ended: false })
    }
}

impl Permit {
    /// Reports a success.
    pub fn success(mut self) {
        self.end(Outcome::Success);
    }

    /// Reports a failure. If it trips the breaker, the circuit is open when this returns.
    pub fn failure(mut self) {
        self.end(Outcome::Failure);
    }

    /// Reports an outcome that counts neither as success nor as failure.
    pub fn ignore(mut self) {
        self.end(Outcome::Ignored);
    }

    fn end(&mut self, outcome: Outcome) {
        self.ended = true;
        let measured = matches!(outcome, Outcome::Success | Outcome::Failure);
        if measured && self.core.measure(self.watch) {
            self.word.note_slow();
        }
        self.core.record(self.word, outcome);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.ended {
            self.end(if std::thread::panicking() { Outcome::Failure } else { Outcome::Cancelled });
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("breaker", self.core.name()).finish_non_exhaustive()
    }
}
