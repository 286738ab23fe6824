use proptest::prelude::*;

use super::*;
use crate::config::{Backoff, BreakerConfig};
use crate::store::Record;

const INTERVAL: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(1);
const SHORT: Duration = Duration::from_millis(100);

fn settings(idle: bool) -> Settings {
    let config = BreakerConfig::default()
        .health_check(async || ())
        .health_check_interval(INTERVAL)
        .backoff(Backoff::exponential(2.0).cap(Duration::from_secs(3)));
    let config = if idle { config.idle_health_check_interval(IDLE) } else { config };
    config.resolve().unwrap()
}

/// An instance and where it is.
struct Checks {
    settings: Settings,
    record: DatedRecord,
    generation: u64,
    alone: bool,
    is_shared: bool,
    unfinished: usize,
    now: Moment,
    health: HealthChecks,
}

impl Checks {
    fn new(idle: bool) -> Checks {
        let now = Moment(1_000_000_000);
        Checks {
            settings: settings(idle),
            record: DatedRecord::new(Record::closed(), now),
            generation: 0,
            alone: false,
            is_shared: true,
            unfinished: 0,
            now,
            health: HealthChecks::default(),
        }
    }

    fn open() -> Checks {
        let mut world = Checks::new(false);
        world.enter(State::Open);
        world
    }

    /// Open, and the leader has begun a check.
    fn under_way() -> (Checks, CheckTicket) {
        let mut world = Checks::open();
        world.advance(INTERVAL);
        world.exchange(true, 7);
        let ticket = world.begin().unwrap();
        (world, ticket)
    }

    fn enter(&mut self, state: State) {
        let remaining_us = (state == State::Open).then(|| micros(INTERVAL));
        let record = Record { state, remaining_us, attempt: 1, ..Record::closed() };
        self.record = DatedRecord::new(record, self.now);
        self.generation += 1;
    }

    fn advance(&mut self, span: Duration) {
        self.now = self.now.after(span);
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut HealthChecks, CheckContext<'_>) -> T) -> T {
        let context = CheckContext {
            settings: &self.settings,
            record: &self.record,
            generation: self.generation,
            alone: self.alone,
            unconfirmed: false,
            is_shared: self.is_shared,
            now: self.now,
        };
        act(&mut self.health, context)
    }

    /// One exchange in which the store says which instance leads.
    fn exchange(&mut self, mine: bool, token: u64) -> Option<LeaderRequest> {
        let asked = self.with(HealthChecks::encode);
        let mine = mine && asked.is_some_and(|ask| ask.want);
        let view = asked.map(|_| LeaderView { mine, token, remaining_us: 0 });
        self.with(|health, context| health.receive(view, context));
        asked
    }

    fn begin(&mut self) -> Option<CheckTicket> {
        let unfinished = self.unfinished;
        self.with(|health, context| health.begin(unfinished, context))
    }

    fn end(&mut self, ticket: &CheckTicket, result: Result<(), &str>) -> CheckVerdict {
        self.with(|health, context| health.end(ticket, result.err(), context, 0.5))
    }

    /// The spans after which checks begin that all fail.
    fn spans_between_failing_checks(&mut self, checks: usize) -> Vec<Duration> {
        let mut spans = Vec::new();
        let mut before = self.now;
        while spans.len() < checks {
            self.exchange(true, 7);
            if let Some(ticket) = self.begin() {
                assert_eq!(self.end(&ticket, Err("down")), CheckVerdict::Stay);
                spans.push(self.now.since(before));
                before = self.now;
            }
            self.advance(10 * STEP);
        }
        spans
    }
}

#[test]
fn first_check_comes_after_an_interval_and_the_next_back_off() {
    let spans = Checks::open().spans_between_failing_checks(4);
    assert_eq!(spans, [INTERVAL, 2 * INTERVAL, 3 * INTERVAL, 3 * INTERVAL]);
}

#[test]
fn only_the_leader_checks() {
    let mut world = Checks::open();
    world.exchange(false, 7);
    world.advance(INTERVAL);
    assert!(world.begin().is_none());
    world.exchange(true, 8);
    assert!(world.begin().is_some());
    assert!(world.begin().is_none(), "one at a time");
}

