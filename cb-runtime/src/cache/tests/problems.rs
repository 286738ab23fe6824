//! A problem is a miss and a report, and never more than that.

use super::*;

/// Puts something else in the place of the one result that is in the store.
fn replace(fleet: &CacheFleet, value: &[u8], ttl: Option<Duration>) {
    let keys = fleet.store.keys();
    assert_eq!(keys.len(), 1);
    fleet.store.put_raw(&keys[0], value, ttl);
}

/// A fleet with a result of one instance, and another instance that has not read it.
fn fleet_of_two() -> (CacheFleet, CacheInstance, CacheInstance) {
    let fleet = CacheFleet::new();
    let (one, other) = (fleet.instance(), fleet.instance());
    one.remember_text(1, "ann");
    one.settle();
    (fleet, one, other)
}

#[test]
fn damage_in_the_store_is_a_miss_and_reported() {
    let deep = format!(r#"{{"v":1,"ttl_ms":300000,"value":{}}}"#, "[".repeat(50_000));
    for (value, ttl, expected) in [
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
        let problem = other.problem();
        assert!(problem.contains(expected) && problem.contains("user-service"), "{problem}");
        assert_eq!(fleet.store.gets(), 1, "{expected}: asked again at once");
        // The next success repairs it.
        fleet.hands.advance(5 * SECOND);
        one.remember_text(1, "ann");
        one.settle();
        fleet.pace_hands.advance(shared::ASK_INTERVAL);
        assert_eq!(other.recall::<String>(1).as_deref(), Some("ann"));
        assert_eq!(one.problems(), [""; 0]);
    }
}

#[test]
fn concurrent_readers_of_one_damaged_result_report_it_once() {
    let (fleet, _, other) = fleet_of_two();
    replace(&fleet, br#"{"v":1,"ttl_ms":300000,"value":7}"#, Some(TTL));
    fleet.store.set(Mood::Frozen);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(other.recall::<String>(1), None));
        }
        eventually("all wait for it", || other.waiting() == 20);
        fleet.store.set(Mood::Well);
    });
    assert!(other.problem().contains("cache_version"));
}

#[test]
fn undecodable_local_result_is_removed_and_replaced_by_the_next_success() {
    let fleet = CacheFleet::new();
    let one = CacheInstance::alone(fleet.clock.clone());
    one.remember_text(1, "ann");
    for _ in 0..3 {
        assert_eq!(one.recall::<u64>(1), None);
    }
    assert!(one.problem().contains("invalid type: string"));
    one.remember(1, &7_u64);
    assert_eq!(one.recall::<u64>(1), Some(7));
}

/// Cannot be serialized.
struct Stubborn(AtomicUsize);

impl Serialize for Stubborn {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Err(serde::ser::Error::custom("it will not"))
    }
}

impl<'de> serde::Deserialize<'de> for Stubborn {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Ok(Stubborn(AtomicUsize::new(0)))
    }
}

#[test]
fn unserializable_result_is_reported_and_tried_once_per_interval() {
    let fleet = CacheFleet::new();
    let one = fleet.instance();
    let value = Stubborn(AtomicUsize::new(0));
    one.remember(1, &value);
    let tries = value.0.load(Ordering::SeqCst);
    (0..100).for_each(|_| one.remember(1, &value));
    assert_eq!(value.0.load(Ordering::SeqCst), tries);
    assert!(one.problem().contains("it will not"));
    assert_eq!(one.recall::<String>(1), None);
    one.settle();
    assert_eq!(fleet.store.puts(), 0);
}

#[test]
fn first_result_is_read_back_at_once() {
    #[derive(Serialize, serde::Deserialize)]
    #[serde(rename_all(serialize = "lowercase", deserialize = "UPPERCASE"))]
    enum Crooked {
        Value,
    }
    static SITE: CacheSite = CacheSite::new("app", None, None);
    let fleet = CacheFleet::new();
    let one = fleet.instance();
    let function = SITE.find(FunctionId(2), "app::crooked::{{closure}}");
    let caller = Caller { function, ..one.caller() };
    let arguments = Arguments::new("");
    let key = one.cache.key(&one.breaker, 0, (function.id(), || function), &arguments).unwrap();
    one.cache.keep(caller, key, TTL, &Crooked::Value, fleet.clock.coarse());
    let problem = one.problem();
    assert!(problem.contains("app::crooked") && problem.contains("unknown variant"), "{problem}");
}

#[test]
fn arguments_that_cannot_be_serialized_are_reported_once_per_function() {
    static SITE: CacheSite = CacheSite::new("app", None, None);
    let fleet = CacheFleet::new();
    let one = fleet.instance();
    let key = |id, path| {
        let function = SITE.find(FunctionId(id), path);
        let mut arguments = Arguments::new("");
        arguments.add(&Stubborn(AtomicUsize::new(0)));
        arguments.add(&1);
        one.cache.key(&one.breaker, 0, (function.id(), || function), &arguments)
    };
    for _ in 0..3 {
        assert!(key(1, "app::get_user").is_none());
    }
    let problem = one.problem();
    assert!(problem.contains("app::get_user") && problem.contains("it will not"), "{problem}");
    key(2, "app::get_order");
    assert!(one.problem().contains("app::get_order"));
}

