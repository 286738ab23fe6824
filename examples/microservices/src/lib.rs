//! A gateway, a profile service in several instances, and an auth service, each a process. The profile
//! service guards its calls to auth with a circuit breaker that its instances share through Redis.
//!
//! `cargo run -p microservices` starts all of them, causes faults, and shows what clients get ([`demo`]).

pub mod auth;
pub mod demo;
pub mod gateway;
pub mod profile;
pub mod service;
