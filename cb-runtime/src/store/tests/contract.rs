//! The contract, as tests: every rule is run against the memory store and against a real Redis.
//!
//! Both stores run on a clock that is moved by hand. For Redis that means that its scripts read this
//! clock in place of TIME, and nothing else is different; what TIME itself does is tested beside
//! the Redis store.

mod counts;
mod failing;
mod last;
mod leases;
#[cfg(feature = "redis")]
mod random;
mod reports;
mod roles;
mod settings;
mod stream;
mod transitions;
mod windows;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, ManualClock};
use crate::snapshot::State;
use crate::store::memory::MemoryStore;
use crate::store::{
    Answer, Batch, Counts, Delta, Entry, FleetRow, LeaseId, LeaseRequest, Overview, Position, Proposal,
    Record, Store, Streak, StreamEvent, View,
};

/// One store under test.
struct Bench<'a> {
    store: Arc<dyn Store>,
    overview: Arc<dyn Overview>,
    hands: ManualClock,
    lose_everything: Box<dyn Fn() + Send + Sync + 'a>,
}

impl Bench<'_> {
    fn memory() -> Bench<'static> {
        let (clock, hands) = Clock::manual();
        let store = Arc::new(MemoryStore::new(clock));
        let same = store.clone();
        Bench {
            store: store.clone(),
            overview: store,
            hands,
            lose_everything: Box::new(move || same.forget_everything()),
        }
    }

    #[cfg(feature = "redis")]
    fn redis<'a>(server: &'a cb_testkit::RedisServer, namespace: &str) -> Bench<'a> {
        let target = crate::store::redis::Target::Single(server.unix_url());
        Bench::remote(target, namespace, || drop(server.cli(&["FLUSHALL"])))
    }

    #[cfg(feature = "cluster")]
    fn cluster<'a>(cluster: &'a cb_testkit::RedisCluster, namespace: &str) -> Bench<'a> {
        let target = crate::store::redis::Target::Cluster(cluster.urls());
        Bench::remote(target, namespace, || {
            for node in cluster.nodes() {
                node.cli(&["FLUSHALL"]);
            }
        })
    }

    #[cfg(feature = "redis")]
    fn remote<'a>(
        target: crate::store::redis::Target,
        namespace: &str,
        lose_everything: impl Fn() + Send + Sync + 'a,
    ) -> Bench<'a> {
        let (clock, hands) = Clock::manual();
        let store = Arc::new(crate::store::redis::RedisStore::on_clock(target, namespace, clock));
        Bench { store: store.clone(), overview: store, hands, lose_everything: Box::new(lose_everything) }
    }

    fn instance<'a>(&'a self, name: &str) -> StoreClient<'a> {
        StoreClient { bench: self, name: name.into(), seq: 0 }
    }

    async fn fleet(&self) -> Vec<FleetRow> {
        super::fleet(&*self.overview).await
    }

    fn pass(&self, span: Duration) {
        self.hands.advance(span);
    }

    /// The whole stream, however often the store has been emptied.
    async fn events(&self) -> Vec<StreamEvent> {
        self.watch(Position::default(), Duration::ZERO).await
    }

    async fn watch(&self, from: Position, patience: Duration) -> Vec<StreamEvent> {
        self.store.watch(from, String::new(), patience).await.unwrap().events
    }
}

/// Speaks to the store as one instance does, with ever higher numbers.
struct StoreClient<'a> {
    bench: &'a Bench<'a>,
    name: Arc<str>,
    seq: u64,
}

impl StoreClient<'_> {
    fn batch(&mut self, entries: Vec<Entry>) -> Batch {
        self.seq += 1;
        Batch { instance: self.name.clone(), seq: self.seq, entries, ..Batch::default() }
    }

    async fn exchange(&mut self, entries: Vec<Entry>) -> Answer {
        let batch = self.batch(entries);
        self.bench.store.exchange(batch).await.unwrap()
    }

    async fn say(&mut self, entry: Entry) -> View {
        let mut views = self.exchange(vec![entry]).await.views;
        assert_eq!(views.len(), 1);
        views.remove(0).unwrap()
    }

    async fn ask(&mut self, name: &str) -> View {
        self.say(about(name)).await
    }

    /// Sets a state by an override, from any state.
    async fn force(&mut self, name: &str, to: State, reason: &str) -> View {
        self.say(Entry { proposal: Some(forced(to, reason)), ..about(name) }).await
    }
}

const SECOND: u64 = 1_000_000;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn about(name: &str) -> Entry {
    Entry { name: name.into(), ..Entry::default() }
}

fn counts(successes: u64, failures: u64) -> Counts {
    Counts { successes, failures, slow: 0 }
}

fn delta(successes: u64, failures: u64) -> Delta {
    Delta { counts: counts(successes, failures), ..Delta::default() }
}

fn streak(success_age_us: Option<u64>, failures: &[(u64, u64)]) -> Delta {
    Delta { streak: Streak { success: success_age_us, failures: failures.to_vec() }, ..Delta::default() }
}

fn proposal(to: State) -> Proposal {
    let to = Record {
        state: to,
        reason: "test".into(),
        remaining_us: (to == State::Open).then_some(30 * SECOND),
        reset_timeout_us: 30 * SECOND,
        attempt: 1,
        ..Record::closed()
    };
    Proposal { to, force: false, token: None, evidence: counts(6, 4) }
}

fn forced(to: State, reason: &str) -> Proposal {
    let proposal = proposal(to);
    Proposal { force: true, to: Record { reason: reason.into(), ..proposal.to }, ..proposal }
}

/// A manual override by `actor`.
fn forced_by(actor: &str, to: State, reason: &str) -> Proposal {
    let proposal = forced(to, reason);
    Proposal { to: Record { actor: actor.into(), ..proposal.to }, ..proposal }
}

/// A manual override with these spans.
fn forced_for(remaining_us: Option<u64>, reset_timeout_us: u64, to: State, reason: &str) -> Proposal {
    let proposal = forced(to, reason);
    Proposal { to: Record { remaining_us, reset_timeout_us, ..proposal.to }, ..proposal }
}

/// An entry of one who knows `record` and proposes.
fn propose(name: &str, record: &Record, proposal: Proposal) -> Entry {
    Entry { known: Some(record.clone()), proposal: Some(proposal), ..about(name) }
}

fn want(ids: &[LeaseId], limit: u32) -> LeaseRequest {
    LeaseRequest { want: ids.to_vec(), limit, term_us: 10 * SECOND, ..LeaseRequest::default() }
}

/// Instantiates each rule for both stores.
macro_rules! rules {
    ($($rule:ident)*) => {
        mod memory {
            $(#[tokio::test] async fn $rule() { super::$rule(&crate::store::tests::contract::Bench::memory()).await; })*
        }
        #[cfg(feature = "redis")]
        mod redis {
            $(#[tokio::test] async fn $rule() {
                let server = cb_testkit::RedisServer::start();
                super::$rule(&crate::store::tests::contract::Bench::redis(&server, "contract")).await;
            })*
        }
        /// Each in a namespace, and so mostly in a slot, of its own.
        #[cfg(feature = "cluster")]
        #[tokio::test]
        async fn all_rules_hold_in_a_cluster() {
            let cluster = cb_testkit::RedisCluster::start(3);
            $($rule(&crate::store::tests::contract::Bench::cluster(&cluster, stringify!($rule))).await;)*
        }
    };
}
use rules;
