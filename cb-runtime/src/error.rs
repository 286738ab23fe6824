//! What can go wrong: [`BreakerError`] is for the caller of a guarded function, [`Error`] for the program
//! that builds, steers or watches a registry.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::name::BreakerName;

/// The breaker's own answer in place of the guarded function's: the call was rejected, or took
/// longer than its `call_timeout`.
///
/// It names the breaker, the state and, where that is known, the time that is left of it. The reason of the
/// state and the actor of an override are in [`Breaker::snapshot`](crate::Breaker::snapshot).
///
/// Made without an allocation, because every call makes one while a circuit is open.
#[derive(Clone)]
pub struct BreakerError {
    breaker: BreakerName,
    /// The kind in the lowest bits. Above them microseconds: until another try is worthwhile, or how long the
    /// call was allowed to take; [`UNKNOWN`] where neither is known.
    ///
    /// Whole words throughout: functions return this error by value, and a byte that is written just before
    /// the word around it is copied stalls the processor for longer than the rest of a call takes. It is
    /// small because every function with this error in its error type moves it, even when the call succeeds.
    packed: u64,
}

const _: () = assert!(size_of::<BreakerError>() == 16);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusalKind {
    /// Open, and not due for a probe before the span has elapsed.
    Open = 0,
    /// Half-open (or due to be), and all allowed probes are under way.
    ProbesTaken = 1,
    /// Closed, and admitting only a part of the calls.
    RampingUp = 2,
    /// Opened by a manual override, until it is released or the span has elapsed.
    ForcedOpen = 3,
    /// The call took longer than the span.
    TimedOut = 4,
}

const KIND_BITS: u32 = 3;
const UNKNOWN: u64 = u64::MAX >> KIND_BITS;

impl BreakerError {
    /// `span_us`: `u64::MAX` = unknown.
    #[inline]
    pub(crate) fn new(breaker: BreakerName, kind: RefusalKind, span_us: u64) -> Self {
        BreakerError { breaker, packed: span_us.min(UNKNOWN) << KIND_BITS | kind as u64 }
    }

    fn kind(&self) -> RefusalKind {
        match self.packed & ((1 << KIND_BITS) - 1) {
            0 => RefusalKind::Open,
            1 => RefusalKind::ProbesTaken,
            2 => RefusalKind::RampingUp,
            3 => RefusalKind::ForcedOpen,
            _ => RefusalKind::TimedOut,
        }
    }

    fn span(&self) -> Option<Duration> {
        let span = self.packed >> KIND_BITS;
        (span != UNKNOWN).then(|| Duration::from_micros(span))
    }

    /// The call was rejected without being made: the circuit is open, forced open, half-open with all its
    /// probes under way, or has just recovered and admits only a part of the calls.
    pub fn is_open(&self) -> bool {
        !self.is_timeout()
    }

    /// The call was rejected although the circuit is closed: it has just recovered, and admits only a part
    /// of the calls (`ramp_up`).
    pub fn is_ramping_up(&self) -> bool {
        self.kind() == RefusalKind::RampingUp
    }

    /// The call was made, took longer than the breaker's `call_timeout`, and was cancelled.
    pub fn is_timeout(&self) -> bool {
        self.kind() == RefusalKind::TimedOut
    }

    /// The name of the breaker that answered.
    pub fn breaker(&self) -> &str {
        &self.breaker
    }

    /// How long the circuit stays open from now on, where that is known: `Some` while it is open (zero when
    /// a probe is due; with failing health checks, the time until the next of them), `None` for a timeout
    /// and for a manual override without an expiry.
    pub fn retry_after(&self) -> Option<Duration> {
        self.span().filter(|_| !self.is_timeout())
    }
}

impl fmt::Display for BreakerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.breaker();
        let span = self.span().unwrap_or_default();
        match self.kind() {
            RefusalKind::Open if span.is_zero() => {
                write!(f, "circuit breaker \"{name}\" is open, and a probe is due")
            }
            RefusalKind::Open => write!(f, "circuit breaker \"{name}\" is open; retry in {span:.1?}"),
            RefusalKind::ProbesTaken => {
                write!(f, "circuit breaker \"{name}\" is half-open and all its probes are under way")
            }
            RefusalKind::RampingUp => {
                write!(f, "circuit breaker \"{name}\" has just recovered and admits only a part of the calls")
            }
            RefusalKind::ForcedOpen if self.span().is_none() => {
                write!(f, "circuit breaker \"{name}\" is forced open until it is released")
            }
            RefusalKind::ForcedOpen => write!(f, "circuit breaker \"{name}\" is forced open for {span:.1?}"),
            RefusalKind::TimedOut => {
                write!(f, "the call took longer than the {span:?} that circuit breaker \"{name}\" allows")
            }
        }
    }
}

