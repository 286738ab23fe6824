//! The rules at their limits.

use proptest::prelude::*;

use super::*;
use crate::config::{Backoff, BreakerConfig};
use crate::strategy::TripStrategy;

fn settings(config: BreakerConfig) -> Settings {
    config.resolve().unwrap()
}

fn counts(successes: u64, failures: u64) -> Counts {
    Counts { successes, failures, slow: 0 }
}

fn window(successes: u64, failures: u64) -> TripInput {
    TripInput { streak: failures, window: counts(successes, failures), ..TripInput::default() }
}

fn streak(streak: u64) -> TripInput {
    TripInput { streak, ..TripInput::default() }
}

#[test]
fn streak_trips_at_its_threshold() {
    let settings = settings(BreakerConfig::default().failure_threshold(3));
    assert_eq!(trip(&settings, &streak(2), 1), None);
    assert_eq!(trip(&settings, &streak(3), 1).unwrap(), "3 consecutive failures (limit 3)");
}

#[test]
fn default_rule_is_five_consecutive_failures() {
    let settings = settings(BreakerConfig::default());
    assert_eq!(trip(&settings, &window(0, 4), 1), None);
    assert!(trip(&settings, &window(0, 5), 1).is_some());
}

#[test]
fn rate_trips_from_minimum_calls_on() {
    let settings = settings(BreakerConfig::default().failure_rate_threshold(0.4));
    let reason = trip(&settings, &window(6, 4), 1).unwrap();
    assert_eq!(reason, "40.0 % of 10 calls in 1m failed (limit 40.0 %)");
    assert_eq!(trip(&settings, &window(7, 3), 1), None, "30 %");
    assert_eq!(
        trip(&settings, &window(0, 9), 1),
        None,
        "nine calls are too few, and the streak is not looked at"
    );
}

#[test]
fn count_window_lowers_minimum_calls_to_its_size() {
    let settings = settings(BreakerConfig::default().failure_rate_threshold(0.5).window_calls(4));
    assert_eq!(trip(&settings, &window(0, 3), 1), None);
    assert_eq!(
        trip(&settings, &window(2, 2), 1).unwrap(),
        "50.0 % of the last 4 calls failed (limit 50.0 %)"
    );
}

#[test]
fn slow_successes_and_failures_trip() {
    let config = BreakerConfig::default()
        .slow_call_duration(Duration::from_millis(50))
        .slow_call_rate_threshold(0.5)
        .minimum_calls(4);
    let settings = settings(config);
    let slow =
        |slow| TripInput { window: Counts { slow, ..counts(3, 1) }, streak: 9, ..TripInput::default() };
    assert_eq!(trip(&settings, &slow(1), 1), None, "the streak is not looked at");
    assert_eq!(
        trip(&settings, &slow(2), 1).unwrap(),
        "50.0 % of 4 calls in 1m took longer than 50ms (limit 50.0 %)"
    );
}

#[test]
fn any_of_several_rules_trips() {
    struct Even;
    impl TripStrategy for Even {
        fn trip(&self, window: &WindowCounts<'_>) -> Option<String> {
            (window.calls().total() == 42).then(|| "forty-two".into())
        }
    }
    let config = BreakerConfig::default().failure_rate_threshold(0.9).failure_threshold(3).strategy(Even);
    let settings = settings(config);
    assert!(trip(&settings, &window(100, 3), 1).unwrap().starts_with("3 consecutive"));
    let late = TripInput { streak: 1, ..window(1, 9) };
    assert!(trip(&settings, &late, 1).unwrap().starts_with("90.0 %"));
    assert_eq!(trip(&settings, &window(41, 1), 1).unwrap(), "forty-two");
    assert_eq!(trip(&settings, &window(42, 1), 1), None);
}

