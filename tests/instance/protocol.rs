//! The protocol between a test and an instance: one line of JSON per request and one per answer, in turn.
//! Calls that take time run in a group, which later requests refer to by its number.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cb_runtime::State;
use serde::{Deserialize, Serialize};

/// A request to an instance. The answer is a `Result<value, String>`; each variant names the type of its
/// value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Builds and installs the registry → `String`, the instance's id. With `connects`, it waits until the
    /// store answers, for a minute; otherwise it may begin without the store.
    Install { url: Option<String>, namespace: String, connects: bool },
    /// Builds and installs the registry with the settings of a file and the environment → `String`, the
    /// instance's id.
    InstallFrom { url: Option<String>, namespace: String, file: PathBuf },
    /// Reloads the settings from a file and the environment → `()`.
    Reload { file: PathBuf },
    /// Registers a breaker → `()`. With a `checks` folder, it has a health check that follows the script in
    /// there.
    Create { breaker: String, config: serde_json::Value, checks: Option<PathBuf> },
    /// Sets the `config` and `cache_ttl` arguments that an annotated function has from its first call on →
    /// `()`.
    Configure { function: Function, config: serde_json::Value, cache_ttl_ms: u64 },
    /// Makes `times` calls one after another → `Calls`.
    Call { target: Target, act: Act, times: usize },
    /// Starts concurrent calls → `usize`, the number of the group.
    Start { target: Target, act: Act, callers: usize },
    /// Starts a series of calls, `every_us` microseconds apart → `usize`, the number of the group.
    Traffic { target: Target, act: Act, every_us: u64 },
    /// Calls an annotated function concurrently, once with each of `count` arguments from `first` on →
    /// `Calls`.
    Each { function: Function, first: u64, count: u64, act: Act },
    /// The group's calls so far → `Calls`.
    Progress { group: usize },
    /// Lets the group's held calls do `act`, stops its series, and waits for all calls to end → `Calls`.
    Finish { group: usize, act: Act },
    /// Drops the futures of the group's calls → `Calls`.
    Drop { group: usize },
    /// A breaker's snapshot → `Seen`.
    Look { breaker: String },
    /// The number of registered breakers → `usize`.
    Registered,
    /// `Registry::fleet` → `FleetRows`.
    Fleet,
    /// All events since the registry was installed → `Vec<Event>`.
    Events,
    /// All errors passed to `on_error` → `Vec<ErrorReport>`.
    Errors,
    /// Steers a breaker manually → `()`.
    Steer { breaker: String, action: Override },
    /// Steers a breaker on behalf of `actor`, with an optional expiry → `()`.
    SteerAs { breaker: String, action: Override, actor: String, expires_in_ms: Option<u64> },
    /// `Registry::reset_all` → `()`.
    ResetAll,
    /// A breaker's effective settings → `Settings`.
    Settings { breaker: String },
    /// Blocks every thread of the runtime that makes the calls, until `Unblock` → `()`.
    Block,
    /// Ends `Block` → `()`.
    Unblock,
    /// Shuts the registry down → `()`.
    Shutdown,
}

/// What guards a call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Target {
    /// `Breaker::call` of the breaker with this name.
    Breaker(String),
    /// An annotated function, with its argument.
    Function(Function, u64),
}

/// The annotated functions. Unless noted, each has a breaker of its own name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Function {
    /// No fallback. `Act::FailIgnored` is not counted.
    Plain,
    /// A fallback that shows its arguments.
    Shown,
    /// A fallback that shows its arguments and the reason.
    Reasoned,
    /// A cache, and a fallback that returns this process's id.
    Cached,
    /// Like `Cached` and on the same breaker, but another function.
    Twin,
    /// A method with a cache, whose receiver is part of the key: shard 1. Breaker "shards".
    FirstShard,
    /// The method of `FirstShard` on shard 2.
    SecondShard,
    /// One breaker per argument, `tenant-<argument>`.
    Tenant,
    /// Opens for the time that `Act::RetryAfter` asks for. No fallback.
    Obedient,
}

/// The guarded code's behaviour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Act {
    /// Returns this value.
    Succeed(Option<String>),
    /// Returns an error.
    Fail,
    /// Returns an error that `is_failure` does not accept.
    FailIgnored,
    /// Returns an error that asks callers to stay away for this many milliseconds.
    RetryAfter(u64),
    /// Panics.
    Panic,
    /// Waits for the group's `Finish` and does its `act`.
    Hold,
    /// Waits this many milliseconds first.
    After(u64, Box<Act>),
}

/// Holds one [`CheckStep`] per line.
pub const CHECKS_SCRIPT: &str = "script";
/// Holds one line per check made, which begins with the process id of its maker.
pub const CHECKS_LOG: &str = "log";

/// The behaviour of one health check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum CheckStep {
    Pass,
    Fail(String),
    Panic,
    /// Never returns, and yields its thread.
    Hang,
    /// Never returns, and blocks its thread.
    Block,
    /// Passes once the folder has a file of this name.
    PassAfter(String),
}

/// A manual action on a breaker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Override {
    ForceOpen(String),
    Disable(String),
    MetricsOnly(String),
    Release,
    Reset,
}

/// The results of a group's calls.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Calls {
    pub ended: Vec<Ended>,
    /// How many times the guarded code started.
    pub ran: usize,
    /// The duration of the slowest call, in microseconds.
    pub slowest_us: u64,
    /// The time from the start of the first call to the end of the last, in microseconds.
    pub took_us: u64,
}

/// How one call ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    Value(Option<String>),
    /// The guarded code's own error.
    Failed,
    /// The guarded code's own error, which `is_failure` does not accept.
    Ignored,
    Rejected {
        retry_after_us: Option<u64>,
    },
    /// Rejected while a recovered circuit ramps up.
    RampRejected,
    TimedOut,
    Panicked,
}

/// A breaker's snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    pub state: State,
    pub epoch: u64,
    pub local: bool,
    pub reason: String,
    pub actor: String,
    pub retry_after_us: Option<u64>,
    pub failures: u64,
    pub successes: u64,
    pub streak: u64,
    pub late: u64,
    pub slow: u64,
    pub ramp_rejected: u64,
    pub cancelled: u64,
}

/// One breaker's row of `Registry::fleet`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fleet {
    pub state: State,
    pub epoch: u64,
    pub actor: String,
    pub failures: u64,
    pub successes: u64,
    pub streak: u64,
}

/// A breaker's settings by name: value and origin layer.
pub type Settings = BTreeMap<String, (String, String)>;

pub type FleetRows = BTreeMap<String, Fleet>;

/// An event of the registry's subscription.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    Transition(Change),
    Local(Change),
    WouldHaveOpened { breaker: String, reason: String },
    CacheHit { breaker: String, shared: bool, age_us: u64 },
    HealthCheck { breaker: String, result: Result<(), String>, took_us: u64 },
    StoreLost,
    StoreRestored,
    Error(ErrorReport),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    pub breaker: String,
    pub epoch: u64,
    pub from: State,
    pub to: State,
    pub originator: String,
    pub own: bool,
    pub reason: String,
    pub actor: String,
    pub open_for_ms: Option<u64>,
}

/// An error passed to `on_error`.
#[allow(clippy::struct_excessive_bools, reason = "an error's predicates")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorReport {
    pub text: String,
    pub is_data: bool,
    pub is_store: bool,
    pub is_cache: bool,
    pub is_conflict: bool,
}
