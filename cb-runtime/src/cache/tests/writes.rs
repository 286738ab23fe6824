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

impl Counted {
    fn times(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

#[test]
fn while_the_kept_result_is_fresh_a_success_writes_nothing() {
    for (ttl, interval) in [(20 * SECOND, 2 * SECOND), (3600 * SECOND, 5 * SECOND)] {
        let fleet = Fleet::new();
        let one = fleet.instance();
        let value = Counted::default();
        let remember = || one.cache.remember(&one.breaker, &key(1), ttl, &value);
        remember();
        one.settle();
        for _ in 0..10 {
            remember();
            fleet.hands.advance(interval.saturating_sub(Duration::from_millis(1)) / 10);
        }
        remember();
        one.settle();
        assert_eq!((value.times(), fleet.shelf.puts()), (1, 1));
        fleet.hands.advance(Duration::from_millis(1));
        remember();
        one.settle();
        assert_eq!((value.times(), fleet.shelf.puts()), (2, 2));
        assert_eq!(one.recall::<u64>(1), Some(1), "the later one stands");
    }
}

#[test]
fn a_very_short_ttl_is_measured_exactly() {
    let fleet = Fleet::new();
    let one = fleet.instance();
    let value = Counted::default();
    let ttl = Duration::from_millis(2);
    let remember = || one.cache.remember(&one.breaker, &key(1), ttl, &value);
    remember();
    fleet.hands.advance(Duration::from_micros(199));
    remember();
    assert_eq!(value.times(), 1);
    fleet.hands.advance(Duration::from_micros(1));
    remember();
    assert_eq!(value.times(), 2);
    one.cache.remember(&one.breaker, &key(2), Duration::ZERO, &value);
    assert_eq!(value.times(), 2, "a result that may never answer is not kept");
}

#[test]
fn a_success_while_fresh_does_not_allocate() {
    let fleet = Fleet::new();
    let one = fleet.instance();
    let value = vec!["a result"; 10];
    let remember = || {
        let mut hasher = KeyHasher::new("app::get_user", "1");
        hasher.arg(&7_u64);
        hasher.arg(LONG);
        hasher.arg(&Some((1.5, 'x', [Some(true), None])));
        let key = hasher.finish().unwrap();
        one.cache.remember(&one.breaker, &key, TTL, &value);
    };
    remember();
    one.settle();
    let fresh = allocation_counter::measure(|| (0..100).for_each(|_| remember()));
    assert_eq!(fresh.count_total, 0, "{fresh:?}");
    fleet.hands.advance(10 * SECOND);
    assert!(allocation_counter::measure(remember).count_total > 0, "the counter counts");
}

const LONG: &str = "an argument that is so long that the digest takes it in more than one piece: \
    0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 \
    0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789";

#[test]
fn of_many_successes_at_once_one_writes() {
    /// Takes so long to serialize that all others come meanwhile.
    struct Slow<'a>(&'a Counted, &'a AtomicUsize);
    impl Serialize for Slow<'_> {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            eventually("the others have been told that it is being done", || {
                self.1.load(Ordering::SeqCst) == 3
            });
            self.0.serialize(serializer)
        }
    }
    let fleet = Fleet::new();
    let one = fleet.instance();
    let (counted, done) = (Counted::default(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                one.remember(1, &Slow(&counted, &done));
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    assert_eq!(counted.times(), 1);
}

#[test]
fn more_hot_keys_than_the_table_has_places_are_still_written_once_per_interval() {
    let fleet = Fleet::new();
    let one = Instance::alone(fleet.clock.clone());
    let value = Counted::default();
    for _ in 0..3 {
        for number in 0..8000 {
            one.remember(number, &value);
        }
    }
    assert_eq!(value.times(), 8000);
}

#[test]
fn what_had_to_go_is_written_again_at_the_next_success() {
    let fleet = Fleet::new();
    let one = Instance::alone(fleet.clock.clone());
    one.remember(0, "ann");
    let big = "x".repeat(local::MAX_BYTES / 3);
    for number in 1..=3 {
        one.remember(number, &big);
    }
    assert_eq!(one.recall::<String>(0), None);
    one.remember(0, "ann");
    assert_eq!(one.recall::<String>(0).as_deref(), Some("ann"));
}

#[test]
fn the_store_gets_a_readable_key_and_the_ttl() {
    let fleet = Fleet::new();
    let one = fleet.instance();
    one.remember(1, "ann");
    one.settle();
    let keys = fleet.shelf.keys();
    let (name, digest) = keys[0].split_once(':').unwrap();
    assert_eq!((name, digest.len()), ("user-service", 64));
    let kept = fleet.shelf.kept.lock().unwrap();
    let (value, _, ttl) = &kept[&keys[0]];
    assert_eq!(*ttl, Some(TTL));
    let text = std::str::from_utf8(value).unwrap();
    assert!(text.starts_with(r#"{"v":1,"stored_at_ms":"#) && text.ends_with(r#""value":"ann"}"#), "{text}");
}

#[test]
fn a_slow_store_holds_up_no_call_and_gets_the_latest_only() {
    let fleet = Fleet::new();
    let one = fleet.instance();
    fleet.shelf.set(Mood::Frozen);
    one.remember(1, "first");
    eventually("the first is under way", || fleet.shelf.puts() == 1);
    for round in 0..5 {
        fleet.hands.advance(5 * SECOND);
        one.remember(1, &format!("later {round}"));
    }
    fleet.shelf.set(Mood::Well);
    one.settle();
    assert_eq!(fleet.shelf.puts(), 2);
    let other = fleet.instance();
    assert_eq!(other.recall::<String>(1).as_deref(), Some("later 4"));
}

#[test]
fn waiting_for_the_store_makes_no_result_younger() {
    let fleet = Fleet::new();
    let one = fleet.instance();
    one.up.store(false, Ordering::Relaxed);
    one.remember(1, "ann");
    fleet.hands.advance(100 * SECOND);
    one.up.store(true, Ordering::Relaxed);
    one.settle();
    let other = fleet.instance();
    assert_eq!(other.recall::<String>(1).as_deref(), Some("ann"));
    assert_eq!(other.hits(), [(CacheTier::Shared, 100)]);
}

#[test]
fn while_the_store_is_away_a_bounded_number_of_writes_waits() {
    let fleet = Fleet::new();
    let one = fleet.instance();
    one.up.store(false, Ordering::Relaxed);
    for number in 0..5000 {
        one.remember(number, "x");
    }
    let warnings = one.warnings();
    assert!((1..=20).contains(&warnings.len()), "{}", warnings.len());
    assert!(warnings[0].contains("too many are waiting"), "{}", warnings[0]);
    assert_eq!(one.recall::<String>(4999).as_deref(), Some("x"), "this process has it all the same");
    one.up.store(true, Ordering::Relaxed);
    one.settle();
    assert_eq!((fleet.shelf.puts(), fleet.shelf.keys().len()), (pending::MAX_WRITES, pending::MAX_WRITES));
}

#[test]
fn writes_that_have_become_too_late_are_not_made() {
    let fleet = Fleet::new();
    let one = fleet.instance();
    one.up.store(false, Ordering::Relaxed);
    one.remember(1, "ann");
    fleet.hands.advance(TTL);
    one.settle();
    one.up.store(true, Ordering::Relaxed);
    one.remember(2, "bob");
    one.settle();
    assert_eq!(fleet.shelf.puts(), 1);
}

#[test]
fn breakers_that_outlive_their_registry_do_not_keep_its_store() {
    let mut fleet = Fleet::new();
    let one = fleet.instance();
    one.up.store(false, Ordering::Relaxed);
    one.remember(1, "ann");
    let elsewhere = std::mem::replace(&mut fleet.shelf, Fleet::new().shelf);
    assert_eq!(Arc::strong_count(&elsewhere), 1);
    drop(elsewhere);
    one.up.store(true, Ordering::Relaxed);
    one.settle();
    one.remember(2, "bob");
    one.settle();
    assert_eq!(one.recall::<String>(2).as_deref(), Some("bob"));
    assert_eq!(one.recall::<String>(3), None);
    assert_eq!(one.warnings(), [""; 0]);
}

#[test]
fn nothing_runs_in_the_background_when_there_is_nothing_to_write() {
    let fleet = Fleet::new();
    let tasks = || fleet.background.metrics().num_alive_tasks();
    let one = fleet.instance();
    one.remember(1, "ann");
    one.settle();
    eventually("the writer ends", || tasks() == 0);
    one.up.store(false, Ordering::Relaxed);
    one.remember(2, "bob");
    assert_eq!(tasks(), 1);
    drop(one);
    eventually("a cache that is gone takes its writer along", || tasks() == 0);
}
