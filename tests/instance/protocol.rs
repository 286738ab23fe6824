//! What a test says to an instance and what the instance answers: one line of JSON each way, strictly
//! in turn. Anything that takes its time runs in a group of calls, which later orders ask after.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cb_runtime::State;
use serde::{Deserialize, Serialize};

/// The answer to an order is a line that holds a `Result<value, String>`; the type of the value stands
/// beside the order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Builds and installs the registry → `String`, the instance's id.
    Install { url: Option<String>, namespace: String },
    /// The same with what a file says, and the environment → `String`.
    InstallFrom { url: Option<String>, namespace: String, file: PathBuf },
    /// Reads a file and the environment, and puts that in the place of what was said before → `()`.
    Reload { file: PathBuf },
    /// Registers a breaker → `()`. Its config is read as `BreakerConfig` reads any.
    Create { breaker: String, config: serde_json::Value },
    /// What the attribute of an annotated function says at its first call, as its `config` and (where it
    /// has a cache) its `cache_ttl` → `()`.
    Configure { function: Function, config: serde_json::Value, cache_ttl_ms: u64 },
    /// Makes `times` calls one after the other → `Calls`.
    Call { target: Target, act: Act, times: usize },
    /// Begins as many calls at once → `usize`, the number of the group.
    Start { target: Target, act: Act, callers: usize },
    /// Begins to make one call after the other, so many microseconds apart → `usize`, the number of the group.
    Traffic { target: Target, act: Act, every_us: u64 },
    /// → `Calls` of the group so far.
    Progress { group: usize },
    /// Lets the group's calls that hold go on like this, ends its traffic, waits for all to end → `Calls`.
    Finish { group: usize, act: Act },
    /// Drops the futures of the group's calls → `Calls`.
    Drop { group: usize },
    /// → `Seen`.
    Look { breaker: String },
    /// What `Registry::fleet` says → `BTreeMap<String, Fleet>`.
    Fleet,
    /// The events since the registry was installed → `Vec<Told>`.
    Events,
    /// What `on_error` was told → `Vec<Trouble>`.
    Troubles,
    /// An operator's word → `()`.
    Say { breaker: String, word: Word },
    /// The same by a person, for so many milliseconds at most → `()`.
    SayAs { breaker: String, word: Word, actor: String, at_most_ms: Option<u64> },
    /// `Registry::reset_all` → `()`.
    ResetAll,
    /// → `Settings`.
    Settings { breaker: String },
    /// Keeps every thread of the runtime that makes the calls busy until `Unblock` → `()`.
    Block,
    /// → `()`.
    Unblock,
    /// → `()`.
    Shutdown,
}

/// Who guards the call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Target {
    /// `Breaker::call` of the breaker that was created under this name.
    Breaker(String),
    /// An annotated function, with its argument.
    Function(Function, u64),
}

/// The annotated functions; each has a breaker of its own name unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Function {
    /// No fallback; `Act::Shrug` is not counted.
    Plain,
    /// A fallback that shows its arguments.
    Shown,
    /// A fallback that shows its arguments and the reason.
    Reasoned,
    /// A cache, and a fallback that names this process.
    Cached,
    /// The same on the same breaker: another function.
    Twin,
    /// A method with a cache, whose receiver is part of the key: shard 1. Breaker "shards".
    FirstShard,
    /// The same method of shard 2.
    SecondShard,
    /// Obeys `Act::Ask`. No fallback.
    Obedient,
}

/// What the guarded code does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Act {
    /// Returns this.
    Succeed(Option<String>),
    /// Returns an error.
    Fail,
    /// Returns an error that says nothing about the dependency.
    Shrug,
    /// Returns an error that asks for so many milliseconds of rest.
    Ask(u64),
    /// Panics.
    Panic,
    /// Waits for the group's `Finish`, then does what that says.
    Hold,
    /// Waits so many milliseconds first.
    After(u64, Box<Act>),
}

/// An operator's word.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Word {
    ForceOpen(String),
    Disable(String),
    MetricsOnly(String),
    Release,
    Reset,
}

/// What has become of calls.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Calls {
    pub ended: Vec<Ended>,
    /// How often the guarded code has begun to run.
    pub ran: usize,
    /// The longest that one call took, in microseconds.
    pub slowest_us: u64,
    /// From the first call's beginning to the last one's end so far, in microseconds.
    pub took_us: u64,
}

/// How one call ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    Value(Option<String>),
    /// With the guarded code's own error.
    Failed,
    /// With the guarded code's own error that says nothing about the dependency.
    Shrugged,
    Rejected {
        retry_after_us: Option<u64>,
    },
    /// By the ramp-up of a circuit that has just recovered.
    Ramped,
    TimedOut,
    Panicked,
}

/// A snapshot.
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
    pub run: u64,
    pub late: u64,
    pub slow: u64,
    pub ramp_rejected: u64,
    pub cancelled: u64,
}

/// A line of the fleet's overview.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fleet {
    pub state: State,
    pub epoch: u64,
    pub actor: String,
    pub failures: u64,
    pub successes: u64,
    pub run: u64,
}

/// A breaker's settings by name: value and origin.
pub type Settings = BTreeMap<String, (String, String)>;

pub type FleetRows = BTreeMap<String, Fleet>;

/// An event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Told {
    Transition(Change),
    Local(Change),
    WouldHaveOpened { breaker: String, reason: String },
    CacheHit { breaker: String, shared: bool, age_us: u64 },
    StoreLost,
    StoreRestored,
    Error(Trouble),
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

/// An error of the background.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trouble {
    pub text: String,
    pub is_data: bool,
    pub is_store: bool,
    pub is_cache: bool,
    pub is_conflict: bool,
}
