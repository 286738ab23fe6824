//! Which calls share a cached result: none but those that must.
#![allow(clippy::items_after_statements, reason = "functions stand where they are used")]

mod common;

use std::cell::Cell;
use std::time::Duration;

use cb_runtime::{BreakerConfig, circuit_breaker};
use common::Broken;
use serde::Serialize;
use serde::de::DeserializeOwned;

thread_local!(static DOWN: Cell<bool> = const { Cell::new(false) });

fn ask<T>(answer: T) -> Result<T, Broken> {
    if DOWN.get() { Err(Broken::Down) } else { Ok(answer) }
}

/// The call's answer while the dependency is up, if it is given again when it is down.
macro_rules! kept {
    ($call:expr) => {{
        DOWN.set(false);
        let good = $call.await;
        assert!(good.is_ok());
        assert_eq!(again!($call), good);
        good.unwrap()
    }};
}

/// The call's answer while the dependency is down.
macro_rules! again {
    ($call:expr) => {{
        DOWN.set(true);
        $call.await
    }};
}

#[tokio::test]
async fn versions_do_not_share() {
    mod versions {
        use super::{Broken, ask, circuit_breaker};

        macro_rules! version {
            ($module:ident, $version:expr) => {
                pub(super) mod $module {
                    use super::{Broken, ask, circuit_breaker};

                    #[circuit_breaker(name = "versions", cache_ttl = "5m", cache_key = 1, cache_version = $version)]
                    pub(crate) async fn get() -> Result<String, Broken> {
                        ask(format!("{:?}", stringify!($module)))
                    }
                }
            };
        }
        version!(a, 1);
        version!(b, "v2");
        version!(c, concat!("v", 3));
        #[circuit_breaker(name = "versions", cache_ttl = "5m", cache_key = 1)]
        pub(super) async fn get() -> Result<String, Broken> {
            ask("none".to_owned())
        }
    }
    assert_eq!(kept!(versions::get()), "none");
    assert_eq!(kept!(versions::a::get()), "\"a\"");
    assert_eq!(kept!(versions::b::get()), "\"b\"");
    assert_eq!(kept!(versions::c::get()), "\"c\"");
    assert_eq!(again!(versions::get()).unwrap(), "none");
}

