//! Real servers for tests: a redis-server in a temporary directory, a proxy that injects network faults, a
//! browser, and bounded waits.
//!
//! All functions panic on failure: a test without its server must fail, not pass silently.

mod authority;
mod browser;
mod cluster;
mod monitor;
mod proxy;
mod resp;
mod server;
mod wait;

pub use authority::{Authority, Certificate};
pub use browser::Browser;
pub use cluster::RedisCluster;
pub use monitor::Monitor;
pub use proxy::Proxy;
pub use resp::Reply;
pub use server::RedisServer;
pub use wait::wait_until;

/// The limit of a wait for something that should happen at once. It is generous, because the machine that
/// runs the tests may be small and busy.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
