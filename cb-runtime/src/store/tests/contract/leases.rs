//! Leases of probes.

use std::time::Duration;

use super::{Bench, Entry, SECOND, about, proposal, propose, rules, seconds, want};
use crate::snapshot::State;
use crate::store::{LeaseId, LeaseRequest, View};

rules! {
    leases_never_exceed_the_limit_fleet_wide
    only_a_half_open_state_has_leases
    returned_lease_is_free_again
    lease_is_returned_only_by_its_holder
    expired_lease_is_not_revived
    renewed_lease_stays
    repeated_request_grants_the_held_lease
    leases_are_granted_with_the_transition_to_half_open
    transition_ends_all_leases
    lease_ids_of_instances_do_not_collide
}

const NONE: [LeaseId; 0] = [];

async fn half_open(bench: &Bench<'_>) {
    bench.instance("maker").force("x", State::HalfOpen, "test").await;
}

async fn ask(bench: &Bench<'_>, instance: &str, leases: LeaseRequest) -> View {
    bench.instance(instance).say(Entry { leases, ..about("x") }).await
}

async fn granted(bench: &Bench<'_>, instance: &str, ids: &[LeaseId], limit: u32) -> Vec<LeaseId> {
    ask(bench, instance, want(ids, limit)).await.granted
}

async fn leases_never_exceed_the_limit_fleet_wide(bench: &Bench<'_>) {
    half_open(bench).await;
    let view = ask(bench, "a", want(&[1, 2], 3)).await;
    assert_eq!((view.granted, view.lease_wait_us), (vec![1, 2], None));
    bench.pass(seconds(1));
    let view = ask(bench, "b", want(&[7, 8, 9], 3)).await;
    assert_eq!((view.granted, view.lease_wait_us), (vec![7], Some(9 * SECOND)));
    let view = ask(bench, "c", want(&[1], 3)).await;
    assert_eq!((view.granted, view.lease_wait_us), (vec![], Some(9 * SECOND)));
    assert_eq!(granted(bench, "c", &[1], 4).await, [1], "each deploy has its own limit");
    assert_eq!(granted(bench, "c", &[2], 0).await, NONE);
}

async fn only_a_half_open_state_has_leases(bench: &Bench<'_>) {
    for state in State::ALL {
        let mut a = bench.instance(state.as_str());
        a.force(state.as_str(), state, "test").await;
        let view = a.say(Entry { leases: want(&[1], 3), ..about(state.as_str()) }).await;
        assert_eq!(view.granted.len(), usize::from(state == State::HalfOpen), "{state}");
        assert_eq!(view.lease_wait_us, None, "{state}");
    }
}

async fn returned_lease_is_free_again(bench: &Bench<'_>) {
    half_open(bench).await;
    assert_eq!(granted(bench, "a", &[1, 2], 2).await, [1, 2]);
    assert_eq!(granted(bench, "b", &[1], 2).await, NONE);
    let view = ask(bench, "a", LeaseRequest { release: vec![2, 77], ..want(&[3], 2) }).await;
    assert_eq!(view.granted, [3], "a return and a request fit one exchange");
    ask(bench, "a", LeaseRequest { release: vec![1, 2], ..LeaseRequest::default() }).await;
    assert_eq!(granted(bench, "b", &[1, 2], 2).await, [1]);
}

async fn lease_is_returned_only_by_its_holder(bench: &Bench<'_>) {
    half_open(bench).await;
    assert_eq!(granted(bench, "a", &[1], 1).await, [1]);
    ask(bench, "b", LeaseRequest { release: vec![1], ..LeaseRequest::default() }).await;
    assert_eq!(granted(bench, "b", &[1], 1).await, NONE);
}

