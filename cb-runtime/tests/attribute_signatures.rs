//! Ordinary code, guarded: it compiles, and does what it does without.
#![allow(
    clippy::diverging_sub_expression,
    clippy::items_after_statements,
    clippy::manual_async_fn,
    clippy::needless_arbitrary_self_type,
    clippy::never_loop,
    clippy::useless_vec,
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
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use cb_runtime::clock::Clock;
use cb_runtime::{Registry, State, circuit_breaker};
use common::{Broken, bounded, outcomes, poll_once};

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
    assert_eq!((outcomes("control-flow").success, outcomes("control-flow").failure), (2, 1));
}

#[tokio::test]
async fn every_kind_of_return_type() {
    #[circuit_breaker(name = "unit", call_timeout = 1, fallback = |_| ())]
    async fn unit(done: &Cell<bool>) {
        done.set(true);
    }

    #[circuit_breaker(name = "option", is_failure = Option::is_none, fallback = || None)]
    async fn option() -> Option<u8> {
        Some(1)
    }

    #[circuit_breaker(name = "plain", call_timeout = 1, fallback = || 0)]
    async fn plain() -> u8 {
        1
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
    assert_eq!((option().await, plain().await), (Some(1), 1));
    assert!(io_result().await.is_err());
    assert_eq!(outcomes("io").failure, 1);
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
    async fn typed_exclusive<'a>(self: &'a mut Self, value: T) -> Result<&'a T, Broken> {
        self.value = value;
        Ok(&self.value)
    }

    #[circuit_breaker(name = "receiver")]
    async fn in_box(mut self: Box<Self>, value: T) -> Result<T, Broken> {
        self.value = value;
        Ok(self.value)
    }

    #[circuit_breaker(name = "receiver", fallback = |this| Ok(this.value.clone()))]
    async fn in_rc(self: Rc<Self>) -> Result<T, Broken> {
        Err(Broken::Down)
    }

    #[circuit_breaker(name = "receiver", fallback = |this| Ok(this.value.clone()))]
    async fn by_reference_to_arc(self: &Arc<Self>) -> Result<T, Broken> {
        Err(Broken::Down)
    }

    #[circuit_breaker(name = "receiver")]
    async fn pinned(self: Pin<&Self>) -> Result<T, Broken> {
        Ok(self.value.clone())
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
    assert_eq!(service.typed_exclusive(4).await, Ok(&4));
    assert_eq!(Pin::new(&service).pinned().await, Ok(4));
    let service = Arc::new(service.by_value(5).await.ok().unwrap());
    assert_eq!(service.by_reference_to_arc().await, Ok(5));
    assert_eq!(service.in_arc().await, Ok(5));
    assert_eq!(Box::new(Service { value: 1 }).in_box(2).await, Ok(2));
    assert_eq!(Rc::new(Service { value: 1 }).in_rc().await, Ok(1));
    assert_eq!(Service::none::<2>(5).await, Ok([5, 5]));
    assert_eq!((outcomes("receiver").success, outcomes("receiver").failure), (9, 2));
}

impl Service<u8> {
    const STEP: u8 = 10;

    #[circuit_breaker(name = "nested-macros", fallback = |this| Ok(format!("{}", this.value + Self::STEP)))]
    async fn described(&self) -> Result<String, Broken> {
        macro_rules! step {
            ($this:expr) => {
                $this.value + Self::STEP
            };
        }
        let words = vec![format!("{}", self.value), format!("{:?}", step!(self))];
        if matches!(self, Self { value: 0 }) { Err(Broken::Down) } else { Ok(words.join(" ")) }
    }
}