#[test]
fn unrenewed_lease_ends_with_its_term() {
    let mut world = Checks::open();
    world.exchange(true, 7);
    world.advance(TERM);
    assert!(world.begin().is_none());
}

#[test]
fn result_counts_only_under_its_own_lease() {
    let (mut world, ticket) = Checks::under_way();
    world.exchange(false, 8);
    world.exchange(true, 9);
    assert_eq!(world.end(&ticket, Ok(())), CheckVerdict::Late);

    world.advance(INTERVAL);
    world.exchange(true, 9);
    let ticket = world.begin().unwrap();
    world.exchange(true, 9);
    let reason = "health check passed".to_owned();
    assert_eq!(world.end(&ticket, Ok(())), CheckVerdict::Close { reason, token: Some(9) });
}

#[test]
fn result_of_an_earlier_state_is_late() {
    let (mut world, ticket) = Checks::under_way();
    world.enter(State::ForcedOpen);
    assert_eq!(world.end(&ticket, Ok(())), CheckVerdict::Late);

    world.enter(State::Open);
    world.exchange(true, 7);
    assert_eq!(world.end(&ticket, Ok(())), CheckVerdict::Late);
    world.advance(INTERVAL);
    assert!(world.begin().is_some(), "nor does it keep the next one from being made");
}

#[test]
fn check_that_ends_while_none_is_configured_does_not_keep_the_next_from_being_made() {
    let (mut world, ticket) = Checks::under_way();
    let with_checks = std::mem::replace(&mut world.settings, BreakerConfig::default().resolve().unwrap());
    assert_eq!(world.end(&ticket, Ok(())), CheckVerdict::Late);

    world.settings = with_checks;
    world.exchange(true, 7);
    assert!(world.begin().is_some());
}

#[test]
fn no_leader_where_nothing_is_checked() {
    let mut world = Checks::new(false);
    assert_eq!(world.exchange(true, 7), None, "closed");
    world.enter(State::Open);
    assert!(world.exchange(true, 7).unwrap().want);
    for state in [State::Closed, State::ForcedOpen, State::Disabled, State::MetricsOnly, State::HalfOpen] {
        world.enter(State::Open);
        world.exchange(true, 7);
        world.enter(state);
        assert!(
            world.with(|health, context| health.want_exchange(context)),
            "{state}: it is given up at once"
        );
        assert!(!world.exchange(true, 7).unwrap().want);
        assert_eq!(world.exchange(true, 7), None, "{state}: and that is all");
    }
}

#[test]
fn failed_idle_check_opens() {
    let mut world = Checks::new(true);
    world.exchange(true, 7);
    assert!(world.begin().is_none());
    world.advance(IDLE);
    world.exchange(true, 7);
    let ticket = world.begin().unwrap();
    assert_eq!(world.end(&ticket, Ok(())), CheckVerdict::Stay);
    assert!(world.begin().is_none());

    world.advance(IDLE);
    world.exchange(true, 7);
    let ticket = world.begin().unwrap();
    let reason = "health check failed: down".to_owned();
    assert_eq!(
        world.end(&ticket, Err("down")),
        CheckVerdict::Open { reason, token: Some(7), unconfirmed: false }
    );
}

#[test]
fn idle_leader_renews_and_others_request() {
    let mut world = Checks::new(true);
    let mut asked = |mine| {
        world.exchange(mine, 7);
        let mut waited = Duration::ZERO;
        while !world.with(|health, context| health.want_exchange(context)) {
            world.advance(STEP);
            waited += STEP;
        }
        waited
    };
    assert_eq!((asked(true), asked(false)), (RENEWAL, REQUEST));
}

