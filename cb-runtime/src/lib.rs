//! A circuit breaker for async functions, shared by a fleet.

#[doc(hidden)]
pub mod __private;
mod breaker;
mod cache;
mod call;
pub mod clock;
mod config;
mod coordinator;
mod error;
mod event;
mod registry;
mod snapshot;
mod store;
mod sync;

pub use breaker::Breaker;
pub use call::CallError;
#[cfg(feature = "macros")]
#[doc = include_str!("circuit_breaker.md")]
#[doc(inline)]
pub use cb_macros::circuit_breaker;
pub use config::BreakerConfig;
pub use error::{BreakerError, Error};
pub use event::{CacheTier, Event, Events, Transition};
pub use registry::{Registry, RegistryBuilder};
pub use snapshot::{FleetBreaker, Outcomes, Snapshot, State, UnknownState, WindowSnapshot};
