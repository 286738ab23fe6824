//! What is written, how often, and at what cost.

use super::*;

/// Counts how often it is serialized.
#[derive(Default)]
struct Counted(AtomicUsize);

impl Serialize for Counted {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0.fetch_add(1, Ordering::SeqCst) as u64)
    }
}

impl<'de> serde::Deserialize<'de> for Counted {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        usize::deserialize(deserializer).map(|times| Counted(AtomicUsize::new(times)))
    }
}

impl Counted {
    fn times(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

#[test]
fn while_the_kept_result_is_fresh_a_success_writes_nothing() {
    for (ttl, interval) in [(20 * SECOND, 2 * SECOND), (3600 * SECOND, 5 * SECOND)] {
        let fleet = CacheFleet::new();
        let one = fleet.instance();
        let value = Counted::default();
        let remember = || one.remember_for(ttl, 1, &value);
        remember();
        one.settle();
        for _ in 0..10 {
            remember();
            fleet.hands.advance(interval.saturating_sub(Duration::from_millis(1)) / 10);
        }
        remember();
        one.settle();
        assert_eq!((value.times(), fleet.store.puts()), (1, 1));
        fleet.hands.advance(Duration::from_millis(1));
        remember();
        one.settle();
        assert_eq!((value.times(), fleet.store.puts()), (2, 2));
        assert_eq!(one.recall::<u64>(1), Some(1), "the later one stands");
    }
}

#[test]
fn very_short_ttl_is_measured_exactly() {
    let fleet = CacheFleet::new();
    let one = fleet.instance();
    let value = Counted::default();
    let ttl = Duration::from_millis(2);
    let remember = || one.remember_for(ttl, 1, &value);
    remember();
    fleet.hands.advance(Duration::from_micros(199));
    remember();
    assert_eq!(value.times(), 1);
    fleet.hands.advance(Duration::from_micros(1));
    remember();
    assert_eq!(value.times(), 2);
    one.remember_for(Duration::ZERO, 2, &value);
    assert_eq!(value.times(), 2, "a result that may never answer is not kept");
}

#[test]
fn success_while_fresh_does_not_allocate() {
    let fleet = CacheFleet::new();
    let one = fleet.instance();
    let value = vec!["a result".to_owned(); 10];
    let scope = one.cache.scope(&one.breaker);
    let remember = || {
        let mut arguments = Arguments::new("1");
        arguments.add(&7_u64);
        arguments.add(LONG);
        arguments.add(&Some((1.5, 'x', [Some(true), None])));
        let key = one.cache.key(&one.breaker, scope, (function().id(), function), &arguments).unwrap();
        if let Some(now) = one.cache.stale_at(scope, &key) {
            one.cache.keep(one.caller(), key, TTL, &value, now);
        }
    };
    remember();
    one.settle();
    let fresh = allocation_counter::measure(|| (0..100).for_each(|_| remember()));
    assert_eq!(fresh.count_total, 0, "{fresh:?}");
    fleet.hands.advance(10 * SECOND);
    assert!(allocation_counter::measure(remember).count_total > 0, "the counter counts");
}

const LONG: &str = "an argument that is longer than the buffer: \
    0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 \
    0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789";

#[test]
fn one_of_many_concurrent_successes_writes() {
    /// Takes until all others have come to be serialized.
    struct SlowToSerialize<'a>(&'a Counted, &'a AtomicUsize);
    impl Serialize for SlowToSerialize<'_> {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            eventually("the others have found that it is being done", || self.1.load(Ordering::SeqCst) == 3);
            self.0.serialize(serializer)
        }
    }
    impl<'de> serde::Deserialize<'de> for SlowToSerialize<'_> {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            unreachable!("nobody reads it")
        }
    }
    let fleet = CacheFleet::new();
    let one = fleet.instance();
    // The first result of a function is read back.
    one.remember_text(0, "ann");
    let (counted, done) = (Counted::default(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                one.remember(1, &SlowToSerialize(&counted, &done));
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    assert_eq!(counted.times(), 1);
}

#[test]
fn more_hot_keys_than_the_table_has_places_are_still_written_once_per_interval() {
    let fleet = CacheFleet::new();
    let limits = CacheLimits { entries: 200_000, bytes: 1 << 30, ..CacheLimits::default() };
    let one = CacheInstance::limited(fleet.clock.clone(), limits);
    let (value, keys) = (Counted::default(), 2 * FRESH_PLACES);
    for _ in 0..3 {
        for number in 0..keys as u64 {
            one.remember(number, &value);
        }
    }
    assert_eq!(value.times(), keys);
}

#[test]
fn evicted_entry_is_cached_again_at_the_next_success() {
    let fleet = CacheFleet::new();
    let limits = CacheLimits { entries: 10, ..CacheLimits::default() };
    let one = CacheInstance::limited(fleet.clock.clone(), limits);
    (0..100).for_each(|number| one.remember(number, &number));
    let lost = (0..100).find(|number| one.recall::<u64>(*number).is_none()).unwrap();
    one.remember(lost, &lost);
    assert_eq!(one.recall(lost), Some(lost));
}

#[test]
fn store_gets_a_readable_key_and_the_ttl() {
    let fleet = CacheFleet::new();
    let one = fleet.instance();
    one.remember_text(1, "ann");
    one.settle();
    let keys = fleet.store.keys();
    let (name, digest) = keys[0].split_once(':').unwrap();
    assert_eq!((name, digest.len()), ("user-service", 64));
    let kept = fleet.store.kept.lock().unwrap();
    let (value, _, ttl) = &kept[&keys[0]];
    assert_eq!(*ttl, Some(TTL));
    let text = std::str::from_utf8(value).unwrap();
    assert!(text.starts_with(r#"{"v":1,"stored_at_ms":"#) && text.ends_with(r#""value":"ann"}"#), "{text}");
}

#[test]
fn slow_store_delays_no_call_and_gets_only_the_latest_result() {
    let fleet = CacheFleet::new();
    let one = fleet.instance();
    fleet.store.set(Mood::Frozen);
    one.remember_text(1, "first");
    eventually("the first is under way", || fleet.store.puts() == 1);
    for round in 0..5 {
        fleet.hands.advance(5 * SECOND);
        one.remember_text(1, &format!("later {round}"));
    }
    fleet.store.set(Mood::Well);
    one.settle();
    assert_eq!(fleet.store.puts(), 2);
    let other = fleet.instance();
    assert_eq!(other.recall::<String>(1).as_deref(), Some("later 4"));
}

#[test]
fn waiting_for_the_store_makes_no_result_younger() {
    let fleet = CacheFleet::new();
    let one = fleet.instance();
    one.up.store(false, Ordering::Relaxed);
    one.remember_text(1, "ann");
    fleet.hands.advance(100 * SECOND);
    one.up.store(true, Ordering::Relaxed);
    one.settle();
    let other = fleet.instance();
    assert_eq!(other.recall::<String>(1).as_deref(), Some("ann"));
    assert_eq!(other.hits(), [(CacheTier::Shared, 100)]);
}

#[test]
fn while_the_store_is_away_a_bounded_number_of_writes_waits() {
    let fleet = CacheFleet::new();
    let one = fleet.instance();
    one.up.store(false, Ordering::Relaxed);
    for number in 0..5000 {
        one.remember_text(number, "x");
    }
    let problems = one.problems();
    assert!((1..=20).contains(&problems.len()), "{}", problems.len());
    assert!(problems[0].contains("too many are waiting"), "{}", problems[0]);
    assert_eq!(one.recall::<String>(4999).as_deref(), Some("x"), "this process has it all the same");
    one.up.store(true, Ordering::Relaxed);
    one.settle();
    let written = fleet.store.puts();
    assert_eq!(written, fleet.store.keys().len());
    // The worker has taken a batch already.
    assert!((writer::MAX_WRITES..=writer::MAX_WRITES + 32).contains(&written), "{written}");
}

#[test]
fn writes_that_have_become_too_late_are_not_made() {
    let fleet = CacheFleet::new();
    let one = fleet.instance();
    one.up.store(false, Ordering::Relaxed);
    one.remember_text(1, "ann");
    fleet.hands.advance(TTL);
    one.settle();
    one.up.store(true, Ordering::Relaxed);
    one.remember_text(2, "bob");
    one.settle();
    assert_eq!(fleet.store.puts(), 1);
}

#[test]
fn breakers_that_outlive_their_registry_do_not_keep_its_store() {
    let mut fleet = CacheFleet::new();
    let one = fleet.instance();
    one.up.store(false, Ordering::Relaxed);
    one.remember_text(1, "ann");
    let elsewhere = std::mem::replace(&mut fleet.store, CacheFleet::new().store);
    assert_eq!(Arc::strong_count(&elsewhere), 1);
    drop(elsewhere);
    one.up.store(true, Ordering::Relaxed);
    one.settle();
    one.remember_text(2, "bob");
    one.settle();
    assert_eq!(one.recall::<String>(2).as_deref(), Some("bob"));
    assert_eq!(one.recall::<String>(3), None);
    assert_eq!(one.problems(), [""; 0]);
}

#[test]
fn dropped_cache_ends_its_writer() {
    let fleet = CacheFleet::new();
    let one = fleet.instance();
    one.remember_text(1, "ann");
    one.settle();
    one.up.store(false, Ordering::Relaxed);
    one.remember_text(2, "bob");
    let tasks = || fleet.background.metrics().num_alive_tasks();
    eventually("the worker is alone", || tasks() == 1);
    drop(one);
    eventually("the worker ends", || tasks() == 0);
}

#[test]
fn entry_is_queued_once_while_the_store_is_away() {
    let fleet = CacheFleet::new();
    let one = fleet.instance();
    one.up.store(false, Ordering::Relaxed);
    for round in 0..3000 {
        fleet.hands.advance(5 * SECOND);
        one.remember_for(LONGEST_TTL, 1, &round);
    }
    one.remember_text(2, "ann");
    assert_eq!(one.problems(), [""; 0], "the channel is full of one result");
    one.up.store(true, Ordering::Relaxed);
    one.settle();
    assert_eq!(fleet.store.puts(), 2);
    assert_eq!(fleet.instance().recall::<u64>(1), Some(2999));
}

#[test]
fn queued_bytes_are_bounded() {
    let fleet = CacheFleet::new();
    let limits = CacheLimits { bytes: 1 << 30, ..CacheLimits::default() };
    let one = fleet.limited(limits);
    one.up.store(false, Ordering::Relaxed);
    let text = "x".repeat(200_000);
    (0..200).for_each(|number| one.remember_text(number, &text));
    assert!(one.problems()[0].contains("too many are waiting"));
    one.up.store(true, Ordering::Relaxed);
    one.settle();
    let written = fleet.store.puts();
    assert!((writer::MAX_BYTES / 210_000..=writer::MAX_BYTES / 200_000).contains(&written), "{written}");
}
