//! Random histories of a fleet under a rate: nothing trips that should not, and what should trip does so
//! soon.
//!
//! `CB_HISTORIES=100000` runs that many.

use super::*;

/// Instances take turns this often, more or less.
const STEP: u64 = 10;
/// What has ended within this many milliseconds before a trip by a rate may not have been counted.
const LAG: u64 = 200;
/// Of successes before a trip by failures in a row, which waits for no reports: quiet breakers report every
/// second, and an instance with failures asks for the fleet's streak every second at the least.
const STREAK_LAG: u64 = 2_200;
/// One of this many trips by failures in a row, or fewer, has not counted a success older than [`LAG`].
const LATE_SUCCESSES: u64 = 250;
/// From the moment at which the rate has reached its limit for good. A round trip takes no time here. A trip
/// takes three turns (a request for a notice, the others' reports, the decision), and each comes late by two
/// steps at most.
const IN_TIME: u64 = 300 + 3 * 2 * STEP;
const LENGTH: u64 = 3_000;

/// The call of an instance that has ended.
struct EndedCall {
    at: u64,
    instance: usize,
    failed: bool,
}

#[derive(Debug)]
struct HistoryPlan {
    size: usize,
    limit: f64,
    minimum: u64,
    /// Failures in a row, in place of the rate.
    threshold: Option<u64>,
    /// Calls in a second and the share that fails, before and after the change; for each instance.
    traffic: Vec<(u64, f64, f64)>,
    changes_at: u64,
}

impl HistoryPlan {
    fn new(random: &mut Rng, in_a_row: bool) -> HistoryPlan {
        let size = random.usize(1..=6);
        let share = |random: &mut Rng| [0.0, 0.05, 0.3, 0.6, 1.0][random.usize(..5)];
        let everywhere = random.bool().then(|| (share(random), share(random)));
        let mut instance = || {
            let (before, after) = everywhere.unwrap_or_else(|| (share(random), share(random)));
            ([1, 5, 30, 200][random.usize(..4)], before, after)
        };
        let traffic = (0..size).map(|_| instance()).collect();
        HistoryPlan {
            size,
            limit: [0.1, 0.25, 0.5, 0.9][random.usize(..4)],
            minimum: random.u64(5..40),
            threshold: in_a_row.then(|| random.u64(2..9)),
            traffic,
            changes_at: random.u64(..LENGTH),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "some hundred calls")]
fn reaches(plan: &HistoryPlan, failures: usize, successes: usize, all: usize) -> bool {
    all as u64 >= plan.minimum && failures as f64 / (failures + successes).max(1) as f64 >= plan.limit
}

/// The age of the oldest success that was not counted at a trip, in steps of [`STEP`]; `None` if figures that
/// the instance may have had do not justify the trip. All failures count. Its own failures in a row justify
/// it, too: it opens without asking whether another instance has succeeded in between.
fn uncounted_for(plan: &HistoryPlan, ended: &[EndedCall], now: u64, tripped: usize) -> Option<u64> {
    let Some(threshold) = plan.threshold else { return rate_is_justified(plan, ended, now).then_some(LAG) };
    let own = ended.iter().rev().filter(|call| call.instance == tripped);
    let own_streak = own.take_while(|call| call.failed).count() as u64;
    // What has ended within one step is concurrent: a success ends only the failures of earlier ones.
    let streak = |lag: u64| {
        let is_known = |call: &&EndedCall| !call.failed && call.at + lag < now;
        let success = ended.iter().filter(is_known).map(|call| call.at).max();
        ended.iter().filter(|call| call.failed && Some(call.at) >= success).count() as u64
    };
    let step = usize::try_from(STEP).unwrap();
    (0..=STREAK_LAG).step_by(step).find(|lag| own_streak.max(streak(*lag)) >= threshold)
}

fn rate_is_justified(plan: &HistoryPlan, ended: &[EndedCall], now: u64) -> bool {
    let count = |wanted: &dyn Fn(&EndedCall) -> bool| ended.iter().filter(|call| wanted(call)).count();
    let failures = count(&|call| call.failed);
    let known = count(&|call| !call.failed && call.at + LAG < now);
    reaches(plan, failures, known, ended.len())
}

/// Whether the fleet's calls, all of them, ask for a trip.
fn must_trip(plan: &HistoryPlan, ended: &[EndedCall]) -> bool {
    if let Some(threshold) = plan.threshold {
        return ended.iter().rev().take_while(|call| call.failed).count() as u64 >= threshold;
    }
    let failures = ended.iter().filter(|call| call.failed).count();
    reaches(plan, failures, ended.len() - failures, ended.len())
}

fn rate(plan: &HistoryPlan) -> BreakerConfig {
    BreakerConfig::default()
        .failure_rate_threshold(plan.limit)
        .window(Duration::from_secs(60))
        .minimum_calls(u32::try_from(plan.minimum).unwrap())
}

async fn history(seed: u64, in_a_row: bool) -> Result<Option<Trip>, String> {
    let mut random = Rng::with_seed(seed ^ 0x5ca1_ab1e);
    let plan = HistoryPlan::new(&mut random, in_a_row);
    play(&plan, random).await
}

/// A trip that was justified.
#[derive(Debug, PartialEq)]
struct Trip {
    /// In milliseconds, after the calls had reached the limit for good.
    after: u64,
    /// See [`uncounted_for`].
    uncounted_for: u64,
}

async fn play(plan: &HistoryPlan, mut random: Rng) -> Result<Option<Trip>, String> {
    let config = match plan.threshold {
        Some(threshold) => BreakerConfig::default().failure_threshold(u32::try_from(threshold).unwrap()),
        None => rate(plan),
    };
    let mut fleet = Fleet::new(random.u64(..), plan.size, &config);
    let mut ended: Vec<EndedCall> = Vec::new();
    let mut reached_at = None;
    for now in (0..LENGTH).step_by(usize::try_from(STEP).unwrap()) {
        fleet.advance(Duration::from_millis(STEP));
        for instance in 0..plan.size {
            let (per_second, before, after) = plan.traffic[instance];
            let share = if now < plan.changes_at { before } else { after };
            let calls = (per_second * STEP).div_euclid(1000)
                + u64::from(random.u64(..1000) < (per_second * STEP).rem_euclid(1000));
            for _ in 0..calls {
                let failed = random.f64() < share;
                if fleet.call(instance, !failed).await {
                    ended.push(EndedCall { at: now, instance, failed });
                }
            }
            // A turn may be late by a step.
            if random.bool() || now % (2 * STEP) == 0 {
                fleet.turn(instance).await;
                fleet.follow(instance).await;
            }
        }
        let open = |member: &Member| member.core.snapshot().state == State::Open;
        if let Some(tripped) = fleet.instances.iter().position(open) {
            let first =
                fleet.instances.iter().position(|member| open(member) && member.core.snapshot().local);
            let after = reached_at.map_or(0, |at| now - at);
            return match uncounted_for(plan, &ended, now, first.unwrap_or(tripped)) {
                Some(uncounted_for) => Ok(Some(Trip { after, uncounted_for })),
                None => Err(format!("tripped at {now} ms without a reason: {plan:?}")),
            };
        }
        if must_trip(plan, &ended) {
            let since = *reached_at.get_or_insert(now);
            if now - since > IN_TIME {
                return Err(format!("at its limit since {since} ms and not open at {now} ms: {plan:?}"));
            }
        } else {
            reached_at = None;
        }
    }
    Ok(None)
}

fn run(in_a_row: bool) {
    let count = std::env::var("CB_HISTORIES").map_or(300, |count| count.parse().expect("a number"));
    let (mut trips, mut latest, mut wrong) = (0_u64, 0, Vec::new());
    let (mut late_successes, mut oldest) = (0_u64, 0);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    for seed in 0..count {
        match runtime.block_on(history(seed, in_a_row)) {
            Ok(None) => {}
            Ok(Some(Trip { after, uncounted_for })) => {
                trips += 1;
                latest = latest.max(after);
                oldest = oldest.max(uncounted_for);
                late_successes += u64::from(uncounted_for > LAG);
            }
            Err(problem) => wrong.push(format!("seed {seed}: {problem}")),
        }
    }
    println!(
        "{count} histories, {trips} trips, {} wrong; the latest {latest} ms after its limit was reached for good; \
         {late_successes} had not counted a success that was older than {LAG} ms, the oldest {oldest} ms",
        wrong.len()
    );
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong[..wrong.len().min(5)].join("\n"));
    assert!(late_successes * LATE_SUCCESSES <= trips, "{late_successes} of {trips}");
    assert!(trips * 5 > count && trips * 20 < count * 19, "they are of both kinds: {trips} of {count}");
}

