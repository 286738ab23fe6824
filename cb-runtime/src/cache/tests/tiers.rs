//! Which tier answers, and for how long.

use super::*;

#[test]
fn success_answers_later_failures_until_its_ttl() {
    let fleet = CacheFleet::new();
    let one = CacheInstance::alone(fleet.clock.clone());
    assert_eq!(one.recall::<String>(1), None);
    one.remember_text(1, "ann");
    assert_eq!(one.recall::<String>(1).as_deref(), Some("ann"));
    assert_eq!(one.recall::<String>(2), None, "other arguments");
    fleet.hands.advance(299 * SECOND);
    assert_eq!(one.recall::<String>(1).as_deref(), Some("ann"));
    assert_eq!(one.hits(), [(CacheTier::Local, 0), (CacheTier::Local, 299)]);
    fleet.hands.advance(SECOND);
    assert_eq!(one.recall::<String>(1), None);
    assert_eq!(one.problems(), [""; 0]);
}

#[test]
fn none_and_unit_are_results() {
    let fleet = CacheFleet::new();
    let (one, other) = (fleet.instance(), fleet.instance());
    one.remember(1, &None::<String>);
    one.settle();
    assert_eq!(one.recall::<Option<String>>(1), Some(None));
    assert_eq!(other.recall::<Option<String>>(1), Some(None));
    one.remember(2, &());
    one.settle();
    assert_eq!(other.recall::<()>(2), Some(()));
}

#[test]
fn new_instance_answers_with_the_result_of_another() {
    let fleet = CacheFleet::new();
    let (one, other) = (fleet.instance(), fleet.instance());
    one.remember_text(1, "ann");
    one.settle();
    fleet.hands.advance(100 * SECOND);
    assert_eq!(other.recall::<String>(1).as_deref(), Some("ann"));
    fleet.hands.advance(50 * SECOND);
    assert_eq!(other.recall::<String>(1).as_deref(), Some("ann"));
    assert_eq!(other.hits(), [(CacheTier::Shared, 100), (CacheTier::Local, 150)]);
    assert_eq!(fleet.store.gets(), 1, "the second time it was here");
    fleet.hands.advance(150 * SECOND);
    assert_eq!(other.recall::<String>(1), None, "reading it did not renew it");
    assert_eq!(other.problems(), [""; 0]);
}

#[test]
fn ttl_of_the_reader_applies() {
    let fleet = CacheFleet::new();
    let (one, other) = (fleet.instance(), fleet.instance());
    one.remember_text(1, "ann");
    one.settle();
    fleet.hands.advance(60 * SECOND);
    let short = |instance: &CacheInstance| wait_for(instance.recalled_for::<String>(60 * SECOND, 1));
    assert_eq!(short(&one), None);
    assert_eq!(short(&other), None);
    assert_eq!(one.recall::<String>(1).as_deref(), Some("ann"));
}

#[test]
fn breakers_do_not_share_even_under_one_key() {
    let fleet = CacheFleet::new();
    let mut one = fleet.instance();
    let mut other = fleet.instance();
    other.breaker = "user-service-eu".into();
    one.remember_text(1, "ann");
    one.settle();
    assert_eq!(other.recall::<String>(1), None);
    one.breaker = other.breaker.clone();
    assert_eq!(one.recall::<String>(1), None);
}

#[test]
fn entry_answers_its_own_function_and_breaker_only() {
    let fleet = CacheFleet::new();
    let mut one = CacheInstance::alone(fleet.clock.clone());
    one.remember_text(1, "ann");
    let key = one.key(1);
    // As if two keys were one by chance.
    one.breaker = "user-service-eu".into();
    assert!(matches!(one.cache.recall_here::<String>(one.caller(), &key, TTL), Here::Nothing(None)));
}

