//! A breaker's settings: registrations, reloads, and differences to other instances.

use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::context::RegistryContext;
use super::machine::{Now, policy};
use super::stopwatch::SlowLimit;
use super::{Core, Inner, closed};
use crate::clock::{Moment, micros};
use crate::config::drift::differences;
use crate::config::{BreakerConfig, Layers, PerFunction, Settings};
use crate::error::{Error, ErrorKind};

/// Instances that start later learn of a difference within this time.
const REPEATED_AFTER: Duration = Duration::from_secs(60);
/// After more reloads than this in an hour, a former line of this instance may be taken for another
/// instance's.
const FORMER_LINES: usize = 8;

/// The summary of the settings, which shows other instances whether theirs differ.
pub(super) struct SettingsLine {
    line: Arc<str>,
    sent_at: Moment,
    /// The lines before reloads, latest last. The store keeps them for some time, and may answer them.
    former: Vec<Arc<str>>,
}

impl SettingsLine {
    pub(super) fn new(settings: &Settings, now: Moment) -> Self {
        SettingsLine { line: settings.line(), sent_at: now, former: Vec::new() }
    }

    pub(super) fn text(&self) -> Arc<str> {
        self.line.clone()
    }

    fn replace(&mut self, settings: &Settings) {
        let former = std::mem::replace(&mut self.line, settings.line());
        self.former.retain(|line| *line != former && *line != self.line);
        self.former.push(former);
        let beyond = self.former.len().saturating_sub(FORMER_LINES);
        self.former.drain(..beyond);
    }

    /// The line, if the next entry must carry it: always until a difference has been reported, and
    /// periodically after that, because the store forgets lines that are not repeated.
    pub(super) fn encode(&mut self, drift_reported: bool, now: Moment) -> Arc<str> {
        if drift_reported && now.since(self.sent_at) < REPEATED_AFTER {
            return Arc::default();
        }
        self.sent_at = now;
        self.line.clone()
    }

    /// The differences to another instance's line. An instance with a former line of this one reports the
    /// difference itself, because it receives this instance's current line.
    fn drift(&self, other: &str) -> Option<String> {
        let is_former = self.former.iter().any(|former| **former == *other);
        let differences = differences(&self.line, other);
        (!is_former && !differences.is_empty()).then_some(differences)
    }
}

impl Core {
    /// A function or `get_or_create` has asked for it, and its settings are those of the registration.
    pub(crate) fn registered(&self) {
        if self.transact(|inner, _| inner.machine.register()) {
            self.mark_dirty(false);
        }
    }

    /// Handles another registration of this name. The first settings stay; a difference is reported once.
    pub(crate) fn registered_again(
        &self,
        given: &BreakerConfig,
        settings: &Settings,
        at: &'static Location<'static>,
    ) {
        let mut are_applied = false;
        let problem = self.transact(|inner, now| {
            if self.provisional.swap(false, Ordering::AcqRel) {
                inner.given = given.over(&inner.given);
                inner.given_at = Some(at);
                self.judge_by(inner, settings.clone(), now);
                are_applied = true;
                return None;
            }
            let first = inner.machine.settings();
            let disputed = first != settings && !self.disputed.swap(true, Ordering::AcqRel);
            disputed.then(|| conflict(first, inner.given_at, settings, at))
        });
        // They may have a health check, which begins with a review.
        if are_applied {
            self.mark_dirty(false);
        }
        if let Some(problem) = problem {
            let breaker = self.name.clone();
            self.context.events.error(Error::new(ErrorKind::Conflict { breaker, problem }));
        }
    }

    /// Whether its settings stand in this attribute.
    pub(crate) fn was_given_at(&self, at: &'static Location<'static>) -> bool {
        self.transact(|inner, _| inner.given_at == Some(at))
    }

    /// What it judges by, as one line; `None` if this instance only looks at it.
    pub(crate) fn settings_line(&self) -> Option<Arc<str>> {
        self.transact(|inner, _| (!inner.machine.only_observes()).then(|| inner.line.text()))
    }

    /// The settings that these layers give it.
    pub(crate) fn resolve(&self, layers: &Layers) -> Result<Settings, Error> {
        let given = self.transact(|inner, _| inner.given.clone());
        layers.resolve(&self.name, &given)
    }

    /// Applies new settings. Counts and state stay.
    pub(crate) fn configure(&self, settings: Settings, per_function: &PerFunction) {
        self.per_function.take_over(per_function);
        let changed = self.transact(|inner, now| {
            let changed = *inner.machine.settings() != settings;
            if changed {
                self.judge_by(inner, settings, now);
            }
            changed
        });
        if changed {
            self.drift_reported.store(false, Ordering::Release);
            self.mark_dirty(false);
        }
    }

    fn judge_by(&self, inner: &mut Inner, settings: Settings, now: Now) {
        inner.line.replace(&settings);
        self.slow_limit.store(slow_limit(&settings, &self.context).word(), Ordering::Relaxed);
        self.checked_every_us.store(checked_every_us(&settings), Ordering::Relaxed);
        self.counters.note_exactly(policy::looks_at_streaks(&settings));
        inner.machine.configure(settings, now);
        self.ramp.set(inner.machine.ramp(now.at));
        // The generation stays, so that the outcomes of calls in flight are not late.
        self.gate.change(self.gate.word(), closed(&inner.machine, &self.context, now.at));
    }

    /// Returns an error about another instance's differing settings, once.
    pub(super) fn drift(&self, line: &SettingsLine, other: Option<&str>) -> Option<Error> {
        let differences = line.drift(other?)?;
        let known = self.drift_reported.swap(true, Ordering::AcqRel);
        (!known).then(|| Error::new(ErrorKind::Drift { breaker: self.name.clone(), differences }))
    }
}

/// How the settings of a second registration differ from those in force, with the places of both.
fn conflict(
    first: &Settings,
    first_at: Option<&Location<'_>>,
    second: &Settings,
    second_at: &Location<'_>,
) -> String {
    let pairs = first.written().into_iter().zip(second.written());
    let differences: Vec<_> = pairs
        .filter(|(first, second)| first != second)
        .map(|((name, first), (_, second))| format!("{name} is {first} and not {second}"))
        .collect();
    let first_at = first_at.map(|at| format!(", from {at},")).unwrap_or_default();
    format!(
        "registered again with other settings at {second_at}; the first ones{first_at} stay in force: {}",
        differences.join(", ")
    )
}

/// From which duration on a call is slow.
pub(super) fn slow_limit(settings: &Settings, context: &RegistryContext) -> SlowLimit {
    // A call that is only measured is never slow.
    let otherwise = if context.measures_calls { SlowLimit::NEVER } else { SlowLimit::OFF };
    settings.slow.map_or(otherwise, |slow| SlowLimit::of_micros(micros(slow.duration)))
}

pub(super) fn checked_every_us(settings: &Settings) -> u64 {
    settings.health.as_ref().map_or(0, |health| micros(health.interval))
}