#[tokio::test]
async fn results_of_another_cache_version_are_not_read() {
    thread_local!(static VERSION: Cell<&'static str> = const { Cell::new("1") });

    #[circuit_breaker(name = "bumped", cache_ttl = "5m", cache_version = VERSION.get())]
    async fn get() -> Result<u8, Broken> {
        ask(1)
    }
    kept!(get());
    VERSION.set("2");
    assert_eq!(again!(get()), Err(Broken::Down));
    VERSION.set("1");
    assert_eq!(again!(get()), Ok(1));
}

#[tokio::test]
async fn instances_of_a_generic_function_do_not_share() {
    #[circuit_breaker(name = "generic", cache_ttl = "5m")]
    async fn get<T: Serialize + DeserializeOwned + Default, const N: usize>(
        id: u8,
    ) -> Result<(T, u8), Broken> {
        ask((T::default(), id))
    }
    assert_eq!(kept!(get::<u8, 1>(1)), (0, 1));
    assert_eq!(again!(get::<u16, 1>(1)), Err(Broken::Down));
    assert_eq!(again!(get::<u8, 2>(1)), Err(Broken::Down));
    assert_eq!(again!(get::<u8, 1>(1)), Ok((0, 1)));
}

struct Users;
struct Orders;
struct Typed<T>(T);

trait Named {
    const NAME: &str;

    #[circuit_breaker(name = "impls", cache_ttl = "5m")]
    async fn find(id: u8) -> Result<String, Broken> {
        ask(format!("{} {id}", Self::NAME))
    }
}

impl Named for Users {
    const NAME: &str = "users' trait";
}

impl Named for Orders {
    const NAME: &str = "orders' trait";
}

impl Users {
    #[circuit_breaker(name = "impls", cache_ttl = "5m")]
    async fn find(id: u8) -> Result<String, Broken> {
        ask(format!("users {id}"))
    }
}

impl Typed<u8> {
    #[circuit_breaker(name = "impls", cache_ttl = "5m", cache_key = self.0)]
    async fn find(&self) -> Result<String, Broken> {
        ask(format!("u8 {}", self.0))
    }
}

impl Typed<u16> {
    #[circuit_breaker(name = "impls", cache_ttl = "5m", cache_key = self.0)]
    async fn find(&self) -> Result<String, Broken> {
        ask(format!("u16 {}", self.0))
    }
}

#[tokio::test]
async fn equal_names_in_two_impls_do_not_share() {
    assert_eq!(kept!(Users::find(1)), "users 1");
    assert_eq!(kept!(<Users as Named>::find(1)), "users' trait 1");
    assert_eq!(kept!(<Orders as Named>::find(1)), "orders' trait 1");
    assert_eq!(kept!(Typed(1u8).find()), "u8 1");
    assert_eq!(kept!(Typed(1u16).find()), "u16 1");
    assert_eq!(again!(Users::find(1)).unwrap(), "users 1");
    assert_eq!(again!(<Users as Named>::find(1)).unwrap(), "users' trait 1");
    assert_eq!(again!(Typed(1u8).find()).unwrap(), "u8 1");
}

#[tokio::test]
async fn equal_names_inside_two_functions_do_not_share() {
    async fn one() -> Result<u8, Broken> {
        #[circuit_breaker(name = "nested", cache_ttl = "5m")]
        async fn get() -> Result<u8, Broken> {
            ask(1)
        }
        get().await
    }
    async fn other() -> Result<u8, Broken> {
        #[circuit_breaker(name = "nested", cache_ttl = "5m")]
        async fn get() -> Result<u8, Broken> {
            ask(2)
        }
        get().await
    }
    kept!(one());
    assert_eq!(again!(other()), Err(Broken::Down));
}

#[tokio::test]
async fn all_arguments_are_part_of_the_key() {
    #[circuit_breaker(name = "arguments", cache_ttl = "5m")]
    async fn get(_: u8, _b: &str, (c, _): (u8, u8), [d, ..]: [u8; 2]) -> Result<u8, Broken> {
        ask(c + d)
    }
    assert_eq!(kept!(get(1, "b", (2, 3), [4, 5])), 6);
    assert_eq!(again!(get(0, "b", (2, 3), [4, 5])), Err(Broken::Down));
    assert_eq!(again!(get(1, "", (2, 3), [4, 5])), Err(Broken::Down));
    assert_eq!(again!(get(1, "b", (2, 0), [4, 5])), Err(Broken::Down));
    assert_eq!(again!(get(1, "b", (2, 3), [4, 0])), Err(Broken::Down));
}

#[tokio::test]
async fn key_may_use_bindings_of_patterns() {
    struct Query {
        id: u8,
        text: String,
    }

    #[circuit_breaker(name = "pattern-key", cache_ttl = "5m", cache_key = (id % 10, text.as_str(), pair + 1))]
    async fn get(Query { id, mut text }: Query, &(pair, _): &(u8, u8)) -> Result<String, Broken> {
        text.push('!');
        ask(format!("{id} {text} {pair}"))
    }
    let query = |id| Query { id, text: "x".into() };
    assert_eq!(kept!(get(query(1), &(1, 1))), "1 x! 1");
    assert_eq!(again!(get(query(11), &(1, 2))).unwrap(), "1 x! 1");
    assert_eq!(again!(get(query(2), &(1, 1))), Err(Broken::Down));
    assert_eq!(again!(get(query(1), &(2, 1))), Err(Broken::Down));
}

#[tokio::test]
async fn ttl_may_come_from_the_config() {
    fn config() -> BreakerConfig {
        BreakerConfig::default().cache_ttl(Duration::from_secs(300))
    }

    #[circuit_breaker(name = "config-ttl", config = config(), cache_key = id)]
    async fn get(id: u8) -> Result<u8, Broken> {
        ask(id)
    }
    kept!(get(3));
}

#[tokio::test]
async fn ignored_error_is_not_answered_by_the_cache() {
    #[circuit_breaker(
        name = "ignored-cache",
        cache_ttl = "5m",
        is_failure = |result| *result == Err(Broken::Down)
    )]
    async fn get(found: bool) -> Result<u8, Broken> {
        if DOWN.get() && !found { Err(Broken::NotFound) } else { ask(1) }
    }
    kept!(get(true));
    DOWN.set(false);
    assert_eq!(get(false).await, Ok(1));
    assert_eq!(again!(get(false)), Err(Broken::NotFound));
}

