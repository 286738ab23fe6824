//! Names that are made of the function's arguments: a breaker per value.

mod common;

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use cb_runtime::{BreakerConfig, Event, Events, Registry, State, circuit_breaker};
use common::Broken;

/// What the functions under test are told to do.
fn answer(good: bool) -> Result<u64, Broken> {
    if good { Ok(1) } else { Err(Broken::Down) }
}

fn state(breaker: &str) -> Option<State> {
    Registry::global().breaker(breaker).map(|breaker| breaker.state())
}

/// The errors that a registry has told of.
fn errors(events: &mut Events) -> Vec<String> {
    let error = |event| if let Event::Error(error) = event { Some(error.to_string()) } else { None };
    std::iter::from_fn(|| events.try_recv()).filter_map(error).collect()
}

#[tokio::test]
async fn each_value_has_a_breaker_of_its_own() {
    #[circuit_breaker(name = "tenant-{tenant}", failure_threshold = 2)]
    async fn call(tenant: &str, good: bool) -> Result<u64, Broken> {
        answer(good)
    }
    for _ in 0..2 {
        assert_eq!(call("a", false).await, Err(Broken::Down));
    }
    assert_eq!(call("a", true).await, Err(Broken::Open));
    assert_eq!(call("b", true).await, Ok(1));
    assert_eq!((state("tenant-a"), state("tenant-b")), (Some(State::Open), Some(State::Closed)));
    assert_eq!((state("tenant-{tenant}"), state("tenant-c")), (None, None));
}

#[tokio::test]
async fn placeholders_accept_format_specifications() {
    struct Region(&'static str);
    impl fmt::Display for Region {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.pad(self.0)
        }
    }
    struct Client {
        region: Region,
        shard: (u8, (u8, u8)),
    }
    impl Client {
        #[circuit_breaker(
            name = "form {self.region:>3} {self.shard.0}.{self.shard.1.1:02} {r#type:?} {{{id:#x}}}"
        )]
        async fn call(&self, r#type: &str, id: u32) -> Result<u64, Broken> {
            let _ = (r#type, id);
            answer(true)
        }
    }
    let client = Client { region: Region("eu"), shard: (7, (8, 9)) };
    client.call("a b", 255).await.unwrap();
    assert_eq!(state("form  eu 7.09 \"a b\" {0xff}"), Some(State::Closed));
}

#[tokio::test]
async fn placeholders_accept_bindings_of_patterns() {
    struct Place {
        city: String,
    }
    #[circuit_breaker(name = "place {city} {x}{y}", fallback = |_, _| Ok(2), fallback_on = "open")]
    async fn call(Place { city }: Place, (x, mut y): (u8, u8)) -> Result<u64, Broken> {
        y += x;
        let _ = (city, y);
        answer(true)
    }
    let city = "Ulm".to_owned();
    assert_eq!(call(Place { city }, (1, 2)).await, Ok(1));
    assert_eq!(state("place Ulm 12"), Some(State::Closed));
}

#[tokio::test]
async fn methods_of_all_kinds_can_have_such_a_name() {
    trait Shop {
        fn region(&self) -> &str;

        #[circuit_breaker(name = "trait {id}")]
        async fn find(&self, id: u8) -> Result<u64, Broken> {
            let _ = self.region();
            answer(id > 0)
        }
    }
    #[async_trait::async_trait]
    trait Store: Sync {
        async fn get(&self, id: &str) -> Result<u64, Broken>;
    }
    struct Region {
        name: String,
    }
    impl Shop for Region {
        fn region(&self) -> &str {
            &self.name
        }
    }
    #[async_trait::async_trait]
    impl Store for Region {
        #[circuit_breaker(name = "boxed {self.name} {id}")]
        async fn get(&self, id: &str) -> Result<u64, Broken> {
            let _ = id;
            answer(true)
        }
    }
    #[circuit_breaker(name = "generic {value}")]
    async fn generic<T: fmt::Display>(value: T) -> Result<u64, Broken> {
        let _ = value;
        answer(true)
    }
    fn sent<T: Send>(future: T) -> T {
        future
    }
    let region = Region { name: "eu".into() };
    region.find(1).await.unwrap();
    sent(region.get("7")).await.unwrap();
    sent(generic("x")).await.unwrap();
    sent(generic(1.5)).await.unwrap();
    for name in ["trait 1", "boxed eu 7", "generic x", "generic 1.5"] {
        assert_eq!(state(name), Some(State::Closed), "{name}");
    }
}

