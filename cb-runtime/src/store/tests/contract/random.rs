//! Both stores are driven with the same random operations, and every answer is compared.
//!
//! Their clocks are moved by the same steps, so the answers are compared to the microsecond. Only
//! what each store makes up for itself may differ: the ids of events and the names of incarnations, and
//! of the latter it is compared when they change.

use std::collections::HashMap;
use std::time::Duration;

use cb_testkit::RedisServer;
use proptest::prelude::*;
use proptest::sample::select;

use super::{Bench, Entry, SECOND};
use crate::clock::MANUAL_START;
use crate::snapshot::State;
use crate::store::{
    Answer, Batch, CountWindowRequest, Counts, Delta, LeaderRequest, LeaseRequest, OutcomeKind, Position,
    Proposal, Record, Report, Reported, Streak, StreamEvent, View, WindowRequest,
};

const INSTANCES: [&str; 3] = ["a", "b {odd}", "c/1"];
/// The second and the third run on one node.
const NODES: [&str; 3] = ["", "b {odd}", "b {odd}"];
const BREAKERS: [&str; 3] = ["x", "y: {odd} %", "z\u{0}"];

#[derive(Clone, Debug)]
enum Step {
    Exchange { instance: usize, seq: Seq, as_of: Option<i64>, entries: Vec<EntryPlan> },
    Report { instance: usize, seq: Seq, as_of: Option<i64>, entries: Vec<ReportPlan> },
    Pass(u64),
    Load,
    Fleet,
    LoseEverything,
}

#[derive(Clone, Copy, Debug)]
enum Seq {
    Next,
    Again,
    BeforeLast,
}

/// An entry, as far as it does not depend on what has been answered before.
#[derive(Clone, Debug)]
struct EntryPlan {
    breaker: usize,
    known: Known,
    /// The proposal is made under this: the latest token, or one beside it.
    token: Option<i64>,
    entry: Entry,
}

/// A reported entry, and how many epochs beside the newest one it is.
type ReportPlan = (usize, i64, Reported);

#[derive(Clone, Debug)]
enum Known {
    Nothing,
    /// What this instance has received last.
    Last,
    /// What any instance has received last: often the store's state.
    Newest,
    /// One epoch behind that, or several ahead, in another state.
    Other {
        ahead: u64,
        record: Record,
    },
}

fn state() -> impl Strategy<Value = State> {
    // The states that a breaker goes through by itself more often than those set by hand.
    select(vec![
        State::Closed,
        State::Closed,
        State::Open,
        State::Open,
        State::HalfOpen,
        State::HalfOpen,
        State::HalfOpen,
        State::ForcedOpen,
        State::Disabled,
        State::MetricsOnly,
    ])
}

fn span() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), 0..3 * SECOND, 0..30 * SECOND, Just(SECOND), Just(10 * SECOND)]
}

fn counts() -> impl Strategy<Value = Counts> {
    let few = || prop_oneof![3 => 0..4_u64, 1 => Just(1 << 40)];
    (few(), few(), few()).prop_map(|(successes, failures, slow)| Counts { successes, failures, slow })
}

fn delta() -> impl Strategy<Value = Delta> {
    let failures = prop::collection::vec((span(), 0..5_u64), 0..5);
    let many = prop::collection::vec((span(), 1..3_u64), 60..70);
    let streak = (prop::option::weighted(0.3, span()), prop_oneof![9 => failures, 1 => many])
        .prop_map(|(success_age_us, failures)| Streak { success: success_age_us, failures });
    let buckets = prop::collection::vec((span(), counts()), 0..4);
    let kind = (any::<bool>(), any::<bool>()).prop_map(|(failed, slow)| OutcomeKind { failed, slow });
    let calls = prop::collection::vec((kind, prop_oneof![9 => 0..6_u64, 1 => Just(1 << 52)]), 0..5);
    (counts(), streak, buckets, calls).prop_map(|(counts, streak, buckets, calls)| Delta {
        counts,
        streak,
        buckets,
        calls: calls.into_iter().collect(),
    })
}

fn last() -> impl Strategy<Value = CountWindowRequest> {
    let since = prop_oneof![2 => Just(0), 4 => 0..40_u64, 1 => Just(u64::MAX)];
    (select(vec![1, 7, 7, 7, 30, 0]), since).prop_map(|(calls, since)| CountWindowRequest { calls, since })
}

fn role() -> impl Strategy<Value = LeaderRequest> {
    (prop::bool::weighted(0.8), span()).prop_map(|(want, term_us)| LeaderRequest { want, term_us })
}

