//! What answers, from where, and for how long.

use super::*;

#[test]
fn a_success_answers_later_failures_until_its_ttl() {
    let fleet = Fleet::new();
    let one = Instance::alone(fleet.clock.clone());
    assert_eq!(one.recall::<String>(1), None);
    one.remember(1, "ann");
    assert_eq!(one.recall::<String>(1).as_deref(), Some("ann"));
    assert_eq!(one.recall::<String>(2), None, "other arguments");
    fleet.hands.advance(299 * SECOND);
    assert_eq!(one.recall::<String>(1).as_deref(), Some("ann"));
    assert_eq!(one.hits(), [(CacheTier::Local, 0), (CacheTier::Local, 299)]);
    fleet.hands.advance(SECOND);
    assert_eq!(one.recall::<String>(1), None);
    assert_eq!(one.warnings(), [""; 0]);
}

#[test]
fn nothing_is_a_result_too() {
    let fleet = Fleet::new();
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
fn an_instance_that_never_called_answers_with_the_fleets_result() {
    let fleet = Fleet::new();
    let (one, other) = (fleet.instance(), fleet.instance());
    one.remember(1, "ann");
    one.settle();
    fleet.hands.advance(100 * SECOND);
    assert_eq!(other.recall::<String>(1).as_deref(), Some("ann"));
    fleet.hands.advance(50 * SECOND);
    assert_eq!(other.recall::<String>(1).as_deref(), Some("ann"));
    assert_eq!(other.hits(), [(CacheTier::Shared, 100), (CacheTier::Local, 150)]);
    assert_eq!(fleet.shelf.gets(), 1, "the second time it was here");
    fleet.hands.advance(150 * SECOND);
    assert_eq!(other.recall::<String>(1), None, "reading it did not renew it");
    assert_eq!(other.warnings(), [""; 0]);
}

#[test]
fn the_readers_ttl_counts() {
    let fleet = Fleet::new();
    let (one, other) = (fleet.instance(), fleet.instance());
    one.remember(1, "ann");
    one.settle();
    fleet.hands.advance(60 * SECOND);
    let short = |instance: &Instance| {
        wait_for(instance.cache.recall::<String>(&instance.breaker, &key(1), 60 * SECOND))
    };
    assert_eq!(short(&one), None);
    assert_eq!(short(&other), None);
    assert_eq!(one.recall::<String>(1).as_deref(), Some("ann"));
}

#[test]
fn breakers_do_not_share_even_under_one_key() {
    let fleet = Fleet::new();
    let one = fleet.instance();
    let mut other = fleet.instance();
    other.breaker = "user-service-eu".into();
    one.remember(1, "ann");
    one.settle();
    assert_eq!(other.recall::<String>(1), None);
    let same_cache = wait_for(one.cache.recall::<String>(&other.breaker, &key(1), TTL));
    assert_eq!(same_cache, None);
}

#[test]
fn without_a_shared_tier_the_store_is_left_alone() {
    let fleet = Fleet::new();
    let one = Instance::alone(fleet.clock.clone());
    one.remember(1, "ann");
    one.settle();
    assert_eq!(one.recall::<String>(2), None);
    assert_eq!((fleet.shelf.gets(), fleet.shelf.puts()), (0, 0));
}

#[test]
fn while_the_store_is_away_the_local_tier_answers_and_nothing_is_asked() {
    let fleet = Fleet::new();
    let one = fleet.instance();
    fleet.shelf.set(Mood::Frozen);
    one.up.store(false, Ordering::Relaxed);
    one.remember(1, "ann");
    assert_eq!(one.recall::<String>(1).as_deref(), Some("ann"));
    assert_eq!(one.recall::<String>(2), None);
    assert_eq!((fleet.shelf.gets(), fleet.shelf.puts()), (0, 0));
}

#[test]
fn concurrent_readers_of_one_result_ask_once() {
    let fleet = Fleet::new();
    let (one, other) = (fleet.instance(), fleet.instance());
    one.remember(1, "ann");
    one.settle();
    fleet.shelf.set(Mood::Frozen);
    let answers = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..20).map(|_| scope.spawn(|| other.recall::<String>(1))).collect();
        eventually("all wait for it", || {
            let shared = other.cache.shared.as_ref().unwrap();
            shared.waiting() == 20
        });
        fleet.shelf.set(Mood::Well);
        readers.into_iter().map(|reader| reader.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(answers, vec![Some("ann".to_owned()); 20]);
    assert_eq!(fleet.shelf.gets(), 1);
}

#[test]
fn one_who_gives_up_takes_the_answer_from_nobody() {
    let fleet = Fleet::new();
    let (one, other) = (fleet.instance(), fleet.instance());
    one.remember(1, "ann");
    one.settle();
    fleet.shelf.set(Mood::Frozen);
    let (breaker, key) = (other.breaker.clone(), key(1));
    let mut first = Box::pin(other.cache.recall::<String>(&breaker, &key, TTL));
    assert!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let mut second = Box::pin(other.cache.recall::<String>(&breaker, &key, TTL));
    assert!(second.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(first);
    fleet.shelf.set(Mood::Well);
    assert_eq!(wait_for(second).as_deref(), Some("ann"));
}

#[test]
fn what_the_store_does_not_have_is_not_asked_for_at_every_call() {
    let fleet = Fleet::new();
    let (one, other) = (fleet.instance(), fleet.instance());
    for _ in 0..1000 {
        assert_eq!(one.recall::<String>(1), None);
    }
    assert_eq!(fleet.shelf.gets(), 1);
    other.remember(1, "ann");
    other.settle();
    assert_eq!(one.recall::<String>(1), None);
    fleet.pace_hands.advance(shared::ASK_INTERVAL);
    assert_eq!(one.recall::<String>(1).as_deref(), Some("ann"));
    assert_eq!(one.warnings(), [""; 0]);
}

#[test]
fn under_paused_time_the_answer_still_comes_and_so_does_the_deadline() {
    let fleet = Fleet::new();
    let (one, patient, other) = (fleet.instance(), fleet.instance(), fleet.impatient_instance());
    one.remember(1, "ann");
    one.settle();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let found = patient.cache.recall::<String>(&patient.breaker, &key(1), TTL).await;
        assert_eq!(found.as_deref(), Some("ann"));
        fleet.shelf.set(Mood::Frozen);
        let found = other.cache.recall::<String>(&other.breaker, &key(1), TTL).await;
        assert_eq!(found, None);
    });
}

#[test]
fn a_future_that_recalls_may_go_to_another_thread_whatever_it_recalls() {
    fn moves<T: Send>(_: &T) {}
    let fleet = Fleet::new();
    let one = fleet.instance();
    let key = key(1);
    moves(&one.cache.recall::<std::rc::Rc<str>>(&one.breaker, &key, TTL));
}