async fn expired_lease_is_not_revived(bench: &Bench<'_>) {
    half_open(bench).await;
    assert_eq!(granted(bench, "a", &[1], 1).await, [1]);
    bench.pass(Duration::from_micros(10 * SECOND - 1));
    assert_eq!(ask(bench, "b", want(&[1], 1)).await.lease_wait_us, Some(1));
    bench.pass(Duration::from_micros(1));
    let renewing = || LeaseRequest { renew: vec![1], term_us: 10 * SECOND, ..LeaseRequest::default() };
    ask(bench, "a", renewing()).await;
    assert_eq!(granted(bench, "b", &[2], 1).await, [2]);
    // A late return or renewal does not affect the new holder.
    ask(bench, "a", LeaseRequest { release: vec![1], ..renewing() }).await;
    assert_eq!(granted(bench, "c", &[3], 1).await, NONE);
}

async fn renewed_lease_stays(bench: &Bench<'_>) {
    half_open(bench).await;
    assert_eq!(granted(bench, "a", &[1], 1).await, [1]);
    for _ in 0..3 {
        bench.pass(seconds(9));
        ask(bench, "a", LeaseRequest { renew: vec![1, 2], term_us: 10 * SECOND, ..LeaseRequest::default() })
            .await;
    }
    assert_eq!(ask(bench, "b", want(&[1], 1)).await.lease_wait_us, Some(10 * SECOND));
    ask(bench, "a", LeaseRequest { renew: vec![1], term_us: SECOND, ..LeaseRequest::default() }).await;
    assert_eq!(ask(bench, "b", want(&[1], 1)).await.lease_wait_us, Some(SECOND));
}

async fn repeated_request_grants_the_held_lease(bench: &Bench<'_>) {
    half_open(bench).await;
    assert_eq!(granted(bench, "a", &[1, 2], 3).await, [1, 2]);
    bench.pass(seconds(6));
    assert_eq!(granted(bench, "a", &[1, 2, 3, 4], 3).await, [1, 2, 3]);
    bench.pass(seconds(6));
    assert_eq!(granted(bench, "b", &[9], 3).await, NONE, "with a new deadline");
    assert_eq!(granted(bench, "a", &[3, 3], 3).await, [3, 3]);
}

async fn leases_are_granted_with_the_transition_to_half_open(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let closed = a.ask("x").await.record;
    let open = a.say(propose("x", &closed, proposal(State::Open))).await.record;
    bench.pass(seconds(30));
    let probing = Entry { leases: want(&[5], 1), ..propose("x", &open, proposal(State::HalfOpen)) };
    let view = a.say(probing.clone()).await;
    assert_eq!((view.won, view.granted), (true, vec![5]));
    let view = bench.instance("b").say(Entry { leases: want(&[6], 2), ..probing }).await;
    assert_eq!((view.won, view.granted), (false, vec![6]));
}

async fn transition_ends_all_leases(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    half_open(bench).await;
    let view = a.say(Entry { leases: want(&[1, 2], 2), ..about("x") }).await;
    let open =
        a.say(Entry { leases: want(&[3], 9), ..propose("x", &view.record, proposal(State::Open)) }).await;
    assert_eq!((open.won, open.granted), (true, vec![]));
    bench.pass(seconds(30));
    let probing = Entry {
        leases: LeaseRequest { renew: vec![1], ..want(&[4, 5], 2) },
        ..propose("x", &open.record, proposal(State::HalfOpen))
    };
    assert_eq!(a.say(probing).await.granted, [4, 5]);
}

async fn lease_ids_of_instances_do_not_collide(bench: &Bench<'_>) {
    half_open(bench).await;
    for (instance, id) in
        [("a", u64::MAX), ("a", u64::MAX - 1), ("a/1", 2), ("a", 12), ("a/", 12), ("a\n", 1)]
    {
        assert_eq!(granted(bench, instance, &[id], 6).await, [id], "{instance} {id}");
    }
    assert_eq!(granted(bench, "b", &[1], 6).await, NONE);
    ask(bench, "a", LeaseRequest { release: vec![u64::MAX], ..LeaseRequest::default() }).await;
    assert_eq!(granted(bench, "b", &[1, 2], 6).await, [1]);
}