fn window() -> impl Strategy<Value = WindowRequest> {
    let shape = select(vec![(10 * SECOND, SECOND), (64 * SECOND, SECOND), (SECOND * 7 / 2, SECOND), (3, 0)]);
    let start = MANUAL_START / SECOND;
    let since = prop_oneof![Just(0), start - 10..start + 100, Just(u64::MAX)];
    (shape, since).prop_map(|((length_us, width_us), since)| WindowRequest { length_us, width_us, since })
}

fn proposal() -> impl Strategy<Value = Proposal> {
    let times = (prop::option::of(span()), span(), 0..4_u32);
    let words = (select(vec!["one", "another ß"]), select(vec!["", "", "alice |5|"]));
    (state(), words, times, any::<bool>(), counts()).prop_map(
        |(state, (reason, actor), (remaining_us, reset_timeout_us, attempt), force, evidence)| {
            let (reason, actor) = (reason.into(), actor.into());
            let to =
                Record { state, reason, actor, remaining_us, reset_timeout_us, attempt, ..Record::closed() };
            Proposal { to, force, token: None, evidence }
        },
    )
}

fn leases() -> impl Strategy<Value = LeaseRequest> {
    let ids = || prop::collection::vec(1..6_u64, 0..4);
    (ids(), ids(), ids(), 0..5_u32, span()).prop_map(|(release, renew, want, limit, term_us)| LeaseRequest {
        release,
        renew,
        want,
        limit,
        term_us,
    })
}

fn record() -> impl Strategy<Value = Record> {
    let times = (prop::option::of(span()), span(), span());
    (state(), times, 0..4_u32).prop_map(|(state, (remaining_us, since_us, reset_timeout_us), attempt)| {
        Record {
            epoch: 0,
            state,
            reason: "told".into(),
            originator: "somebody".into(),
            actor: if attempt == 1 { "bob".into() } else { String::new() },
            remaining_us,
            since_us,
            reset_timeout_us,
            attempt,
        }
    })
}

fn plan() -> impl Strategy<Value = EntryPlan> {
    let known = prop_oneof![
        2 => Just(Known::Nothing),
        3 => Just(Known::Last),
        5 => Just(Known::Newest),
        1 => (0..4_u64, record()).prop_map(|(ahead, record)| Known::Other { ahead, record }),
    ];
    let asks = (
        prop::option::of(window()),
        prop::option::of(last()),
        prop::option::weighted(0.4, proposal()),
        prop_oneof![Just(LeaseRequest::default()), leases()],
        prop::option::of(role()),
        select(vec!["", "limit 3", "limit 5 ß", "limit 7"]),
        (prop::bool::weighted(0.7), 0..4_usize),
    );
    let token = prop::option::weighted(0.3, prop_oneof![5 => Just(0), 1 => -1..=1_i64]);
    let delta = prop_oneof![1 => Just(Delta::default()), 3 => delta()];
    // Most entries of a fleet have only counts.
    let only_counts = prop::bool::ANY;
    (0..BREAKERS.len(), known, token, delta, asks, only_counts).prop_map(
        |(
            breaker,
            known,
            token,
            delta,
            (window, last, proposal, leases, role, settings, (failing, streak_pairs)),
            only_counts,
        )| {
            let (name, settings) = (BREAKERS[breaker].into(), settings.into());
            let entry = Entry {
                name,
                known: None,
                delta,
                streak_pairs,
                window,
                failing,
                leaves: failing && token.is_some(),
                last,
                proposal,
                leases,
                notice: streak_pairs == 1,
                role,
                settings,
            };
            let entry = if only_counts {
                let Entry { name, delta, streak_pairs, window, settings, .. } = entry;
                Entry { name, delta, streak_pairs, window, settings, ..Entry::default() }
            } else {
                entry
            };
            EntryPlan { breaker, known, token, entry }
        },
    )
}

fn reported() -> impl Strategy<Value = ReportPlan> {
    let ages = (prop::option::of(span()), prop::option::of(span()));
    let buckets = prop::collection::vec((span(), counts()), 0..4);
    // A window that cannot be is refused by those who ask for it.
    let window = prop::option::of(window().prop_filter("it can be", |ask| ask.width_us > 0));
    let beside = prop_oneof![8 => Just(0), 1 => -1..=1_i64];
    (0..BREAKERS.len(), beside, counts(), ages, window, buckets).prop_map(
        |(breaker, beside, counts, (success_age_us, failure_age_us), window, buckets)| {
            let name = BREAKERS[breaker].into();
            let by_streak = failure_age_us.is_none();
            let entry = Reported {
                name,
                epoch: 0,
                counts,
                success_age_us,
                failure_age_us,
                by_streak,
                window,
                buckets,
            };
            (breaker, beside, entry)
        },
    )
}