#[tokio::test]
async fn arguments_of_the_name_are_dropped_when_they_would_be_without_it() {
    struct Loud<'a>(&'a str, &'a Mutex<Vec<String>>);
    impl fmt::Display for Loud<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }
    impl Drop for Loud<'_> {
        fn drop(&mut self) {
            self.1.lock().unwrap().push(self.0.to_owned());
        }
    }
    #[circuit_breaker(name = "loud {named} {last}")]
    async fn call(named: Loud<'_>, used: Loud<'_>, last: Loud<'_>) -> Result<u64, Broken> {
        let _ = used.0;
        answer(true)
    }
    let dropped = Mutex::new(Vec::new());
    call(Loud("a", &dropped), Loud("b", &dropped), Loud("c", &dropped)).await.unwrap();
    assert_eq!(*dropped.lock().unwrap(), ["c", "b", "a"]);
}

#[tokio::test]
async fn two_braces_are_one_and_no_placeholder() {
    const CONSTANT: &str = "{constant}";
    #[circuit_breaker(name = "{{fixed}}")]
    async fn written() -> Result<u64, Broken> {
        answer(true)
    }
    #[circuit_breaker(name = CONSTANT)]
    async fn constant() -> Result<u64, Broken> {
        answer(true)
    }
    #[circuit_breaker(name = concat!("{", "put together}"))]
    async fn put_together() -> Result<u64, Broken> {
        answer(true)
    }
    for call in [written().await, constant().await, put_together().await] {
        call.unwrap();
    }
    for name in ["{fixed}", "{constant}", "{put together}"] {
        assert_eq!(state(name), Some(State::Closed), "{name}");
    }
}

#[tokio::test]
async fn name_is_looked_up_in_the_registry_that_is_named() {
    #[circuit_breaker(name = "in {id}", registry = registry, failure_threshold = 1)]
    async fn call(registry: &Registry, id: u64, good: bool) -> Result<u64, Broken> {
        answer(good)
    }
    let [one, other] = [(); 2].map(|()| Registry::builder().build().unwrap());
    call(&one, 1, false).await.unwrap_err();
    assert_eq!(call(&one, 1, true).await, Err(Broken::Open));
    assert_eq!(call(&one, 2, true).await, Ok(1));
    assert_eq!(call(&other, 1, true).await, Ok(1));
    let names =
        |registry: &Registry| registry.breakers().iter().map(|b| b.name().to_owned()).collect::<Vec<_>>();
    assert_eq!((names(&one), names(&other)), (vec!["in 1".into(), "in 2".into()], vec!["in 1".into()]));
}

#[tokio::test]
async fn keyed_function_may_have_a_fallback_a_timeout_and_a_predicate() {
    #[circuit_breaker(
        name = "all {id}",
        failure_threshold = 2,
        call_timeout = "20ms",
        is_failure = |result| matches!(result, Err(Broken::Down)),
        fallback = |_, _, _| 7
    )]
    async fn call(id: u64, good: bool, slow: bool) -> Result<u64, Broken> {
        let _ = id;
        if slow {
            std::future::pending::<()>().await;
        }
        answer(good)
    }
    assert_eq!(call(1, true, false).await, Ok(1));
    assert_eq!(call(1, false, false).await, Ok(7));
    assert_eq!(call(1, true, true).await, Ok(7));
    assert_eq!(state("all 1"), Some(State::Open));
    assert_eq!(call(1, true, false).await, Ok(7));
}

#[tokio::test]
async fn two_values_never_share_a_cached_result() {
    // The key leaves out what the name has.
    #[circuit_breaker(name = "cache {id}", cache_ttl = "1h", cache_key = 0, failure_threshold = 1)]
    async fn call(id: u64, good: bool) -> Result<u64, Broken> {
        answer(good).map(|one| one + id)
    }
    assert_eq!(call(1, true).await, Ok(2));
    assert_eq!(call(2, false).await, Err(Broken::Down));
    assert_eq!(call(1, false).await, Ok(2));
    assert_eq!(call(2, true).await, Err(Broken::Open));
}