impl fmt::Debug for BreakerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerError")
            .field("breaker", &self.breaker())
            .field("kind", &self.kind())
            .field("span", &self.span())
            .finish_non_exhaustive()
    }
}

impl std::error::Error for BreakerError {}

/// For functions that return `io::Result`.
impl From<BreakerError> for std::io::Error {
    fn from(error: BreakerError) -> Self {
        if error.is_timeout() {
            std::io::Error::new(std::io::ErrorKind::TimedOut, error)
        } else {
            std::io::Error::other(error)
        }
    }
}

/// What building, steering or watching a registry can fail with. Opaque; its predicates tell the kinds apart.
///
/// `serde` writes it as an object with `kind`, `message`, and the `breaker` and the `field` where there are
/// any.
#[derive(Clone)]
pub struct Error(Arc<ErrorKind>);

#[derive(Debug)]
pub(crate) enum ErrorKind {
    /// An invalid value: the field, what is wrong with it and what would be right.
    Config { field: &'static str, problem: String },
    /// Invalid values from a file or the environment.
    Outside(Vec<Misread>),
    /// The address of the store cannot be used.
    #[cfg_attr(not(feature = "redis"), expect(dead_code, reason = "only the Redis store has an address"))]
    Url { problem: String },
    /// A global registry is there already.
    Installed,
    /// The store cannot be reached, or answers with an error.
    Store { doing: &'static str, problem: String },
    /// What the store holds under our keys is not what we wrote.
    Data { what: String, problem: String },
    /// A cached result cannot be used or made.
    Cache { breaker: Arc<str>, problem: String },
    /// A second registration of a name asks for something else than the first.
    Conflict { breaker: Arc<str>, problem: String },
    /// A call was made without a breaker: there is no room for one more keyed breaker, or the name is empty.
    Unguarded { breaker: Arc<str>, places: usize },
    /// Another instance judges by other settings.
    Drift { breaker: Arc<str>, differences: String },
    /// The registry has been shut down.
    ShutDown,
}

/// What is wrong with one key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Misread {
    /// The file or the variable; empty if it is neither.
    pub(crate) source: String,
    /// With the tables that it stands in; empty if the problem concerns the whole source.
    pub(crate) key: String,
    /// If it is one of [`BreakerConfig`](crate::BreakerConfig)'s.
    pub(crate) field: Option<&'static str>,
    /// And what would be right.
    pub(crate) problem: String,
}

impl fmt::Display for Misread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in [&self.source, &self.key].into_iter().filter(|place| !place.is_empty()) {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.problem)
    }
}

impl Error {
    pub(crate) fn new(kind: ErrorKind) -> Self {
        Error(Arc::new(kind))
    }

    pub(crate) fn config(field: &'static str, problem: impl Into<String>) -> Self {
        Error::new(ErrorKind::Config { field, problem: problem.into() })
    }

    /// Adds where the invalid value comes from.
    pub(crate) fn at(&self, source: &str, key: &str) -> Self {
        let (field, problem) = match &*self.0 {
            ErrorKind::Config { field, problem } => (Some(*field), problem.clone()),
            ErrorKind::Url { .. } => (None, self.to_string()),
            _ => return self.clone(),
        };
        let (source, key) = (source.to_owned(), key.to_owned());
        Error::new(ErrorKind::Outside(vec![Misread { source, key, field, problem }]))
    }

    /// What is wrong with a setting, without its name.
    #[cfg(feature = "config")]
    pub(crate) fn problem(&self) -> String {
        match &*self.0 {
            ErrorKind::Config { problem, .. } => problem.clone(),
            _ => self.to_string(),
        }
    }

    pub(crate) fn store(doing: &'static str, problem: impl fmt::Display) -> Self {
        Error::new(ErrorKind::Store { doing, problem: problem.to_string() })
    }