fn one_of_each_breaker<Plan>(mut plans: Vec<Plan>, breaker: impl Fn(&Plan) -> usize) -> Vec<Plan> {
    plans.sort_by_key(&breaker);
    plans.dedup_by_key(|plan| breaker(plan));
    plans
}

fn step() -> impl Strategy<Value = Step> {
    let seq = prop_oneof![8 => Just(Seq::Next), 1 => Just(Seq::Again), 1 => Just(Seq::BeforeLast)];
    let second = SECOND.cast_signed();
    let as_of = prop::option::of(prop_oneof![-second - 1..=1, Just(-second), Just(0)]);
    let entries =
        prop::collection::vec(plan(), 0..4).prop_map(|plans| one_of_each_breaker(plans, |plan| plan.breaker));
    let exchange = (0..INSTANCES.len(), seq, as_of, entries)
        .prop_map(|(instance, seq, as_of, entries)| Step::Exchange { instance, seq, as_of, entries });
    let seq = prop_oneof![8 => Just(Seq::Next), 1 => Just(Seq::Again), 1 => Just(Seq::BeforeLast)];
    let as_of = prop::option::of(prop_oneof![-second - 1..=1, Just(0)]);
    let report = (
        0..INSTANCES.len(),
        seq,
        as_of,
        prop::collection::vec(reported(), 0..4).prop_map(|plans| one_of_each_breaker(plans, |plan| plan.0)),
    )
        .prop_map(|(instance, seq, as_of, entries)| Step::Report { instance, seq, as_of, entries });
    prop_oneof![
        20 => exchange,
        10 => report,
        // All steps of a case stay below ten minutes: what is forgotten after longer is not compared here.
        8 => prop_oneof![1..SECOND, Just(SECOND), SECOND..10 * SECOND].prop_map(Step::Pass),
        1 => Just(Step::Load),
        1 => Just(Step::Fleet),
        1 => Just(Step::LoseEverything),
    ]
}

/// What the instances remember, and what has been seen of the two streams.
#[derive(Default)]
struct Memory {
    seqs: [u64; INSTANCES.len()],
    last: HashMap<(usize, usize), Record>,
    newest: [Option<Record>; BREAKERS.len()],
    tokens: [u64; BREAKERS.len()],
    /// The memory store's incarnations, and what Redis calls them.
    incarnations: HashMap<String, String>,
}

impl Memory {
    fn seq(&mut self, instance: usize, seq: Seq) -> u64 {
        match seq {
            Seq::Next => {
                self.seqs[instance] += 1;
                self.seqs[instance]
            }
            Seq::Again => self.seqs[instance],
            Seq::BeforeLast => self.seqs[instance].saturating_sub(1),
        }
    }

    fn report(
        &mut self,
        now: u64,
        instance: usize,
        seq: Seq,
        as_of: Option<i64>,
        plans: &[ReportPlan],
    ) -> Report {
        let entry = |(breaker, beside, entry): &ReportPlan| {
            let newest = self.newest[*breaker].as_ref().map_or(0, |newest| newest.epoch);
            Reported { epoch: newest.saturating_add_signed(*beside), ..entry.clone() }
        };
        let entries = plans.iter().map(entry).collect();
        let seq = self.seq(instance, seq);
        let as_of_us = as_of.and_then(|offset| now.checked_add_signed(offset));
        Report { instance: INSTANCES[instance].into(), seq, as_of_us, entries }
    }

    fn batch(
        &mut self,
        now: u64,
        instance: usize,
        seq: Seq,
        as_of: Option<i64>,
        plans: &[EntryPlan],
    ) -> Batch {
        let seq = self.seq(instance, seq);
        let known = |plan: &EntryPlan| {
            let newest = self.newest[plan.breaker].clone();
            match &plan.known {
                Known::Nothing => None,
                Known::Last => self.last.get(&(instance, plan.breaker)).cloned(),
                Known::Newest => newest,
                Known::Other { ahead, record } => {
                    let epoch = (newest.map_or(0, |newest| newest.epoch) + ahead).saturating_sub(1);
                    Some(Record { epoch, ..record.clone() })
                }
            }
        };
        let proposal = |plan: &EntryPlan| {
            let token = plan.token.map(|beside| self.tokens[plan.breaker].saturating_add_signed(beside));
            plan.entry.proposal.clone().map(|proposal| Proposal { token, ..proposal })
        };
        let entries = plans.iter().map(|plan| Entry {
            known: known(plan),
            proposal: proposal(plan),
            ..plan.entry.clone()
        });
        Batch {
            instance: INSTANCES[instance].into(),
            node: NODES[instance].into(),
            seq,
            as_of_us: as_of.and_then(|offset| now.checked_add_signed(offset)),
            entries: entries.collect(),
        }
    }