/// Nobody has reported yet when the first instances have seen enough calls for a rate.
#[test]
fn instances_that_start_together_do_not_trip_by_their_own_counts() {
    in_simulation(0..10, async |seed| {
        let plan = HistoryPlan {
            size: 20,
            limit: 0.5,
            minimum: 10,
            threshold: None,
            traffic: vec![(100, 0.2, 0.2); 20],
            changes_at: LENGTH,
        };
        assert_eq!(play(&plan, Rng::with_seed(seed)).await, Ok(None), "seed {seed}");
    });
}

/// Plays these histories of a rate.
fn replay(seeds: [u64; 3]) {
    for seed in seeds {
        in_simulation(seed..seed + 1, async |seed| {
            if let Err(problem) = history(seed, false).await {
                panic!("seed {seed}: {problem}");
            }
        });
    }
}

/// An instance with few calls waits for the others' reports, which complete the minimum.
#[test]
fn instance_near_a_rates_limit_requests_the_fleets_counts_after_a_failure() {
    replay([4928, 5064, 8862]);
}

/// An instance decides just before its next exchange, and others have succeeded since the latest.
#[test]
fn decision_on_a_rate_rests_on_counts_that_lack_nothing_older_than_200_ms() {
    replay([49816, 54307, 54948]);
}

#[test]
fn nothing_trips_below_its_limit_and_all_else_in_time() {
    run(false);
}

#[test]
fn no_streak_trips_that_a_success_has_ended() {
    run(true);
}