    /// A configuration value (or the store's address) is wrong.
    pub fn is_config(&self) -> bool {
        matches!(*self.0, ErrorKind::Config { .. } | ErrorKind::Outside(_) | ErrorKind::Url { .. })
    }

    /// The configuration field that is wrong (the first one, of several), by the name of its attribute
    /// argument.
    pub fn field(&self) -> Option<&'static str> {
        match &*self.0 {
            ErrorKind::Config { field, .. } => Some(field),
            ErrorKind::Outside(misread) => misread.iter().find_map(|misread| misread.field),
            _ => None,
        }
    }

    /// The store could not be reached, did not answer in time, or answered with an error.
    pub fn is_store(&self) -> bool {
        matches!(*self.0, ErrorKind::Store { .. })
    }

    /// The store holds something under this library's keys that it cannot have written.
    pub fn is_data(&self) -> bool {
        matches!(*self.0, ErrorKind::Data { .. })
    }

    /// Two settings of one breaker differ: in this instance (one of them has no effect) or between two
    /// instances of the fleet (each judges by its own).
    pub fn is_conflict(&self) -> bool {
        matches!(*self.0, ErrorKind::Conflict { .. } | ErrorKind::Drift { .. })
    }

    /// A result could not be cached, or a cached one not be read.
    pub fn is_cache(&self) -> bool {
        matches!(*self.0, ErrorKind::Cache { .. })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            ErrorKind::Config { field, problem } => write!(f, "{field}: {problem}"),
            ErrorKind::Outside(misread) => match &misread[..] {
                [one] => one.fmt(f),
                several => {
                    write!(f, "{} problems:", several.len())?;
                    several.iter().try_for_each(|misread| write!(f, "\n  {misread}"))
                }
            },
            ErrorKind::Url { problem } => write!(f, "the store's address cannot be used: {problem}"),
            ErrorKind::Installed => f.write_str(
                "a global registry is there already: call install() once, before the first guarded call",
            ),
            ErrorKind::Store { doing, problem } => write!(f, "the store failed while {doing}: {problem}"),
            ErrorKind::Data { what, problem } => write!(f, "{what} in the store is damaged: {problem}"),
            ErrorKind::Cache { breaker, problem } => write!(f, "cache of \"{breaker}\": {problem}"),
            ErrorKind::Conflict { breaker, problem } => write!(f, "breaker \"{breaker}\": {problem}"),
            ErrorKind::Unguarded { breaker, .. } if breaker.is_empty() => {
                f.write_str("a call is not guarded, because the name of its breaker is empty")
            }
            ErrorKind::Unguarded { breaker, places } => write!(
                f,
                "breaker \"{breaker}\": calls are not guarded, because there are {places} keyed breakers already and none of \
                 them can be evicted; allow more with max_breakers"
            ),
            ErrorKind::Drift { breaker, differences } => {
                write!(
                    f,
                    "breaker \"{breaker}\" has other settings elsewhere in the fleet, and each instance judges by its own: {differences}"
                )
            }
            ErrorKind::ShutDown => f.write_str("the registry has been shut down"),
        }
    }
}

impl Serialize for Error {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let (kind, breaker) = match &*self.0 {
            ErrorKind::Config { .. } | ErrorKind::Outside(_) | ErrorKind::Url { .. } => ("config", None),
            ErrorKind::Installed => ("installed", None),
            ErrorKind::Store { .. } => ("store", None),
            ErrorKind::Data { .. } => ("data", None),
            ErrorKind::Cache { breaker, .. } => ("cache", Some(breaker)),
            ErrorKind::Conflict { breaker, .. } => ("conflict", Some(breaker)),
            ErrorKind::Unguarded { breaker, .. } => ("unguarded", Some(breaker)),
            ErrorKind::Drift { breaker, .. } => ("drift", Some(breaker)),
            ErrorKind::ShutDown => ("shut-down", None),
        };
        let fields = 2 + usize::from(breaker.is_some()) + usize::from(self.field().is_some());
        let mut object = out.serialize_struct("Error", fields)?;
        object.serialize_field("kind", kind)?;
        object.serialize_field("message", &self.to_string())?;
        if let Some(breaker) = breaker {
            object.serialize_field("breaker", breaker)?;
        }
        if let Some(field) = self.field() {
            object.serialize_field("field", field)?;
        }
        object.end()
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::error::Error for Error {}