#[test]
fn panicking_strategy_does_not_trip() {
    struct Broken;
    impl TripStrategy for Broken {
        fn trip(&self, _window: &WindowCounts<'_>) -> Option<String> {
            panic!("on purpose")
        }
    }
    let settings = settings(BreakerConfig::default().strategy(Broken));
    assert_eq!(trip(&settings, &window(0, 100), 1), None);
}

#[test]
fn quorum_counts_the_instances_of_each_rule() {
    let config =
        BreakerConfig::default().failure_threshold(3).failure_rate_threshold(0.5).min_failing_instances(2);
    let settings = settings(config);
    let input =
        |streak_instances, window_instances| TripInput { streak_instances, window_instances, ..window(4, 6) };
    assert_eq!(trip(&settings, &input(1, 1), 2), None);
    assert_eq!(
        trip(&settings, &input(2, 2), 2).unwrap(),
        "6 consecutive failures (limit 3), on at least 2 instances"
    );
    assert!(trip(&settings, &input(1, 2), 2).unwrap().starts_with("60.0 %"));
    assert_eq!(
        trip_alone(&settings, &input(1, 1)).unwrap(),
        "6 consecutive failures (limit 3), on this instance only (the fleet opens from 2 instances on)"
    );
}

#[test]
fn one_failed_probe_reopens() {
    let settings = settings(BreakerConfig::default().success_threshold(3));
    let probes = |successes, failures| judge_probes(&settings, counts(successes, failures));
    assert_eq!(probes(2, 0), ProbeVerdict::Wait);
    assert!(matches!(probes(3, 0), ProbeVerdict::Close(_)));
    assert!(matches!(probes(3, 1), ProbeVerdict::Reopen(_)));
}

#[test]
fn slow_probes_do_not_close() {
    let config = BreakerConfig::default()
        .slow_call_duration(Duration::from_millis(50))
        .slow_call_rate_threshold(0.5)
        .success_threshold(4);
    let probes = |config: &BreakerConfig, successes, slow| {
        judge_probes(&settings(config.clone()), Counts { slow, ..counts(successes, 0) })
    };
    assert_eq!(probes(&config, 3, 3), ProbeVerdict::Wait);
    assert!(matches!(probes(&config, 4, 1), ProbeVerdict::Close(_)));
    let reason = "50.0 % of 4 probes took longer than 50ms (limit 50.0 %)";
    for config in [config.clone(), config.recovery_rate(0.5)] {
        assert_eq!(probes(&config, 4, 2), ProbeVerdict::Reopen(reason.into()));
    }
}

#[test]
fn recovery_rate_decides_after_its_sample() {
    let config = BreakerConfig::default().recovery_rate(0.5).half_open_max_calls(4);
    let settings = settings(config);
    let probes = |successes, failures| judge_probes(&settings, counts(successes, failures));
    assert_eq!(probes(3, 0), ProbeVerdict::Wait);
    assert_eq!(probes(0, 3), ProbeVerdict::Wait);
    assert_eq!(probes(2, 2), ProbeVerdict::Close("50.0 % of 4 probes succeeded (needed 50.0 %)".into()));
    assert_eq!(probes(1, 3), ProbeVerdict::Reopen("25.0 % of 4 probes succeeded (needed 50.0 %)".into()));
}

#[test]
fn recovery_rate_that_is_reached_exactly_closes() {
    for percent in 1..=100_u32 {
        for sample in (1..=100).filter(|sample| sample * percent % 100 == 0) {
            let rate: f64 = format!("{}.{:02}", percent / 100, percent % 100).parse().unwrap();
            let settings = settings(BreakerConfig::default().recovery_rate(rate).half_open_max_calls(sample));
            let successes = u64::from(sample * percent / 100);
            let verdict = judge_probes(&settings, counts(successes, u64::from(sample) - successes));
            assert!(matches!(verdict, ProbeVerdict::Close(_)), "{successes} of {sample}: {verdict:?}");
        }
    }
}

