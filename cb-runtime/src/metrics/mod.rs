//! Publishes a registry's metrics through the `metrics` facade: once a second, on a thread of its own. The
//! user's recorder runs on that thread only.
//!
//! Reading order: `thread` (when), `publisher` (one round), `reading` (the values), `table` (the names).

mod histogram;
mod meter;
mod publisher;
mod reading;
mod table;
mod thread;

#[cfg(test)]
mod tests;

pub(crate) use histogram::Histogram;
pub(crate) use meter::{By, Fact, Facts, Meter, OTHERS, OUTCOMES, OutcomeCounts, add, calls};
pub(crate) use reading::{MetricReading, MetricSource};
pub(crate) use thread::{Enrolled, enroll};