    fn learn(&mut self, instance: usize, plans: &[EntryPlan], views: &[Result<View, String>]) {
        for (plan, view) in plans.iter().zip(views) {
            if let Ok(view) = view {
                self.last.insert((instance, plan.breaker), view.record.clone());
                self.newest[plan.breaker] = Some(view.record.clone());
                if let Some(role) = view.role {
                    self.tokens[plan.breaker] = role.token;
                }
            }
        }
    }

    fn compare_positions(&mut self, memory: &Position, redis: &Position) {
        assert_eq!(memory.number, redis.number);
        assert_eq!(memory.id == "0-0", redis.id == "0-0");
        let same = self.incarnations.entry(memory.incarnation.clone()).or_insert(redis.incarnation.clone());
        assert_eq!(same, &redis.incarnation, "both streams begin anew at the same time");
    }

    fn compare_events(&mut self, memory: &[StreamEvent], redis: &[StreamEvent]) {
        assert_eq!(memory.len(), redis.len());
        for (memory, redis) in memory.iter().zip(redis) {
            self.compare_positions(&memory.position, &redis.position);
        }
        // The entries of a batch are of different breakers, so a store may handle them in any order.
        let in_one_order = |events: &[StreamEvent]| {
            let unplaced =
                |event: &StreamEvent| StreamEvent { position: Position::default(), ..event.clone() };
            let mut events: Vec<_> = events.iter().map(unplaced).collect();
            events.sort_by_key(|event| (event.at_us, event.name.clone()));
            events
        };
        assert_eq!(in_one_order(memory), in_one_order(redis));
    }
}

/// What an entry's error says is each store's own.
fn without_words(views: &[Result<View, String>]) -> Vec<Option<&View>> {
    views.iter().map(|view| view.as_ref().ok()).collect()
}

async fn drive(memory: &Bench<'_>, redis: &Bench<'_>, steps: &[Step]) {
    let mut known = Memory::default();
    let mut passed = 0;
    let start = memory.store.load().await.unwrap().now_us;
    for step in steps {
        match step {
            Step::Exchange { instance, seq, as_of, entries } => {
                let batch = known.batch(start + passed, *instance, *seq, *as_of, entries);
                let ours: Answer = memory.store.exchange(batch.clone()).await.unwrap();
                let theirs: Answer = redis.store.exchange(batch).await.unwrap();
                assert_eq!(ours.now_us, theirs.now_us);
                assert_eq!(without_words(&ours.views), without_words(&theirs.views));
                assert_eq!((&ours.warnings, &theirs.warnings), (&vec![], &vec![]));
                known.compare_positions(&ours.position, &theirs.position);
                known.learn(*instance, entries, &ours.views);
            }
            Step::Report { instance, seq, as_of, entries } => {
                let report = known.report(start + passed, *instance, *seq, *as_of, entries);
                let ours = memory.store.report(report.clone()).await.unwrap();
                let theirs = redis.store.report(report).await.unwrap();
                assert_eq!((ours.now_us, &ours.exchange), (theirs.now_us, &theirs.exchange));
                assert_eq!((&ours.warnings, &theirs.warnings), (&vec![], &vec![]));
                known.compare_positions(&ours.position, &theirs.position);
            }
            Step::Pass(span) => {
                passed += span;
                memory.pass(Duration::from_micros(*span));
                redis.pass(Duration::from_micros(*span));
            }
            Step::Load => {
                let (ours, theirs) = (memory.store.load().await.unwrap(), redis.store.load().await.unwrap());
                assert_eq!((ours.now_us, &ours.held), (theirs.now_us, &theirs.held));
                known.compare_positions(&ours.position, &theirs.position);
            }
            Step::Fleet => {
                assert_eq!(memory.fleet().await, redis.fleet().await);
            }
            Step::LoseEverything => {
                (memory.lose_everything)();
                (redis.lose_everything)();
            }
        }
    }
    known.compare_events(&memory.events().await, &redis.events().await);
    assert_eq!(memory.fleet().await, redis.fleet().await);
    assert_eq!(memory.store.load().await.unwrap().held, redis.store.load().await.unwrap().held);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn both_stores_give_the_same_answers(steps in prop::collection::vec(step(), 1..50)) {
        thread_local!(static SERVER: RedisServer = RedisServer::start());
        SERVER.with(|server| {
            server.cli(&["FLUSHALL"]);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(drive(&Bench::memory(), &Bench::redis(server, "random {}"), &steps));
        });
    }
}
