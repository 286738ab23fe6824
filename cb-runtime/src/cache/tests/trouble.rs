//! What is wrong is a miss and a report, and never more than that.

use super::*;

/// Puts something else in the place of the one result that is on the shelf.
fn replace(fleet: &Fleet, value: &[u8], ttl: Option<Duration>) {
    let keys = fleet.shelf.keys();
    assert_eq!(keys.len(), 1);
    fleet.shelf.put_raw(&keys[0], value, ttl);
}

/// A fleet with a result of one instance, and another instance that has not read it.
fn fleet_of_two() -> (Fleet, Instance, Instance) {
    let fleet = Fleet::new();
    let (one, other) = (fleet.instance(), fleet.instance());
    one.remember(1, "ann");
    one.settle();
    (fleet, one, other)
}

#[test]
fn damage_in_the_store_is_a_miss_and_reported() {
    let deep = format!(r#"{{"v":1,"ttl_ms":300000,"value":{}}}"#, "[".repeat(50_000));
    for (value, ttl, problem) in [
        (&b"\x00\xffgarbage"[..], Some(TTL), "not an envelope"),
        (b"", Some(TTL), "not an envelope"),
        (deep.as_bytes(), Some(TTL), "not an envelope"),
        (br#"{"v":2,"ttl_ms":300000,"value":"ann"}"#, Some(TTL), "version 2"),
        (br#"{"v":1,"ttl_ms":300000,"value":{"name":"ann"}}"#, Some(TTL), "cache_version"),
        (br#"{"v":1,"ttl_ms":300000,"value":"ann"}"#, None, "never expires"),
        (br#"{"v":1,"ttl_ms":1000,"value":"ann"}"#, Some(TTL), "lives longer"),
    ] {
        let (fleet, one, other) = fleet_of_two();
        replace(&fleet, value, ttl);
        for _ in 0..3 {
            assert_eq!(other.recall::<String>(1), None);
        }
        let trouble = other.trouble();
        assert!(trouble.contains(problem) && trouble.contains("user-service"), "{trouble}");
        assert_eq!(fleet.shelf.gets(), 1, "{problem}: asked again at once");
        // The next success repairs it.
        fleet.hands.advance(5 * SECOND);
        one.remember(1, "ann");
        one.settle();
        fleet.pace_hands.advance(shared::ASK_INTERVAL);
        assert_eq!(other.recall::<String>(1).as_deref(), Some("ann"));
        assert_eq!(one.warnings(), [""; 0]);
    }
}

#[test]
fn many_who_read_the_same_damage_report_it_once() {
    let (fleet, _, other) = fleet_of_two();
    replace(&fleet, br#"{"v":1,"ttl_ms":300000,"value":7}"#, Some(TTL));
    fleet.shelf.set(Mood::Frozen);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(other.recall::<String>(1), None));
        }
        eventually("all wait for it", || other.cache.shared.as_ref().unwrap().waiting() == 20);
        fleet.shelf.set(Mood::Well);
    });
    assert!(other.trouble().contains("cache_version"));
}

#[test]
fn an_undecodable_result_in_this_process_goes_and_the_next_success_replaces_it() {
    let fleet = Fleet::new();
    let one = Instance::alone(fleet.clock.clone());
    one.remember(1, "ann");
    for _ in 0..3 {
        assert_eq!(one.recall::<u64>(1), None);
    }
    assert!(one.trouble().contains("invalid type: string"));
    one.remember(1, &7);
    assert_eq!(one.recall::<u64>(1), Some(7));
}

#[test]
fn a_result_that_cannot_be_serialized_is_reported_and_not_tried_at_every_call() {
    struct Stubborn(AtomicUsize);
    impl Serialize for Stubborn {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Err(serde::ser::Error::custom("it will not"))
        }
    }
    let fleet = Fleet::new();
    let one = fleet.instance();
    let value = Stubborn(AtomicUsize::new(0));
    for _ in 0..100 {
        one.remember(1, &value);
    }
    assert_eq!(value.0.load(Ordering::SeqCst), 1);
    assert!(one.trouble().contains("it will not"));
    assert_eq!(one.recall::<String>(1), None);
    one.settle();
    assert_eq!(fleet.shelf.puts(), 0);
}

#[test]
fn arguments_that_cannot_be_serialized_are_reported_once_per_function() {
    struct Stubborn;
    impl Serialize for Stubborn {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("it will not"))
        }
    }
    let fleet = Fleet::new();
    let one = fleet.instance();
    let key = |function| {
        let mut hasher = KeyHasher::new(function, "");
        hasher.arg(&Stubborn);
        hasher.arg(&1);
        one.cache.unkeyable(&one.breaker, &hasher.finish().unwrap_err());
    };
    for _ in 0..3 {
        key("app::get_user");
    }
    let trouble = one.trouble();
    assert!(trouble.contains("app::get_user") && trouble.contains("it will not"), "{trouble}");
    key("app::get_order");
    assert!(one.trouble().contains("app::get_order"));
}

