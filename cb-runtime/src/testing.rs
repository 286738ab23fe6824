//! Tests of guarded functions, each with a registry of its own (feature `test-util`).
//!
//! ```
//! # use cb_runtime::{BreakerError, State, circuit_breaker};
//! use std::time::Duration;
//!
//! #[circuit_breaker(name = "prices", failure_threshold = 1, reset_timeout = "1h")]
//! async fn price(article: u32) -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
//!     if article == 0 { Err("sold out".into()) } else { Ok(article * 100) }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let (registry, clock) = cb_runtime::testing::registry();
//! cb_runtime::testing::scope(registry.clone(), async {
//!     price(0).await.unwrap_err();
//!     assert_eq!(registry.breaker("prices").unwrap().state(), State::Open);
//!     price(7).await.unwrap_err();
//!
//!     // An hour takes no time.
//!     clock.advance(Duration::from_secs(3600));
//!     assert_eq!(price(7).await.unwrap(), 700);
//! })
//! .await;
//! // No other test has seen any of this.
//! assert_eq!(price(7).await.unwrap(), 700);
//! # }
//! ```

use crate::clock::{Clock, ManualClock};
use crate::registry::Registry;

tokio::task_local! {
    static SCOPED: Registry;
}

/// Runs `test`, in which annotated functions use `registry` where they would use the
/// [global](Registry::global) one.
///
/// It holds for the future itself, not for tasks that it spawns: give each of these a scope of its own. Of
/// nested scopes, the innermost one applies.
/// Functions whose attribute names a registry keep that. A function remembers its breaker of every registry
/// that it was called in for as long as the process lives.
pub async fn scope<F: Future>(registry: Registry, test: F) -> F::Output {
    SCOPED.scope(registry, test).await
}

/// A registry of its own whose state lives in memory, on a clock that stands still until the test moves it.
pub fn registry() -> (Registry, ManualClock) {
    let (clock, time) = Clock::manual();
    let registry = Registry::builder().clock(clock).build();
    (registry.expect("the memory store's defaults are valid, and there is a thread to be had"), time)
}

/// The registry of the scope that this runs in.
pub(crate) fn scoped() -> Option<Registry> {
    SCOPED.try_with(Clone::clone).ok()
}