/// The time from a leader's third failed check in a row to the next one. Nobody else requests the lease.
fn pause_of_a_single_instance(is_shared: bool) -> Duration {
    let mut world = Checks::open();
    world.is_shared = is_shared;
    world.settings.health.as_mut().unwrap().interval = SHORT;
    world.settings.backoff = Backoff::constant();
    let mut failed_at = Vec::new();
    while failed_at.len() <= MAX_FAILURES as usize {
        if world.with(|health, context| health.want_exchange(context)) {
            world.exchange(true, 7);
        }
        if let Some(ticket) = world.begin() {
            assert_eq!(world.end(&ticket, Err("down")), CheckVerdict::Stay);
            failed_at.push(world.now);
        }
        world.advance(STEP);
    }
    failed_at[MAX_FAILURES as usize].since(failed_at[MAX_FAILURES as usize - 1])
}

#[test]
fn leader_of_a_store_that_no_other_instance_has_does_not_step_down() {
    assert_eq!(pause_of_a_single_instance(false), SHORT);
}

#[test]
fn leader_that_nobody_replaces_leads_again_as_soon_as_that_can_be_told() {
    let pause = pause_of_a_single_instance(true);
    assert!(pause <= TAKEOVER + 10 * STEP, "{pause:?}");
}

#[test]
fn reason_names_the_failures_before() {
    for (failures, expected) in [(0, ""), (1, " after 1 failure"), (2, " after 2 failures")] {
        let mut world = Checks::open();
        world.spans_between_failing_checks(failures);
        world.advance(3 * INTERVAL);
        world.exchange(true, 7);
        let ticket = world.begin().unwrap();
        let reason = format!("health check passed{expected}");
        assert_eq!(world.end(&ticket, Ok(())), CheckVerdict::Close { reason, token: Some(7) });
    }
}

#[test]
fn without_the_store_each_instance_checks_for_itself() {
    let mut world = Checks::open();
    world.alone = true;
    world.health.store_lost();
    assert!(world.begin().is_none());
    world.advance(INTERVAL);
    let ticket = world.begin().unwrap();
    assert!(matches!(world.end(&ticket, Ok(())), CheckVerdict::Close { token: None, .. }));

    // What was found out alone is nothing to tell the fleet.
    let mut world = Checks::open();
    world.alone = true;
    assert!(world.begin().is_none());
    world.advance(INTERVAL);
    let ticket = world.begin().unwrap();
    world.alone = false;
    world.exchange(true, 7);
    assert_eq!(world.end(&ticket, Ok(())), CheckVerdict::Late);
}

#[test]
fn short_loss_of_the_store_causes_no_check() {
    let mut world = Checks::open();
    world.exchange(false, 7);
    world.advance(3 * INTERVAL);
    assert!(world.begin().is_none(), "another one has the role");
    for _ in 0..3 {
        world.alone = true;
        world.health.store_lost();
        assert!(world.begin().is_none());
        world.advance(INTERVAL.saturating_sub(STEP));
        assert!(world.begin().is_none());
        world.alone = false;
        world.exchange(false, 7);
        assert!(world.begin().is_none());
    }
}

#[test]
fn unfinished_checks_are_bounded_and_the_next_one_fails() {
    let mut world = Checks::open();
    world.alone = true;
    world.begin();
    for _ in 0..MAX_UNFINISHED {
        world.advance(3 * INTERVAL);
        let ticket = world.begin().unwrap();
        assert!(!ticket.blocked);
        world.end(&ticket, Err("no result"));
        world.unfinished += 1;
    }
    world.advance(3 * INTERVAL);
    let ticket = world.begin().unwrap();
    assert!(ticket.blocked);
    world.end(&ticket, Err("blocked"));
    world.unfinished -= 1;
    world.advance(3 * INTERVAL);
    assert!(!world.begin().unwrap().blocked);
}

#[test]
fn shutdown_ends_checks_and_gives_the_lease_up() {
    let (mut world, ticket) = Checks::under_way();
    world.health.shut_down();
    assert_eq!(world.end(&ticket, Ok(())), CheckVerdict::Late);
    assert!(world.with(|health, context| health.want_exchange(context)));
    assert!(!world.exchange(true, 7).unwrap().want);
    world.advance(INTERVAL);
    world.alone = true;
    assert!(world.begin().is_none());
}

