//! A circuit breaker for async functions, shared by all processes of a fleet through Redis.
//!
//! One attribute guards a function. Behind it, a [`Registry`] keeps a [`Breaker`] per name and shares it with
//! all other processes. A call touches memory only: processes exchange aggregated counts in the background.
//! Without Redis, state lives in the process.
//!
//! ```
//! use std::time::Duration;
//! use cb_runtime::{BreakerConfig, BreakerError, Registry, State, circuit_breaker};
//!
//! #[derive(Debug)]
//! enum Failure { Upstream, Guarded(BreakerError) }
//! impl From<BreakerError> for Failure {
//!     fn from(error: BreakerError) -> Self { Failure::Guarded(error) }
//! }
//!
//! #[circuit_breaker(name = "prices", failure_threshold = 3, reset_timeout = "10s")]
//! async fn price(article: u32) -> Result<u32, Failure> {
//!     if article == 0 { Err(Failure::Upstream) } else { Ok(article * 100) }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), cb_runtime::Error> {
//! // At start. With a fleet: `.redis("redis://127.0.0.1:6379").namespace("prod")`.
//! let registry = Registry::builder().install()?;
//!
//! assert_eq!(price(7).await.unwrap(), 700);
//! for _ in 0..3 {
//!     assert!(matches!(price(0).await, Err(Failure::Upstream)));
//! }
//! // The third consecutive failure has opened the circuit: the function is no longer called.
//! assert_eq!(registry.breaker("prices").unwrap().state(), State::Open);
//! let Err(Failure::Guarded(error)) = price(7).await else { panic!("was called") };
//! assert!(error.is_open() && error.retry_after().unwrap() <= Duration::from_secs(10));
//! # Ok(())
//! # }
//! ```
//!
//! See [`macro@circuit_breaker`] for the attribute's arguments, [`BreakerConfig`] for the settings,
//! [`RegistryBuilder`] for the set-up, and [`Event`] for notifications.
//!
//! # Features
//! - `macros` (default): the attribute
//! - `redis` (default): the Redis store
//! - `cluster`, `sentinel`, `tls`: Redis Cluster, a master found through Sentinel, `rediss://`
//! - `config`: settings from a TOML or YAML file and from environment variables ([`RegistryConfig`])
//! - `metrics`: counters, gauges and histograms through the [`metrics` facade](https://docs.rs/metrics), in
//!   the background; docs/metrics.md lists them
//! - `tower`: a layer for [`tower`](https://docs.rs/tower) services
//! - `http`: which status codes are failures, and `Retry-After`
//! - `test-util`: a registry and a clock for each test of a guarded function

/// What an expansion of the attribute names. Not a public interface: it changes with the macro, without
/// notice. The compiler's messages contain this path, so it reads well.
#[doc(hidden)]
pub mod attribute {
    pub use crate::__private::*;
}
#[doc(hidden)]
pub use __private::messages;
/// What `cbctl doctor` looks at a store through. Not a public interface.
#[cfg(all(feature = "cluster", feature = "sentinel"))]
#[doc(hidden)]
pub mod inspect {
    pub use crate::store::redis::Target;
    pub use crate::store::redis::inspect::{Server, connect};
}
#[doc(hidden)]
mod __private;
mod acquired;
mod background;
mod breaker;
mod breakers;
mod cache;
mod call;
pub mod clock;
mod config;
mod coordinator;
mod deadline;
mod error;
mod event;
#[cfg(not(all(feature = "redis", feature = "cluster", feature = "sentinel", feature = "config")))]
pub mod feature;
mod health;
#[cfg(feature = "http")]
pub mod http;
#[cfg(test)]
mod layers;
#[cfg(feature = "metrics")]
mod metrics;
mod name;
mod registry;
mod report_limiter;
mod serial;
mod snapshot;
mod status;
mod store;
mod strategy;
mod sync;
#[cfg(feature = "test-util")]
pub mod testing;
mod text;
mod timeouts;
#[cfg(feature = "tower")]
pub mod tower;

pub use acquired::Permit;
pub use breaker::Breaker;
pub use call::{CallError, GuardedCall};
#[cfg(feature = "macros")]
#[doc = include_str!("circuit_breaker.md")]
#[doc(inline)]
pub use cb_macros::circuit_breaker;
pub use config::{Backoff, BreakerConfig, CacheLimits, RegistryConfig};
pub use error::{BreakerError, Error};
pub use event::{CacheTier, Cursor, Event, Events, ParseCursorError, Transition};
pub use health::Healthy;
pub use registry::{Control, Registry, RegistryBuilder};
pub use snapshot::{
    FleetBreaker, FleetPage, FleetQuery, InstanceInfo, InstanceSettings, Origin, Outcomes, ParseStateError,
    Setting, Snapshot, State, StateCounts, StoreStatus, WindowSnapshot,
};
pub use strategy::{Bucket, Calls, TripStrategy, WindowCounts};

/// The examples of that page, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../docs/coming-from.md")]
mod coming_from {}