#[tokio::test]
async fn functions_of_one_name_share_the_breaker_and_differing_settings_are_reported() {
    #[circuit_breaker(name = "shared {id}", registry = registry, failure_threshold = 2)]
    async fn first(registry: &Registry, id: u64, good: bool) -> Result<u64, Broken> {
        answer(good)
    }
    #[circuit_breaker(name = "shared {id}", registry = registry, failure_threshold = 3)]
    async fn second(registry: &Registry, id: u64, good: bool) -> Result<u64, Broken> {
        answer(good)
    }
    let registry = Registry::builder().build().unwrap();
    let mut events = registry.subscribe();
    first(&registry, 1, false).await.unwrap_err();
    second(&registry, 1, false).await.unwrap_err();
    assert_eq!(second(&registry, 1, true).await, Err(Broken::Open));
    let told = errors(&mut events);
    assert!(matches!(&told[..], [one] if one.contains("registered again with other settings")), "{told:?}");
}

#[tokio::test]
async fn empty_keyed_name_leaves_the_call_unguarded_and_is_reported() {
    #[circuit_breaker(name = "{name}", registry = registry, failure_threshold = 1)]
    async fn call(registry: &Registry, name: &str) -> Result<u64, Broken> {
        answer(false)
    }
    let registry = Registry::builder().build().unwrap();
    let mut events = registry.subscribe();
    for _ in 0..3 {
        assert_eq!(call(&registry, "").await, Err(Broken::Down));
    }
    let told = errors(&mut events);
    assert!(matches!(&told[..], [one] if one.contains("name of its breaker is empty")), "{told:?}");
}

#[tokio::test]
async fn invalid_settings_of_a_keyed_function_are_reported_once() {
    #[circuit_breaker(name = "wrong {id}", registry = registry, config = wrong())]
    async fn call(registry: &Registry, id: u64) -> Result<u64, Broken> {
        answer(true)
    }
    fn wrong() -> BreakerConfig {
        BreakerConfig::default().reset_timeout(Duration::ZERO)
    }
    let registry = Registry::builder().build().unwrap();
    let mut events = registry.subscribe();
    for id in 0..3 {
        call(&registry, id).await.unwrap();
    }
    let told = errors(&mut events);
    assert!(matches!(&told[..], [one] if one.contains("reset_timeout")), "{told:?}");
}

#[tokio::test]
async fn calls_of_one_name_share_a_breaker_whatever_its_parts() {
    struct Region(&'static str);
    impl fmt::Display for Region {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }
    #[circuit_breaker(name = "parts-{region}-{tenant}{id}", failure_threshold = 2)]
    async fn call(region: Region, tenant: String, id: i32, good: bool) -> Result<u64, Broken> {
        let _ = (region, tenant, id);
        answer(good)
    }
    #[circuit_breaker(name = "parts-{region}-{tenant}{id}", failure_threshold = 2)]
    async fn other(region: &str, tenant: &str, id: u64, good: bool) -> Result<u64, Broken> {
        let _ = (region, tenant, id);
        answer(good)
    }
    assert_eq!(call(Region("eu"), "a".into(), 12, false).await, Err(Broken::Down));
    assert_eq!(other("eu", "a1", 2, false).await, Err(Broken::Down));
    assert_eq!(call(Region("eu"), "a".into(), 12, true).await, Err(Broken::Open));
    assert_eq!(other("eu", "a", 12, true).await, Err(Broken::Open));
    assert_eq!(other("eu", "a", 13, true).await, Ok(1));
    assert_eq!(call(Region("us"), "a".into(), 12, true).await, Ok(1));
    assert_eq!(call(Region("eu"), "a".into(), -12, true).await, Ok(1));
    assert_eq!(state("parts-eu-a12"), Some(State::Open));
    assert_eq!(state("parts-eu-a-12"), Some(State::Closed));
}
