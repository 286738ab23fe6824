//! Real servers for tests: a redis-server in a temporary directory, a proxy that can be cut, and a
//! wait that is bounded.
//!
//! Everything here panics where it cannot do its work: a test that cannot have its server must fail,
//! never pass silently.

mod authority;
mod cluster;
mod monitor;
mod proxy;
mod resp;
mod server;
mod wait;

pub use authority::{Authority, Certificate};
pub use cluster::RedisCluster;
pub use monitor::Monitor;
pub use proxy::Proxy;
pub use resp::Reply;
pub use server::RedisServer;
pub use wait::wait_until;

/// How long anything here is waited for that ought to come at once. Generous: the machine that runs
/// the tests may be small and busy.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
