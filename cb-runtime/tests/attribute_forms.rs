//! Ordinary code, guarded: it compiles, and does what it does without.
#![allow(
    clippy::diverging_sub_expression,
    clippy::items_after_statements,
    clippy::manual_async_fn,
    clippy::many_single_char_names,
    clippy::needless_arbitrary_self_type,
    clippy::never_loop,
    clippy::non_minimal_cfg,
    clippy::too_many_arguments,
    clippy::unnested_or_patterns,
    reason = "the code under test is as odd as users' code can be"
)]

mod common;

use std::cell::Cell;
use std::fmt::{Debug, Display};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use cb_runtime::circuit_breaker;
use common::{Broken, outcomes, poll_once};

#[tokio::test]
async fn question_marks_returns_and_breaks_stay_in_the_body() {
    #[circuit_breaker(name = "control-flow")]
    async fn call(text: &str) -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
        if text.is_empty() {
            return Ok(0);
        }
        let found = loop {
            break text.parse::<u32>()?;
        };
        Ok(found)
    }
    assert_eq!(call("").await.unwrap(), 0);
    assert_eq!(call("7").await.unwrap(), 7);
    assert!(call("x").await.unwrap_err().is::<std::num::ParseIntError>());
}

#[tokio::test]
async fn every_kind_of_return_type() {
    #[circuit_breaker(name = "unit", call_timeout = 1, fallback = |_| ())]
    async fn unit(done: &Cell<bool>) {
        done.set(true);
    }

    #[circuit_breaker(name = "io")]
    async fn io_result() -> io::Result<u8> {
        Err(io::Error::other("x"))
    }

    #[circuit_breaker(name = "opaque")]
    async fn opaque() -> Result<impl Display, Broken> {
        Ok(1)
    }

    #[circuit_breaker(name = "opaque-value", call_timeout = 1, fallback = || 0)]
    async fn opaque_value() -> impl Display + Into<i64> {
        1
    }

    #[circuit_breaker(name = "never", call_timeout = 1, fallback = || std::process::abort())]
    async fn never() -> ! {
        std::future::pending().await
    }

    #[circuit_breaker(name = "anyhow")]
    async fn anyhow(ok: bool) -> anyhow::Result<u8> {
        anyhow::ensure!(ok, "not ok");
        Ok(1)
    }

    let done = Cell::new(false);
    unit(&done).await;
    assert!(done.get());
    assert!(io_result().await.is_err());
    assert_eq!(opaque().await.unwrap().to_string(), "1");
    assert_eq!(Into::<i64>::into(opaque_value().await), 1);
    assert!(poll_once(never()).is_pending());
    assert_eq!(anyhow(true).await.unwrap(), 1);
    assert!(anyhow(false).await.is_err());
    assert_eq!(outcomes("anyhow").failure, 1);
}

struct Service<T> {
    value: T,
}

impl<T: Clone + Debug> Service<T> {
    #[circuit_breaker(name = "receiver")]
    async fn by_reference(&self) -> Result<&T, Broken> {
        Ok(&self.value)
    }

    #[circuit_breaker(name = "receiver")]
    async fn exclusive(&mut self, value: T) -> Result<&mut T, Broken> {
        self.value = value;
        Ok(&mut self.value)
    }

    #[circuit_breaker(name = "receiver")]
    async fn by_value(mut self, value: T) -> Result<Self, Broken> {
        self.value = value;
        Ok(self)
    }

    #[circuit_breaker(name = "receiver")]
    async fn in_arc(self: Arc<Self>) -> Result<T, Broken> {
        Ok(self.value.clone())
    }

    #[circuit_breaker(name = "receiver")]
    async fn typed(self: &Self) -> Result<String, Broken> {
        Ok(format!("{:?}", vec![&self.value]))
    }

    #[circuit_breaker(name = "receiver")]
    async fn none<const N: usize>(value: T) -> Result<[T; N], Broken>
    where
        T: Copy,
    {
        Ok([value; N])
    }
}

#[tokio::test]
async fn every_receiver() {
    let mut service = Service { value: 1 };
    assert_eq!(service.by_reference().await, Ok(&1));
    *service.exclusive(2).await.unwrap() += 1;
    assert_eq!(service.typed().await.unwrap(), "[3]");
    let service = Arc::new(service.by_value(4).await.ok().unwrap());
    assert_eq!(service.in_arc().await, Ok(4));
    assert_eq!(Service::none::<2>(5).await, Ok([5, 5]));
    assert_eq!(outcomes("receiver").success, 6);
}

#[circuit_breaker(name = "lifetimes")]
async fn longest<'a, 'b: 'a>(a: &'a str, b: &'b str) -> Result<&'a str, Broken> {
    Ok(if a.len() > b.len() { a } else { b })
}

