//! Publishing a registry's numbers through the `metrics` facade: once a second, from a thread of its own, which is the
//! only place where the user's recorder runs.
//!
//! Reading order: `thread` (when), `publisher` (one round), `reading` (what it publishes), `table` (under which names).

mod histogram;
mod meter;
mod publisher;
mod reading;
mod table;
mod thread;

#[cfg(test)]
mod tests;

pub(crate) use histogram::Histogram;
pub(crate) use meter::{By, Calls, Fact, Facts, Meter, OTHERS, OUTCOMES, calls};
pub(crate) use reading::Source;
pub(crate) use thread::{Enrolled, enroll};