#[test]
fn ramp_grows_from_a_tenth_to_all() {
    let second = Duration::from_secs(1);
    let share = |half_seconds| admitted_share(second, second / 2 * half_seconds);
    assert_eq!(share(0), Some(0.1));
    assert!((share(1).unwrap() - 0.55).abs() < 1e-9);
    assert_eq!(share(2), None);
}

proptest! {
    /// Whatever the settings are, enough successes close a half-open circuit, and enough failures trip a
    /// closed one.
    #[test]
    fn every_setting_can_open_and_close(
        threshold in prop::option::of(1_u32..50), rate in prop::option::of(0.01_f64..=1.0), calls in prop::option::of(1_u32..100),
        needed in 1_u32..20, recovery in prop::option::of(0.01_f64..=1.0), attempt in 1_u32.., roll in 0.0_f64..1.0, factor in 1.0_f64..10.0,
    ) {
        let mut config = BreakerConfig::default().success_threshold(needed).backoff(Backoff::exponential(factor).jitter(0.5));
        (config.failure_threshold, config.failure_rate_threshold, config.recovery_rate) = (threshold, rate, recovery);
        config.window_calls = calls.filter(|_| rate.is_some());
        let settings = settings(config);
        let failing = TripInput { streak: 100, window: counts(0, 100), ..TripInput::default() };
        prop_assert!(trip(&settings, &failing, 1).is_some());
        prop_assert!(matches!(judge_probes(&settings, counts(u64::from(needed), 0)), ProbeVerdict::Close(_)));
        prop_assert!(matches!(judge_probes(&settings, counts(0, u64::from(needed))), ProbeVerdict::Reopen(_)));
        let open_for = open_for(&settings, attempt, roll);
        prop_assert!(open_for > Duration::ZERO && open_for <= Duration::from_secs(900));
    }

    /// As many failures as the headroom do not trip, however many successes come with them. One more
    /// trips if none comes.
    #[test]
    fn headroom_ends_where_the_rate_trips(
        rate in prop_oneof![4 => 0.01_f64..=1.0, 1 => Just(1.0)], minimum in 1_u32..200,
        before in (0_u64..2000, 0_u64..2000), more in 0_u64..300, slow in 0_u64..50,
    ) {
        let config = BreakerConfig::default().failure_rate_threshold(rate).minimum_calls(minimum);
        let slowly = config.clone().slow_call_duration(Duration::from_secs(1)).slow_call_rate_threshold(0.1);
        let (config, slowly) = (settings(config), settings(slowly));
        let (successes, failures) = before;
        let trips = |settings: &Settings, successes, failures| {
            let window = Counts { slow, ..counts(successes, failures) };
            trip(settings, &TripInput { window, ..TripInput::default() }, 1).is_some()
        };
        let room = headroom(&config, counts(successes, failures));
        if room > 0 {
            prop_assert!(!trips(&config, successes + more, failures + room));
        }
        if room < MOST_HEADROOM {
            let beyond = failures + room + 1;
            prop_assert!(trips(&config, successes.max(u64::from(minimum).saturating_sub(beyond)), beyond));
        }
        let room = headroom(&slowly, Counts { slow, ..counts(successes, failures) });
        if room > 0 {
            prop_assert!(!trips(&slowly, successes + more, failures + room));
        }
    }

    /// More failures in the place of successes never make a breaker that trips stay closed.
    #[test]
    fn more_failures_never_prevent_a_trip(
        successes in 0_u64..50, failures in 0_u64..50, streak in 0_u64..10, threshold in 1_u32..10, rate in 0.01_f64..=1.0,
    ) {
        let config = BreakerConfig::default().failure_threshold(threshold).failure_rate_threshold(rate);
        let settings = settings(config);
        let input = TripInput { streak, window: counts(successes, failures), ..TripInput::default() };
        let worse = TripInput { streak: streak + 1, window: counts(successes.saturating_sub(1), failures + 1), ..TripInput::default() };
        prop_assert!(trip(&settings, &input, 1).is_none() || trip(&settings, &worse, 1).is_some());
    }
}