#[test]
fn a_frozen_store_costs_one_call_its_deadline_and_the_next_nothing() {
    let (fleet, _one, mut other) = fleet_of_two();
    let cache = Arc::get_mut(&mut other.cache).unwrap();
    let limit = Duration::from_millis(100);
    Arc::get_mut(cache.shared.as_mut().unwrap()).unwrap().pace_by(fleet.pace.clone(), limit);
    fleet.shelf.set(Mood::Frozen);
    assert_eq!(other.recall::<String>(1), None);
    assert!(other.trouble().contains("within 100ms"));
    fleet.pace_hands.advance(shared::QUIET.saturating_sub(Duration::from_millis(1)));
    for number in 0..1000 {
        assert_eq!(other.recall::<String>(number), None);
    }
    assert_eq!(fleet.shelf.gets(), 1);
    assert_eq!(other.warnings(), [""; 0]);
    fleet.pace_hands.advance(Duration::from_millis(1));
    assert_eq!(other.recall::<String>(1), None);
    assert_eq!(fleet.shelf.gets(), 2);
}

#[test]
fn a_failing_store_is_reported_and_spared() {
    let (fleet, one, other) = fleet_of_two();
    fleet.shelf.set(Mood::Failing);
    assert_eq!(other.recall::<String>(1), None);
    assert!(other.trouble().contains("it is told to"));
    let before = fleet.shelf.puts();
    one.remember(2, "bob");
    one.settle();
    assert!(one.trouble().contains("could not be written"));
    assert_eq!(fleet.shelf.puts(), before + 1, "not tried again");
    assert_eq!(one.recall::<String>(2).as_deref(), Some("bob"), "this process has it all the same");
    fleet.shelf.set(Mood::Well);
    fleet.hands.advance(5 * SECOND);
    one.remember(2, "bob");
    one.settle();
    assert_eq!(one.warnings(), [""; 0]);
    assert_eq!(other.recall::<String>(2).as_deref(), Some("bob"));
}

#[test]
fn a_store_that_panics_leaves_nobody_waiting() {
    let (fleet, one, other) = fleet_of_two();
    fleet.shelf.set(Mood::Panicking);
    assert_eq!(other.recall::<String>(1), None);
    one.remember(2, "bob");
    one.settle();
    fleet.shelf.set(Mood::Well);
    fleet.pace_hands.advance(shared::ASK_INTERVAL);
    assert_eq!(other.recall::<String>(1).as_deref(), Some("ann"));
    one.remember(3, "cid");
    one.settle();
    assert_eq!(other.recall::<String>(3).as_deref(), Some("cid"));
}

#[test]
fn a_background_that_is_gone_leaves_nobody_waiting() {
    let fleet = Fleet::new();
    let one = fleet.instance();
    // Waits until nothing runs there any more: what comes later is dropped for certain.
    fleet.background.shutdown_timeout(Duration::from_secs(60));
    one.remember(1, "ann");
    assert_eq!(one.recall::<String>(1).as_deref(), Some("ann"));
    assert_eq!(one.recall::<String>(2), None);
    one.settle();
    assert!(
        !lock(&one.cache.shared.as_ref().unwrap().pending).is_drained(),
        "the next write would start a writer"
    );
}

#[test]
fn what_is_too_big_for_a_tier_is_left_out_of_it_and_reported() {
    let fleet = Fleet::new();
    let (one, other) = (fleet.instance(), fleet.instance());
    let big = "x".repeat(MAX_SHARED);
    one.remember(1, &big);
    one.settle();
    assert!(one.trouble().contains("in this process only"));
    assert_eq!((one.recall::<String>(1), other.recall::<String>(1)), (Some(big), None));
    let huge = "x".repeat(local::MAX_BYTES);
    for _ in 0..3 {
        one.remember(2, &huge);
    }
    assert!(one.trouble().contains("not cached"));
    assert_eq!(one.recall::<String>(2), None);
    assert_eq!(fleet.shelf.puts(), 0);
}

#[test]
fn flights_are_bounded() {
    let fleet = Fleet::new();
    let one = fleet.instance();
    fleet.shelf.set(Mood::Frozen);
    let breaker = one.breaker.clone();
    let keys: Vec<CacheKey> = (0..=shared::MAX_FLIGHTS as u64).map(key).collect();
    let mut flights: Vec<_> =
        keys.iter().map(|key| Box::pin(one.cache.recall::<String>(&breaker, key, TTL))).collect();
    let mut refused = 0;
    for flight in &mut flights {
        let polled = flight.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        refused += usize::from(polled == Poll::Ready(None));
    }
    assert_eq!(refused, 1);
    assert!(one.trouble().contains("being read"));
}
