//! What counts mean: pure decisions, from counts and settings to verdicts. No clock, no atomics, no I/O.
//!
//! This is the only place that decides. Stores merge, compare epochs and hand out leases.

use std::time::Duration;

use crate::config::{Settings, Window};
use crate::store::Counts;

/// What a closed breaker is judged by: the fleet's counts at the last exchange and this instance's since.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Picture {
    /// Failures since the latest success.
    pub(crate) run: u64,
    /// The time window; all zero where no rule looks at one.
    pub(crate) window: Counts,
}

/// Whether a closed breaker trips, and why: the rule, its figures, the limit.
pub(crate) fn trip(settings: &Settings, picture: &Picture) -> Option<String> {
    if let Some(limit) = settings.failure_threshold
        && picture.run >= limit
    {
        return Some(format!("{} consecutive failures (limit {limit})", picture.run));
    }
    if let (Some(limit), Some(Window::Time(window))) = (settings.failure_rate, settings.window) {
        let calls = picture.window.successes + picture.window.failures;
        if calls >= settings.minimum_calls && rate(picture.window) >= limit {
            return Some(format!(
                "{:.1} % of {calls} calls in {} failed (limit {:.1} %)",
                rate(picture.window) * 100.0,
                humantime::format_duration(window),
                limit * 100.0,
            ));
        }
    }
    None
}

/// The share of failures; 0 where there were no calls.
#[allow(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
pub(crate) fn rate(counts: Counts) -> f64 {
    let calls = counts.successes + counts.failures;
    if calls == 0 { 0.0 } else { counts.failures as f64 / calls as f64 }
}

/// What the probes of a half-open state amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not enough yet.
    Wait,
    Close(String),
    Reopen(String),
}

/// Judges the probes that have ended so far, fleet-wide. One failure outweighs any number of successes.
pub(crate) fn judge_probes(settings: &Settings, probes: Counts) -> Verdict {
    if probes.failures > 0 {
        Verdict::Reopen("a probe failed".into())
    } else if probes.successes >= settings.success_threshold {
        Verdict::Close(format!(
            "{} probes succeeded (needed {})",
            probes.successes, settings.success_threshold
        ))
    } else {
        Verdict::Wait
    }
}

/// How long to stay open at the `attempt`-th opening in a row (1 = the first since it was last closed).
pub(crate) fn open_for(settings: &Settings, attempt: u32) -> Duration {
    let _ = attempt;
    settings.reset_timeout
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BreakerConfig;

    fn settings(config: BreakerConfig) -> Settings {
        config.resolve().unwrap()
    }

    fn window(successes: u64, failures: u64) -> Picture {
        Picture { run: failures, window: Counts { successes, failures, slow: 0 } }
    }

    #[test]
    fn a_run_trips_at_its_limit_and_says_so() {
        let settings = settings(BreakerConfig::default().failure_threshold(3));
        assert_eq!(trip(&settings, &Picture { run: 2, ..Picture::default() }), None);
        let reason = trip(&settings, &Picture { run: 3, ..Picture::default() }).unwrap();
        assert_eq!(reason, "3 consecutive failures (limit 3)");
    }

    #[test]
    fn without_any_rule_five_in_a_row_trip() {
        let settings = settings(BreakerConfig::default());
        assert_eq!(trip(&settings, &window(0, 4)), None);
        assert!(trip(&settings, &window(0, 5)).is_some());
    }

    #[test]
    fn a_rate_trips_at_its_limit_from_the_minimum_of_calls_on() {
        let settings = settings(BreakerConfig::default().failure_rate_threshold(0.4));
        let reason = trip(&settings, &window(6, 4)).unwrap();
        assert_eq!(reason, "40.0 % of 10 calls in 1m failed (limit 40.0 %)");
        assert_eq!(trip(&settings, &window(7, 3)), None, "30 %");
        assert_eq!(trip(&settings, &window(0, 9)), None, "nine calls are too few; and no run is looked at");
    }

    #[test]
    fn given_both_rules_any_of_them_trips() {
        let settings = settings(BreakerConfig::default().failure_rate_threshold(0.9).failure_threshold(3));
        assert!(trip(&settings, &window(100, 3)).unwrap().starts_with("3 consecutive"));
        let late = Picture { run: 1, ..window(1, 9) };
        assert!(trip(&settings, &late).unwrap().starts_with("90.0 %"));
    }

    #[test]
    fn one_failed_probe_outweighs_any_successes() {
        let settings = settings(BreakerConfig::default().success_threshold(3));
        let probes = |successes, failures| judge_probes(&settings, Counts { successes, failures, slow: 0 });
        assert_eq!(probes(2, 0), Verdict::Wait);
        assert!(matches!(probes(3, 0), Verdict::Close(_)));
        assert!(matches!(probes(3, 1), Verdict::Reopen(_)));
    }
}