#[circuit_breaker(name = "impl-argument", fallback = |text| Ok(text.to_string()))]
async fn impl_argument(text: impl Display + Clone) -> Result<String, Broken> {
    Ok(format!("<{text}>"))
}

#[tokio::test]
async fn lifetimes_and_opaque_arguments() {
    assert_eq!(longest("aa", "b").await, Ok("aa"));
    assert_eq!(impl_argument(3).await.unwrap(), "<3>");
}

#[derive(Clone)]
struct Pair {
    left: String,
    right: u8,
}

struct Tuple(u8);

#[tokio::test]
async fn patterns_in_the_place_of_arguments() {
    #[circuit_breaker(name = "patterns", fallback = |_, _, pair, _, _, _, _| Ok(pair.left))]
    async fn with_fallback(
        mut a: u8,
        _: u8,
        Pair { left, .. }: Pair,
        &b: &u8,
        [c, d]: [u8; 2],
        (e, (ref f, _)): (u8, (String, u8)),
        (g @ 1..=u8::MAX | g @ 0): u8,
    ) -> Result<String, Broken> {
        a += b + c + d + e + g;
        if a == 0 { Err(Broken::Down) } else { Ok(format!("{left} {f} {a}")) }
    }
    let pair = || Pair { left: "l".into(), right: 0 };
    assert_eq!(pair().right, 0);
    let answer = with_fallback(1, 0, pair(), &2, [3, 4], (5, ("f".into(), 0)), 6).await;
    assert_eq!(answer.as_deref(), Ok("l f 21"));
    let answer = with_fallback(0, 0, pair(), &0, [0, 0], (0, ("f".into(), 0)), 0).await;
    assert_eq!(answer.as_deref(), Ok("l"));

    #[circuit_breaker(name = "patterns")]
    async fn without(Tuple(a): Tuple, mut b: Vec<u8>, _: &str) -> Result<Vec<u8>, Broken> {
        b.push(a);
        Ok(b)
    }
    assert_eq!(without(Tuple(1), vec![], "").await, Ok(vec![1]));
}