#[test]
fn check_timeout_is_the_interval_within_bounds() {
    let timeout = |interval| {
        let config = BreakerConfig::default().health_check(async || ()).health_check_interval(interval);
        config.resolve().unwrap().health.unwrap().timeout()
    };
    assert_eq!(timeout(Duration::from_millis(10)), Duration::from_millis(100));
    assert_eq!(timeout(Duration::from_secs(3)), Duration::from_secs(3));
    assert_eq!(timeout(Duration::from_secs(60)), Duration::from_secs(10));
}

#[derive(Clone, Debug)]
enum Operation {
    Advance(u16),
    Enter(State),
    Alone(bool),
    Exchange(bool),
    Begin,
    End(usize, bool),
}

fn step() -> impl Strategy<Value = Operation> {
    prop_oneof![
        (0..3000u16).prop_map(Operation::Advance),
        proptest::sample::select(&State::ALL[..]).prop_map(Operation::Enter),
        any::<bool>().prop_map(Operation::Alone),
        proptest::bool::weighted(0.8).prop_map(Operation::Exchange),
        Just(Operation::Begin),
        Just(Operation::Begin),
        (0..8usize, any::<bool>()).prop_map(|(back, passed)| Operation::End(back, passed)),
    ]
}

proptest! {
    #[test]
    fn only_a_current_result_of_the_leader_changes_the_state(
        idle in any::<bool>(),
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        let mut world = Checks::new(idle);
        // The role as it was answered last: its token, and when it was asked for.
        let mut role: Option<(u64, Moment)> = None;
        let mut token = 0;
        let mut tickets: Vec<(CheckTicket, u64)> = Vec::new();
        for step in steps {
            match step {
                Operation::Advance(millis) => world.advance(u32::from(millis) * STEP),
                Operation::Enter(state) => world.enter(state),
                Operation::Alone(alone) => {
                    world.alone = alone;
                    if alone {
                        world.health.store_lost();
                        role = None;
                    }
                }
                Operation::Exchange(_) if world.alone => {}
                Operation::Exchange(mine) => {
                    token += u64::from(role.is_none_or(|(_, asked)| world.now >= asked.after(TERM)));
                    let asked = world.exchange(mine, token);
                    role = (mine && asked.is_some_and(|ask| ask.want)).then_some((token, world.now));
                }
                Operation::Begin => {
                    let Some(ticket) = world.begin() else { continue };
                    let in_charge = role.is_some_and(|(_, asked)| world.now < asked.after(TERM));
                    prop_assert!(world.alone || in_charge);
                    prop_assert!(matches!(world.record.state(), State::Open | State::Closed));
                    prop_assert!(world.record.until().is_none_or(|until| until <= world.now));
                    tickets.push((ticket, world.generation));
                }
                Operation::End(back, passed) => {
                    if back >= tickets.len() {
                        continue;
                    }
                    let (ticket, generation) = tickets.remove(tickets.len() - 1 - back);
                    let result = if passed { Ok(()) } else { Err("down") };
                    let verdict = world.end(&ticket, result);
                    let (token, to) = match verdict {
                        CheckVerdict::Late | CheckVerdict::Stay => continue,
                        CheckVerdict::Close { token, .. } => (token, State::Closed),
                        CheckVerdict::Open { token, .. } => (token, State::Open),
                    };
                    prop_assert_eq!(generation, world.generation);
                    prop_assert_eq!(passed, to == State::Closed);
                    prop_assert!(world.record.state() != to);
                    match token {
                        None => prop_assert!(world.alone),
                        Some(token) => prop_assert!(
                            role.is_some_and(|(now, asked)| now == token && world.now < asked.after(TERM))
                        ),
                    }
                    world.enter(to);
                }
            }
        }
        // From any state: an open circuit whose dependency works is closed by the next leader.
        world.alone = false;
        world.enter(State::Open);
        tickets.clear();
        world.advance(3 * INTERVAL);
        world.exchange(true, u64::MAX);
        let ticket = world.begin().expect("a check is due");
        let verdict = world.end(&ticket, Ok(()));
        let closes = matches!(verdict, CheckVerdict::Close { .. });
        prop_assert!(closes, "{verdict:?}");
    }
}