#[tokio::test]
async fn self_inside_of_macros_in_the_body() {
    assert_eq!(Service { value: 1 }.described().await.as_deref(), Ok("1 11"));
    assert_eq!(Service { value: 0 }.described().await.as_deref(), Ok("10"));
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

#[test]
fn code_before_the_future_runs_at_once_only_for_an_argument_that_cannot_be_sent() {
    type Reply<'a> = Boxed<'a, Result<String, Broken>>;
    #[circuit_breaker(name = "before")]
    fn opaque<'a>(ran: &'a AtomicBool, text: impl Into<String>) -> Reply<'a> {
        ran.store(true, Relaxed);
        let text = text.into();
        Box::pin(async { Ok(text) })
    }
    #[circuit_breaker(name = "before")]
    fn of_a_parameter<T: Into<String>>(ran: &AtomicBool, text: T) -> Reply<'_> {
        ran.store(true, Relaxed);
        let text = text.into();
        Box::pin(async { Ok(text) })
    }
    #[circuit_breaker(name = "before")]
    fn sendable<'a>(ran: &'a AtomicBool, text: impl Into<String> + Send + 'a) -> Reply<'a> {
        ran.store(true, Relaxed);
        Box::pin(async { Ok(text.into()) })
    }
    #[circuit_breaker(name = "before")]
    fn sendable_parameter<'a, T>(ran: &'a AtomicBool, text: T) -> Reply<'a>
    where
        T: Into<String> + Send + 'a,
    {
        ran.store(true, Relaxed);
        Box::pin(async { Ok(text.into()) })
    }
    #[circuit_breaker(name = "before")]
    fn of_one_thread<'a, T>(
        ran: &'a AtomicBool,
        text: T,
    ) -> Pin<Box<dyn Future<Output = Result<String, Broken>> + 'a>>
    where
        T: Into<String> + 'a,
    {
        ran.store(true, Relaxed);
        Box::pin(async { Ok(text.into()) })
    }

    let ran_at_once = |call: &dyn Fn(&AtomicBool)| {
        let ran = AtomicBool::new(false);
        call(&ran);
        ran.into_inner()
    };
    assert!(ran_at_once(&|ran| drop(opaque(ran, "a"))));
    assert!(ran_at_once(&|ran| drop(of_a_parameter(ran, "a"))));
    assert!(!ran_at_once(&|ran| drop(sendable(ran, "a"))));
    assert!(!ran_at_once(&|ran| drop(sendable_parameter(ran, "a"))));
    assert!(!ran_at_once(&|ran| drop(of_one_thread(ran, "a"))));
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
async fn recursive_call_is_rejected_while_its_caller_has_the_only_probe() {
    thread_local!(static HERE: Cell<Option<&'static Registry>> = const { Cell::new(None) });
    #[circuit_breaker(
        name = "itself", registry = HERE.get().unwrap(), failure_threshold = 1, reset_timeout = "1m",
        half_open_max_calls = 1, success_threshold = 1
    )]
    async fn call(depth: u8) -> Result<u8, Broken> {
        if depth == 0 {
            return Err(Broken::Down);
        }
        assert_eq!(Box::pin(call(depth - 1)).await, Err(Broken::Open));
        Ok(depth)
    }
    let (clock, hands) = Clock::manual();
    // For ever, so that the attribute can name it: it is a test's.
    let registry = Box::leak(Box::new(Registry::builder().clock(clock).build().unwrap()));
    HERE.set(Some(registry));
    assert_eq!(call(0).await, Err(Broken::Down));
    let breaker = registry.breaker("itself").unwrap();
    // The store times the open state from the moment at which it receives the opening.
    bounded(async {
        while breaker.snapshot().epoch == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    hands.advance(Duration::from_secs(60));
    assert_eq!(bounded(call(1)).await, Ok(1));
    assert_eq!(breaker.state(), State::Closed);
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
async fn guarded_future_is_send_if_the_body_is() {
    fn assert_send<F: Future + Send>(future: F) -> F {
        future
    }
    assert_eq!(assert_send(send("abc".into())).await, Ok(3));
    assert_eq!(assert_send(returns_what_is_not_send()).await.as_deref(), Ok("x"));
    assert_eq!(not_send("a".into()).await.as_deref(), Ok("a"));
}