#[tokio::test]
async fn arguments_may_have_any_name() {
    #[circuit_breaker(name = "names", fallback = |_, _, _, _, _, _, _, _, _, _, _, _| Ok(0))]
    async fn call(
        key: u8,
        result: u8,
        cache: u8,
        name: u8,
        body: u8,
        ended: u8,
        breaker: u8,
        output: u8,
        r#type: u8,
        form: u8,
        spare: u8,
        args: u8,
    ) -> Result<u8, Broken> {
        Ok(key + result + cache + name + body + ended + breaker + output + r#type + form + spare + args)
    }
    assert_eq!(call(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1).await, Ok(12));
}

#[tokio::test]
async fn an_argument_that_is_not_always_there() {
    #[circuit_breaker(name = "cfg")]
    async fn call(#[cfg(any())] gone: u8, #[cfg(all())] here: u8) -> Result<u8, Broken> {
        #[cfg(any())]
        return gone;
        Ok(here)
    }
    assert_eq!(call(4).await, Ok(4));
}

trait Remote {
    async fn get(&self, id: u8) -> Result<u8, Broken>;

    #[circuit_breaker(name = "default-method")]
    async fn twice(&self, id: u8) -> Result<u8, Broken>
    where
        Self: Sized,
    {
        Ok(self.get(id).await? * 2)
    }
}

impl Remote for u8 {
    #[circuit_breaker(name = "trait-method", fallback = Self::fallback)]
    async fn get(&self, id: u8) -> Result<u8, Broken> {
        if id == 0 { Err(Broken::Down) } else { Ok(*self + id) }
    }
}

trait Fallback {
    fn fallback(&self, id: u8) -> Result<u8, Broken>;
}

impl Fallback for u8 {
    fn fallback(&self, _id: u8) -> Result<u8, Broken> {
        Ok(99)
    }
}

#[tokio::test]
async fn async_functions_in_traits() {
    assert_eq!(1.get(2).await, Ok(3));
    assert_eq!(1.get(0).await, Ok(99));
    assert_eq!(1.twice(2).await, Ok(6));
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

#[circuit_breaker(name = "boxed", fallback = |name, early| Ok(format!("{name} {early}")))]
fn boxed(name: &str, early: bool) -> Pin<Box<dyn Future<Output = Result<String, Broken>> + Send + '_>> {
    if early {
        return Box::pin(async { Err(Broken::Down) });
    }
    Box::pin(async move { Ok(name.to_owned()) })
}

#[circuit_breaker(name = "impl-future")]
fn impl_future(name: &str) -> impl Future<Output = Result<String, Broken>> + Send {
    let name = name.to_owned();
    async move { Ok(name) }
}

#[tokio::test]
async fn functions_that_return_a_future() {
    let sent: Boxed<'_, _> = boxed("a", false);
    assert_eq!(sent.await.as_deref(), Ok("a"));
    assert_eq!(boxed("a", true).await.as_deref(), Ok("a true"));
    assert_eq!(outcomes("boxed").failure, 1);
    assert_eq!(impl_future("b").await.as_deref(), Ok("b"));
}

#[async_trait::async_trait]
trait Store {
    async fn load(&self, id: u8) -> Result<u8, Broken>;

    #[circuit_breaker(name = "async-trait-default", fallback = |_this, id| Ok(id), fallback_on = "open")]
    async fn save(&mut self, id: u8) -> Result<u8, Broken>
    where
        Self: Sized,
    {
        self.load(id).await
    }
}

#[async_trait::async_trait]
impl Store for Arc<Vec<u8>> {
    #[circuit_breaker(name = "async-trait", cache_ttl = "1m", cache_key = (self.len(), id))]
    async fn load(&self, id: u8) -> Result<u8, Broken> {
        tokio::task::yield_now().await;
        self.get(usize::from(id)).copied().ok_or(Broken::NotFound)
    }
}

#[tokio::test]
async fn async_trait_in_either_order() {
    let mut store = Arc::new(vec![5]);
    let dynamic: &dyn Store = &store;
    assert_eq!(dynamic.load(0).await, Ok(5));
    assert_eq!(dynamic.load(1).await, Err(Broken::NotFound));
    assert_eq!(store.save(0).await, Ok(5));
    assert_eq!((outcomes("async-trait").success, outcomes("async-trait").failure), (2, 1));
}

#[tokio::test]
async fn recursion_in_a_box() {
    #[circuit_breaker(name = "recursion")]
    async fn sum(n: u64) -> Result<u64, Broken> {
        if n == 0 { Ok(0) } else { Ok(n + Box::pin(sum(n - 1)).await?) }
    }
    assert_eq!(sum(10).await, Ok(55));
    assert_eq!(outcomes("recursion").success, 11);
}

#[tokio::test]
async fn of_two_breakers_on_one_function_the_upper_one_is_inside() {
    // As with all attributes: the upper one is expanded first, the lower one around what came of it.
    #[circuit_breaker(name = "inner", failure_threshold = 1)]
    #[circuit_breaker(name = "outer")]
    async fn call(n: u8) -> Result<u8, Broken> {
        if n == 0 { Err(Broken::Down) } else { Ok(n) }
    }
    assert_eq!(call(1).await, Ok(1));
    assert_eq!(call(0).await, Err(Broken::Down));
    assert_eq!(call(1).await, Err(Broken::Open));
    assert_eq!((outcomes("outer").failure, outcomes("inner").failure), (2, 1));
}

macro_rules! guarded {
    ($name:ident, $breaker:literal, $arg:ident: $ty:ty => $body:expr) => {
        #[circuit_breaker(name = $breaker, fallback = |argument| Ok(argument))]
        async fn $name($arg: $ty) -> Result<$ty, Broken> {
            $body
        }
    };
}

guarded!(from_a_macro, "macro", x: u8 => if x == 1 { Err(Broken::Down) } else { Ok(x * 2) });

#[tokio::test]
async fn a_function_from_a_macro() {
    assert_eq!(from_a_macro(4).await, Ok(8));
    assert_eq!(from_a_macro(1).await, Ok(1));
}

#[tokio::test]
async fn a_name_that_is_a_constant() {
    const NAME: &str = "constant";

    #[circuit_breaker(name = NAME)]
    async fn constant() -> Result<(), Broken> {
        Ok(())
    }
    #[circuit_breaker(name = SITE)]
    async fn with_a_name_of_ours() -> Result<(), Broken> {
        Ok(())
    }
    const SITE: &str = "site";
    with_a_name_of_ours().await.unwrap();

    #[circuit_breaker(name = concat!("con", "cat"))]
    async fn concatenated() -> Result<(), Broken> {
        Ok(())
    }
    constant().await.unwrap();
    concatenated().await.unwrap();
    assert_eq!((outcomes("constant").success, outcomes("concat").success), (1, 1));
}

#[circuit_breaker(name = "send", fallback = |_| Ok(0), cache_ttl = "1m")]
async fn send(text: String) -> Result<u8, Broken> {
    tokio::task::yield_now().await;
    Ok(u8::try_from(text.len()).unwrap_or(0))
}

#[circuit_breaker(name = "not-send")]
async fn not_send(text: Rc<str>) -> Result<Rc<str>, Broken> {
    tokio::task::yield_now().await;
    Ok(text)
}

#[circuit_breaker(name = "sends")]
async fn returns_what_is_not_send() -> Result<Rc<str>, Broken> {
    tokio::task::yield_now().await;
    Ok("x".into())
}

#[tokio::test]
async fn what_can_be_sent_can_be_sent_guarded_and_what_cannot_still_compiles() {
    fn assert_send<F: Future + Send>(future: F) -> F {
        future
    }
    assert_eq!(assert_send(send("abc".into())).await, Ok(3));
    assert_eq!(assert_send(returns_what_is_not_send()).await.as_deref(), Ok("x"));
    assert_eq!(not_send("a".into()).await.as_deref(), Ok("a"));
}

thread_local!(static DROPPED: Cell<[char; 8]> = const { Cell::new([' '; 8]) });

#[derive(Clone)]
struct Noisy(char);

impl Drop for Noisy {
    fn drop(&mut self) {
        let mut dropped = DROPPED.get();
        dropped.rotate_left(1);
        dropped[7] = self.0;
        DROPPED.set(dropped);
    }
}

/// What was dropped while the future ran, in order.
async fn dropped_by<T>(future: impl Future<Output = T>) -> String {
    DROPPED.set([' '; 8]);
    future.await;
    DROPPED.get().iter().collect::<String>().trim().to_owned()
}

macro_rules! drop_order {
    ($($(#[$attribute:meta])* $name:ident)*) => {$(
        $(#[$attribute])*
        async fn $name(a: Noisy, _: Noisy, c: Noisy, _d: Noisy, (e, _f): (Noisy, Noisy)) -> Result<(), Broken> {
            let inside = c;
            tokio::task::yield_now().await;
            let _ = (&a, &inside, &e);
            Ok(())
        }
    )*};
}

drop_order! {
    bare_drops
    #[circuit_breaker(name = "drops")]
    guarded_drops
    #[circuit_breaker(name = "drops", fallback = |_, _, _, _, _| Ok(()), fallback_on = "open")]
    guarded_drops_with_fallback
}

#[tokio::test]
async fn arguments_are_dropped_in_the_same_order_as_without_the_attribute() {
    let n = |name| Noisy(name);
    let bare = dropped_by(bare_drops(n('a'), n('b'), n('c'), n('d'), (n('e'), n('f')))).await;
    assert_eq!(bare, "cfedba");
    let guarded = dropped_by(guarded_drops(n('a'), n('b'), n('c'), n('d'), (n('e'), n('f')))).await;
    assert_eq!(guarded, bare);
    let guarded =
        dropped_by(guarded_drops_with_fallback(n('a'), n('b'), n('c'), n('d'), (n('e'), n('f')))).await;
    assert_eq!(guarded, bare);
}

/// Everything an expansion could stumble over.
mod hostile {
    #![no_implicit_prelude]
    #![allow(dead_code, non_snake_case)]

    mod std {}
    mod core {}
    mod cb_runtime {}
    struct Result;
    struct Option;
    fn Ok() {}
    fn Err() {}
    fn Some() {}
    fn None() {}
    const SITE: u8 = 0;

    #[::cb_runtime::circuit_breaker(
        name = "hostile",
        fallback = |_| ::core::result::Result::Ok(0),
        cache_ttl = 5,
        failure_rate_threshold = 1,
        window = "1m",
        call_timeout = 1.5
    )]
    pub(super) async fn call(x: u8) -> ::core::result::Result<u8, super::Broken> {
        ::core::result::Result::Ok(x + SITE)
    }
}

#[tokio::test]
async fn other_items_of_the_same_names_do_no_harm() {
    assert_eq!(hostile::call(2).await, Ok(2));
}

mod facade {
    pub(crate) mod inner {
        pub(crate) use cb_runtime::*;
    }
}

#[tokio::test]
async fn the_runtime_by_another_path() {
    #[facade::inner::circuit_breaker(name = "facade", crate = facade::inner, cache_ttl = "1m")]
    async fn call() -> Result<(), Broken> {
        Ok(())
    }
    call().await.unwrap();
    assert_eq!(outcomes("facade").success, 1);
}

#[tokio::test]
async fn attributes_go_back_to_where_they_were() {
    /// Documented.
    #[inline]
    #[must_use = "used"]
    #[circuit_breaker(name = "attributes")]
    async fn call() -> Result<(), Broken> {
        #![allow(unused_variables)]
        let x = 1;
        Ok(())
    }
    call().await.unwrap();
}
