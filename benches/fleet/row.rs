//! What a row of the table is about.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Rule {
    /// A failure rate of one half over a minute.
    Rate,
    /// Five failures in a row.
    Consecutive,
}

/// A fleet to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) instances: usize,
    pub(crate) breakers: usize,
    pub(crate) rule: Rule,
    /// Calls per second of every breaker on every instance.
    pub(crate) per_second: u64,
    /// The share of failing calls, in percent.
    pub(crate) failing: u64,
    /// All breakers are open, and there are no calls.
    pub(crate) open: bool,
    pub(crate) trips: usize,
}

/// The calls per second of each breaker in a busy fleet.
const BUSY: u64 = 40;

impl Row {
    /// One busy breaker on one instance; all calls succeed.
    pub(crate) const ONE: Row = Row {
        instances: 1,
        breakers: 1,
        rule: Rule::Rate,
        per_second: BUSY,
        failing: 0,
        open: false,
        trips: 0,
    };

    pub(crate) fn name(&self) -> String {
        let Row { instances, breakers, failing, .. } = self;
        let what = match (self.open, self.rule) {
            (true, _) => "all open, no calls".to_owned(),
            (false, _) if self.per_second == 0 => "idle".to_owned(),
            (false, _) if self.per_second != BUSY => format!("{} calls/s each", self.per_second),
            (false, Rule::Rate) => format!("rate, {failing} % failing"),
            (false, Rule::Consecutive) => format!("consecutive, {failing} % failing"),
        };
        format!("{instances} × {breakers}, {what}")
    }
}
