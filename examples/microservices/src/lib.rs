//! A gateway, a profile service in several instances and an auth service, each a process of its own. The profile service
//! guards its calls to auth with a circuit breaker that its instances share through Redis; nothing else knows of it.
//!
//! `cargo run -p microservices` starts all of them and shows what happens when things break ([`demo`]).

pub mod auth;
pub mod demo;
pub mod gateway;
pub mod profile;
pub mod service;