#[test]
fn without_a_shared_tier_the_store_is_left_alone() {
    let fleet = CacheFleet::new();
    let one = CacheInstance::alone(fleet.clock.clone());
    one.remember_text(1, "ann");
    one.settle();
    assert_eq!(one.recall::<String>(2), None);
    assert_eq!((fleet.store.gets(), fleet.store.puts()), (0, 0));
}

#[test]
fn while_the_store_is_away_the_local_tier_answers() {
    let fleet = CacheFleet::new();
    let one = fleet.instance();
    fleet.store.set(Mood::Frozen);
    one.up.store(false, Ordering::Relaxed);
    one.remember_text(1, "ann");
    assert_eq!(one.recall::<String>(1).as_deref(), Some("ann"));
    assert_eq!(one.recall::<String>(2), None);
    assert_eq!((fleet.store.gets(), fleet.store.puts()), (0, 0));
}

#[test]
fn concurrent_readers_of_one_result_ask_once() {
    let fleet = CacheFleet::new();
    let (one, other) = (fleet.instance(), fleet.instance());
    one.remember_text(1, "ann");
    one.settle();
    fleet.store.set(Mood::Frozen);
    let answers = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..20).map(|_| scope.spawn(|| other.recall::<String>(1))).collect();
        eventually("all wait for it", || other.waiting() == 20);
        fleet.store.set(Mood::Well);
        readers.into_iter().map(|reader| reader.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(answers, vec![Some("ann".to_owned()); 20]);
    assert_eq!(fleet.store.gets(), 1);
}

#[test]
fn cancelled_reader_does_not_affect_others() {
    let fleet = CacheFleet::new();
    let (one, other) = (fleet.instance(), fleet.instance());
    one.remember_text(1, "ann");
    one.settle();
    fleet.store.set(Mood::Frozen);
    let mut first = Box::pin(other.recalled::<String>(1));
    assert!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let mut second = Box::pin(other.recalled::<String>(1));
    assert!(second.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(first);
    fleet.store.set(Mood::Well);
    assert_eq!(wait_for(second).as_deref(), Some("ann"));
}

#[test]
fn miss_is_not_requested_again_immediately() {
    let fleet = CacheFleet::new();
    let (one, other) = (fleet.instance(), fleet.instance());
    for _ in 0..1000 {
        assert_eq!(one.recall::<String>(1), None);
    }
    assert_eq!(fleet.store.gets(), 1);
    other.remember_text(1, "ann");
    other.settle();
    assert_eq!(one.recall::<String>(1), None);
    fleet.pace_hands.advance(shared::ASK_INTERVAL);
    assert_eq!(one.recall::<String>(1).as_deref(), Some("ann"));
    assert_eq!(one.problems(), [""; 0]);
}

#[test]
fn under_paused_time_the_answer_still_comes_and_so_does_the_deadline() {
    let fleet = CacheFleet::new();
    let (one, patient, other) = (fleet.instance(), fleet.instance(), fleet.impatient_instance());
    one.remember_text(1, "ann");
    one.settle();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let found = patient.recalled::<String>(1).await;
        assert_eq!(found.as_deref(), Some("ann"));
        fleet.store.set(Mood::Frozen);
        let found = other.recalled::<String>(1).await;
        assert_eq!(found, None);
    });
}

#[test]
fn recalling_future_is_send_for_every_result() {
    fn moves<T: Send>(_: &T) {}
    let fleet = CacheFleet::new();
    let one = fleet.instance();
    moves(&one.cache.recall_shared::<std::rc::Rc<str>>(one.caller(), one.key(1), TTL));
}

#[test]
fn result_that_json_would_change_comes_back_as_it_was() {
    let fleet = CacheFleet::new();
    let (one, other) = (fleet.instance(), fleet.instance());
    one.remember(1, &Some(None::<String>));
    one.settle();
    for instance in [&one, &other] {
        assert_eq!(instance.recall::<Option<Option<String>>>(1), Some(Some(None)));
    }
}