#[test]
fn frozen_store_delays_one_call_and_not_the_next() {
    let (fleet, _one, mut other) = fleet_of_two();
    other.shared().pace_by(fleet.pace.clone(), Duration::from_millis(100));
    fleet.store.set(Mood::Frozen);
    assert_eq!(other.recall::<String>(1), None);
    assert!(other.problem().contains("within 100ms"));
    fleet.pace_hands.advance(shared::QUIET.saturating_sub(Duration::from_millis(1)));
    for number in 0..1000 {
        assert_eq!(other.recall::<String>(number), None);
    }
    assert_eq!(fleet.store.gets(), 1);
    assert_eq!(other.problems(), [""; 0]);
    fleet.pace_hands.advance(Duration::from_millis(1));
    assert_eq!(other.recall::<String>(1), None);
    assert_eq!(fleet.store.gets(), 2);
}

#[test]
fn failing_store_is_reported_and_asked_less() {
    let (fleet, one, other) = fleet_of_two();
    fleet.store.set(Mood::Failing);
    assert_eq!(other.recall::<String>(1), None);
    assert!(other.problem().contains("it is told to"));
    let before = fleet.store.puts();
    one.remember_text(2, "bob");
    one.settle();
    assert!(one.problem().contains("could not be written"));
    assert_eq!(fleet.store.puts(), before + 1, "not tried again");
    assert_eq!(one.recall::<String>(2).as_deref(), Some("bob"), "this process has it all the same");
    fleet.store.set(Mood::Well);
    fleet.hands.advance(5 * SECOND);
    one.remember_text(2, "bob");
    one.settle();
    assert_eq!(one.problems(), [""; 0]);
    assert_eq!(other.recall::<String>(2).as_deref(), Some("bob"));
}

#[test]
fn panicking_store_leaves_no_call_waiting() {
    let (fleet, one, other) = fleet_of_two();
    fleet.store.set(Mood::Panicking);
    assert_eq!(other.recall::<String>(1), None);
    one.remember_text(2, "bob");
    one.settle();
    fleet.store.set(Mood::Well);
    fleet.pace_hands.advance(shared::ASK_INTERVAL);
    assert_eq!(other.recall::<String>(1).as_deref(), Some("ann"));
    one.remember_text(3, "cid");
    one.settle();
    assert_eq!(other.recall::<String>(3).as_deref(), Some("cid"));
}

#[test]
fn ended_background_leaves_no_call_waiting() {
    let fleet = CacheFleet::new();
    let one = fleet.instance();
    // Waits until nothing runs there any more: what comes later is dropped for certain.
    fleet.background.shutdown_timeout(Duration::from_secs(60));
    one.remember_text(1, "ann");
    assert_eq!(one.recall::<String>(1).as_deref(), Some("ann"));
    assert_eq!(one.recall::<String>(2), None);
    one.settle();
}

#[test]
fn result_above_the_limit_is_not_cached_and_is_reported() {
    let fleet = CacheFleet::new();
    let one = fleet.instance();
    one.remember_text(1, "ann");
    fleet.hands.advance(5 * SECOND);
    let large = "x".repeat(CacheLimits::default().result_bytes);
    for _ in 0..3 {
        one.remember_text(1, &large);
    }
    assert!(one.problem().contains("more than 262144 bytes"));
    assert_eq!(one.recall::<String>(1).as_deref(), Some("ann"), "the latest that could be kept");
    one.settle();
    assert_eq!(fleet.store.puts(), 1);
}

#[test]
fn result_without_local_room_is_still_shared() {
    let fleet = CacheFleet::new();
    let limits = CacheLimits { bytes: 10_000, ..CacheLimits::default() };
    let (one, other) = (fleet.limited(limits), fleet.instance());
    let text = "x".repeat(20_000);
    for _ in 0..3 {
        one.remember_text(1, &text);
    }
    assert!(one.problem().contains("not kept in this process"));
    one.settle();
    assert_eq!(fleet.store.puts(), 1);
    assert_eq!(other.recall::<String>(1).as_deref(), Some(&*text));
    assert_eq!(one.recall::<String>(1).as_deref(), Some(&*text), "from the store");
}

#[test]
fn flights_are_bounded() {
    let fleet = CacheFleet::new();
    let one = fleet.instance();
    fleet.store.set(Mood::Frozen);
    let mut flights: Vec<_> =
        (0..=shared::MAX_FLIGHTS as u64).map(|number| Box::pin(one.recalled::<String>(number))).collect();
    let mut refused = 0;
    for flight in &mut flights {
        let polled = flight.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        refused += usize::from(polled == Poll::Ready(None));
    }
    assert_eq!(refused, 1);
    assert!(one.problem().contains("being read"));
}
