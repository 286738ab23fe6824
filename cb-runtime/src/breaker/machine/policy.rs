//! The rules: decisions from counts and settings.
//!
//! Counts are judged nowhere else. Stores merge counts, compare epochs and grant leases.

use std::time::Duration;

use crate::config::{Settings, WindowKind};
use crate::store::{Counts, MAX_STREAK};
use crate::strategy::{Bucket, Calls, WindowCounts};

/// The counts that a closed breaker is judged by: the fleet's at the last exchange plus this instance's
/// since, or this instance's alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct TripInput {
    /// Failures since the latest success.
    pub(crate) streak: u64,
    /// The window's counts; zero where no rule looks at a window.
    pub(crate) window: Counts,
    /// How many instances these failures come from; counted only for a quorum or a strategy.
    pub(crate) streak_instances: u32,
    pub(crate) window_instances: u32,
    /// The buckets of a time window, where a strategy looks at them.
    pub(crate) buckets: Vec<Bucket>,
}

/// Why a closed breaker trips, if it does: the rule, its figures, the limit. A rule applies only if the
/// failures that it looks at come from at least `instances` instances.
pub(crate) fn trip(settings: &Settings, input: &TripInput, instances: u32) -> Option<String> {
    let window_counts = instances <= 1 || input.window_instances >= instances;
    let reason = streak(settings, input, instances)
        .or_else(|| rates(settings, input).filter(|_| window_counts))
        .or_else(|| own_strategy(settings, input).filter(|_| window_counts))?;
    Some(if instances > 1 { format!("{reason}, on at least {instances} instances") } else { reason })
}

/// Whether failures in a row alone trip a closed breaker.
pub(crate) fn trips_by_streak(settings: &Settings, input: &TripInput, instances: u32) -> bool {
    streak(settings, input, instances).is_some()
}

fn streak(settings: &Settings, input: &TripInput, instances: u32) -> Option<String> {
    consecutive(settings, input).filter(|_| instances <= 1 || input.streak_instances >= instances)
}

/// The reason for which an instance that alone sees failures opens locally, if there is one.
pub(crate) fn trip_alone(settings: &Settings, input: &TripInput) -> Option<String> {
    let reason = trip(settings, input, 1)?;
    Some(format!(
        "{reason}, on this instance only (the fleet opens from {} instances on)",
        settings.min_failing_instances
    ))
}

/// How many more failures certainly do not trip a closed breaker with these counts, whatever number of
/// successes comes with them. 0 where more than the rates of a time window decides.
pub(crate) fn headroom(settings: &Settings, window: Counts) -> u64 {
    let only_rates = matches!(settings.window, Some(WindowKind::Time(_)))
        && settings.failure_threshold.is_none()
        && settings.strategy.is_none()
        && settings.min_failing_instances <= 1;
    // More calls only lower the share of slow ones.
    let calls = Calls::from(window);
    let slow_limit = settings.slow.and_then(|slow| slow.rate);
    if !only_rates || slow_limit.is_some_and(|limit| calls.slow_rate() >= limit) {
        return 0;
    }
    settings.failure_rate.map_or(MOST_HEADROOM, |limit| failures_below(limit, calls, settings.minimum_calls))
}

/// Stands for no limit, or a distant one.
const MOST_HEADROOM: u64 = 1 << 32;

/// The largest number of further failures at which the rate is below its limit without further successes.
/// Fewer calls than `minimum` are not judged.
fn failures_below(limit: f64, calls: Calls, minimum: u64) -> u64 {
    let trips = |more: u64| {
        let failures = calls.failures + more;
        let successes = (calls.total() + more).max(minimum).saturating_sub(failures);
        Calls { successes, failures, slow: 0 }.failure_rate() >= limit
    };
    // Rounding makes it one too large or too small.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let about = {
        let (failures, total) = (calls.failures as f64, calls.total() as f64);
        let by_share = (limit * total - failures) / (1.0 - limit);
        by_share.max(limit * minimum as f64 - failures) as u64
    };
    let largest = about.saturating_add(1).min(MOST_HEADROOM);
    (largest.saturating_sub(3)..=largest).rev().find(|more| !trips(*more)).unwrap_or(0)
}

/// Whether the shares of these calls that have failed, or were slow, have reached half of a limit.
pub(crate) fn nears_limit(settings: &Settings, window: Counts) -> bool {
    let calls = Calls::from(window);
    let near = |share: f64, limit: f64| share > 0.0 && share * 2.0 >= limit;
    settings.failure_rate.is_some_and(|limit| near(calls.failure_rate(), limit))
        || settings.slow.and_then(|slow| slow.rate).is_some_and(|limit| near(calls.slow_rate(), limit))
        || settings.strategy.is_some() && calls.failures + calls.slow > 0
}

/// Whether a rule looks at failures in a row.
pub(crate) fn looks_at_streaks(settings: &Settings) -> bool {
    settings.failure_threshold.is_some() || settings.strategy.is_some()
}

/// Whether as many failures in a row have reached half of their limit.
pub(crate) fn streak_nears_limit(settings: &Settings, streak: u64) -> bool {
    streak > 0 && settings.failure_threshold.is_some_and(|limit| streak * 2 >= limit)
}