#[tokio::test]
async fn value_other_than_a_result_is_cached_whole() {
    #[circuit_breaker(
        name = "value-cache",
        cache_ttl = "5m",
        is_failure = Option::is_none,
        fallback = |id| Some(100 + id)
    )]
    async fn get(id: u8) -> Option<u8> {
        ask(id).ok()
    }
    DOWN.set(false);
    assert_eq!(get(1).await, Some(1));
    assert_eq!(again!(get(1)), Some(1));
    assert_eq!(again!(get(2)), Some(102));
}

#[tokio::test]
async fn functions_of_one_name_in_two_blocks_do_not_share() {
    fn first() -> impl Future<Output = Result<u8, Broken>> {
        {
            #[circuit_breaker(name = "blocks", cache_ttl = "5m")]
            async fn get() -> Result<u8, Broken> {
                ask(1)
            }
            get()
        }
    }
    let (one, other) = {
        let one = {
            #[circuit_breaker(name = "blocks", cache_ttl = "5m")]
            async fn get() -> Result<u8, Broken> {
                ask(2)
            }
            get
        };
        let other = {
            #[circuit_breaker(name = "blocks", cache_ttl = "5m")]
            async fn get() -> Result<u8, Broken> {
                ask(3)
            }
            get
        };
        (one, other)
    };
    assert_eq!(kept!(first()), 1);
    assert_eq!(again!(one()), Err(Broken::Down));
    assert_eq!(kept!(one()), 2);
    assert_eq!(again!(other()), Err(Broken::Down));
    assert_eq!(kept!(other()), 3);
    assert_eq!(again!(one()), Ok(2));
}

#[tokio::test]
async fn closures_and_local_types_as_generic_arguments_do_not_share() {
    #[circuit_breaker(name = "helper", cache_ttl = "5m", cache_key = 1)]
    async fn through<T>(answer: impl Fn() -> T, _type: T) -> Result<String, Broken>
    where
        T: std::fmt::Debug,
    {
        ask(format!("{:?}", answer()))
    }
    let one = || through(|| 1, 0);
    let other = || through(|| 2, 0);
    assert_eq!(kept!(one()), "1");
    assert_eq!(again!(other()), Err(Broken::Down));
    assert_eq!(kept!(other()), "2");
    assert_eq!(again!(one()).unwrap(), "1");

    #[circuit_breaker(name = "helper", cache_ttl = "5m")]
    async fn of<T: Default + std::fmt::Debug>() -> Result<String, Broken> {
        ask(format!("{:?}", T::default()))
    }
    let one = {
        #[derive(Debug, Default)]
        #[expect(dead_code, reason = "printed")]
        struct Local(u8);
        || of::<Local>()
    };
    let other = {
        #[derive(Debug, Default)]
        #[expect(dead_code, reason = "printed")]
        struct Local(bool);
        || of::<Local>()
    };
    assert_eq!(kept!(one()), "Local(0)");
    assert_eq!(again!(other()), Err(Broken::Down));
    assert_eq!(kept!(other()), "Local(false)");
}

#[tokio::test]
async fn borrowed_generic_arguments_are_served() {
    #[circuit_breaker(name = "borrowed-generic", cache_ttl = "5m", cache_key = 1)]
    async fn get<'a, T: AsRef<str> + 'a>(text: &T) -> Result<String, Broken> {
        ask(text.as_ref().to_owned())
    }
    let text = String::from("text");
    let borrowed: &str = &text;
    assert_eq!(kept!(get(&borrowed)), "text");
    assert_eq!(again!(get(&text)), Err(Broken::Down));
}

#[tokio::test]
async fn result_that_json_would_change_comes_back_as_it_was() {
    use std::collections::HashMap;

    #[circuit_breaker(name = "nested", cache_ttl = "5m")]
    async fn nested(id: u8) -> Result<Option<Option<u8>>, Broken> {
        ask([None, Some(None), Some(Some(1))][usize::from(id)])
    }
    #[circuit_breaker(name = "pairs", cache_ttl = "5m")]
    async fn pairs() -> Result<HashMap<(u8, u8), f32>, Broken> {
        ask(HashMap::from([((1, 2), 0.1), ((3, 4), f32::INFINITY)]))
    }
    assert_eq!(kept!(nested(0)), None);
    assert_eq!(kept!(nested(1)), Some(None));
    assert_eq!(kept!(nested(2)), Some(Some(1)));
    assert_eq!(kept!(pairs()), HashMap::from([((1, 2), 0.1), ((3, 4), f32::INFINITY)]));
}