/// The number of failures of a streak that this instance keeps apart. Without a rule for streaks, one is
/// enough to show their sum.
pub(crate) fn streak_pairs(settings: &Settings) -> usize {
    if settings.strategy.is_some() {
        return MAX_STREAK;
    }
    settings.failure_threshold.map_or(1, |limit| usize::try_from(limit).unwrap_or(MAX_STREAK).min(MAX_STREAK))
}

fn consecutive(settings: &Settings, input: &TripInput) -> Option<String> {
    let limit = settings.failure_threshold.filter(|limit| input.streak >= *limit)?;
    Some(format!("{} consecutive failures (limit {limit})", input.streak))
}

fn rates(settings: &Settings, input: &TripInput) -> Option<String> {
    let calls = Calls::from(input.window);
    let total = calls.total();
    if total < settings.minimum_calls {
        return None;
    }
    let window = settings.window?;
    let rate = calls.failure_rate();
    let failed = settings.failure_rate.filter(|limit| rate >= *limit);
    // Every failure is judged here, and few trip: no text is formatted before one does.
    let of = || match window {
        WindowKind::Time(span) => format!("{total} calls in {}", humantime::format_duration(span)),
        WindowKind::Calls(_) => format!("the last {total} calls"),
    };
    failed.map(|limit| share(rate, &of(), "failed", limit)).or_else(|| slow(settings, calls, of))
}

fn slow(settings: &Settings, calls: Calls, of: impl FnOnce() -> String) -> Option<String> {
    let (rule, rate) = (settings.slow?, calls.slow_rate());
    let limit = rule.rate.filter(|limit| rate >= *limit)?;
    let verb = format!("took longer than {}", humantime::format_duration(rule.duration));
    Some(share(rate, &of(), &verb, limit))
}

fn share(rate: f64, of: &str, what: &str, limit: f64) -> String {
    format!("{:.1} % of {of} {what} (limit {:.1} %)", rate * 100.0, limit * 100.0)
}

fn own_strategy(settings: &Settings, input: &TripInput) -> Option<String> {
    settings.strategy.as_ref()?.trip(&WindowCounts {
        calls: input.window.into(),
        consecutive_failures: input.streak,
        failing_instances: input.window_instances,
        buckets: &input.buckets,
    })
}

impl From<Counts> for Calls {
    fn from(counts: Counts) -> Self {
        Calls { successes: counts.successes, failures: counts.failures, slow: counts.slow }
    }
}

/// The verdict on a half-open state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProbeVerdict {
    /// Not enough probes have ended.
    Wait,
    Close(String),
    Reopen(String),
}

/// Judges the probes that have ended so far, fleet-wide. One failure outweighs any number of successes,
/// unless a `recovery_rate` is set. Slow successes do not close a circuit that they would open again.
pub(crate) fn judge_probes(settings: &Settings, probes: Counts) -> ProbeVerdict {
    let calls = Calls::from(probes);
    match judge_results(settings, probes) {
        ProbeVerdict::Close(reason) => {
            let of = || format!("{} probes", calls.total());
            slow(settings, calls, of).map_or(ProbeVerdict::Close(reason), ProbeVerdict::Reopen)
        }
        verdict => verdict,
    }
}

fn judge_results(settings: &Settings, probes: Counts) -> ProbeVerdict {
    if let Some((limit, sample)) = settings.recovery {
        return judge_share(Calls::from(probes), limit, sample);
    }
    if probes.failures > 0 {
        ProbeVerdict::Reopen("a probe failed".into())
    } else if probes.successes >= settings.success_threshold {
        ProbeVerdict::Close(format!(
            "{} probes succeeded (needed {})",
            probes.successes, settings.success_threshold
        ))
    } else {
        ProbeVerdict::Wait
    }
}

fn judge_share(probes: Calls, limit: f64, sample: u64) -> ProbeVerdict {
    if probes.total() < sample {
        return ProbeVerdict::Wait;
    }
    let share = probes.success_rate();
    let figures = format!(
        "{:.1} % of {} probes succeeded (needed {:.1} %)",
        share * 100.0,
        probes.total(),
        limit * 100.0
    );
    if share >= limit { ProbeVerdict::Close(figures) } else { ProbeVerdict::Reopen(figures) }
}

/// How long the circuit stays open until a probe, or the first health check, is due. `attempt`: how many
/// openings in a row this one makes (1 = the first since it was closed). `random`: a number in [0, 1), for
/// the jitter.
pub(crate) fn open_for(settings: &Settings, attempt: u32, random: f64) -> Duration {
    let base = settings.health.as_ref().map_or(settings.reset_timeout, |health| health.interval);
    settings.backoff.span(base, attempt, random)
}

/// A probe is overdue after this, unless its call has a timeout of its own.
pub(crate) fn longest_probe(settings: &Settings) -> Duration {
    settings.reset_timeout.max(Duration::from_secs(10))
}

/// A call that is timed out ends itself; its probe is taken from it only if it has not done so this long
/// after.
pub(crate) const PROBE_GRACE: Duration = Duration::from_millis(500);

/// The share of calls that a circuit admits `recovered_for` after it has closed; `None`: all. What calls are
/// admitted by computes in integers ([`Ramp`](crate::breaker::ramp::Ramp)), and is tested against this.
#[cfg(test)]
pub(crate) fn admitted_share(ramp_up: Duration, recovered_for: Duration) -> Option<f64> {
    let part = recovered_for.as_secs_f64() / ramp_up.as_secs_f64();
    (part < 1.0).then_some(0.1 + 0.9 * part)
}

#[cfg(test)]
mod tests;
