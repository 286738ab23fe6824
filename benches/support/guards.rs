//! One function, bare and under each guard. Each target includes this file, so that the compiler can inline
//! all of them alike.

use std::future::poll_fn;
use std::hint::black_box;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cb_runtime::{BreakerError, Registry, State, circuit_breaker};
use circuitbreaker_rs::{CircuitBreaker, DefaultPolicy};
use failsafe::backoff::{self, Constant};
use failsafe::failure_policy::{self, ConsecutiveFailures};
use failsafe::futures::CircuitBreaker as _;
use recloser::{AsyncRecloser, Recloser};
use tower::util::ServiceFn;
use tower::{Layer, Service, ServiceExt};
use tower_resilience::circuitbreaker::{
    CircuitBreakerError, CircuitBreakerHandle, CircuitBreakerLayer, CircuitState, DefaultClassifier,
};

/// For an hour, so that no breaker changes its state by itself while it is measured.
const OPEN_FOR: Duration = Duration::from_secs(3600);
const FAILURES: u32 = 5;

/// The argument for which the function fails.
pub const BROKEN: u64 = u64::MAX;

/// An error as services have them: one of several, with its cause.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("the dependency cannot be reached")]
    Down(#[from] io::Error),
    #[error("the call was not made")]
    Open(#[from] BreakerError),
    #[error("the call was not made")]
    Rejected,
}

fn down() -> Failure {
    io::Error::from(io::ErrorKind::ConnectionRefused).into()
}

pub type Answer = Result<u64, Failure>;

/// The function. It never waits: what is measured is the guard.
#[inline]
pub async fn bare(id: u64) -> Answer {
    if id == BROKEN { Err(down()) } else { Ok(black_box(id).wrapping_mul(3)) }
}

/// One way to call the function.
pub trait Guard: Sync {
    const NAME: &'static str;
    /// How it is used, for the legend.
    const HOW: &'static str;
    /// What a caller holds; made outside of the loop, one per thread.
    type Caller;
    /// It is tripped before it is measured, not after.
    const OPEN: bool = false;
    /// One of this project's.
    const OURS: bool = false;

    fn caller(&self) -> Self::Caller;
    fn call(&self, caller: &mut Self::Caller, id: u64) -> impl Future<Output = Answer>;
    /// Whether the guard admits calls, by its own word; `None` where there is no guard.
    fn admits(&self) -> Option<bool>;
}

pub struct Bare;

impl Guard for Bare {
    const NAME: &'static str = "the bare function";
    const HOW: &'static str = "";
    type Caller = ();

    fn caller(&self) {}

    #[inline]
    async fn call(&self, (): &mut (), id: u64) -> Answer {
        bare(id).await
    }

    fn admits(&self) -> Option<bool> {
        None
    }
}

fn is_closed(breaker: &str) -> bool {
    let breaker = Registry::global().breaker(breaker).expect("it has been called");
    match breaker.state() {
        State::Closed => true,
        State::Open => false,
        other => panic!("{other}"),
    }
}

#[circuit_breaker(name = "closed", failure_threshold = 5, reset_timeout = "1h")]
async fn closed(id: u64) -> Answer {
    if id == BROKEN { Err(down()) } else { Ok(black_box(id).wrapping_mul(3)) }
}

pub struct Closed;

impl Guard for Closed {
    const OURS: bool = true;
    const NAME: &'static str = "circuit_breaker, closed";
    const HOW: &'static str = "failure_threshold = 5";
    type Caller = ();

    fn caller(&self) {}

    #[inline]
    async fn call(&self, (): &mut (), id: u64) -> Answer {
        closed(id).await
    }

    fn admits(&self) -> Option<bool> {
        Some(is_closed("closed"))
    }
}

fn instead(id: u64) -> u64 {
    black_box(id).wrapping_mul(5)
}

#[circuit_breaker(name = "open", failure_threshold = 5, reset_timeout = "1h", fallback = instead)]
async fn open(id: u64) -> Answer {
    if id == BROKEN { Err(down()) } else { Ok(black_box(id).wrapping_mul(3)) }
}

/// Open from the start.
pub struct Open;

impl Guard for Open {
    const OPEN: bool = true;
    const OURS: bool = true;
    const NAME: &'static str = "circuit_breaker, open, fallback";
    const HOW: &'static str = "rejected; a fallback of the same arguments answers";
    type Caller = ();

    fn caller(&self) {}

    #[inline]
    async fn call(&self, (): &mut (), id: u64) -> Answer {
        open(id).await
    }

    fn admits(&self) -> Option<bool> {
        Some(is_closed("open"))
    }
}

#[circuit_breaker(name = "cached", failure_threshold = 5, reset_timeout = "1h", cache_ttl = 300)]
async fn cached(id: u64) -> Answer {
    if id == BROKEN { Err(down()) } else { Ok(black_box(id).wrapping_mul(3)) }
}

pub struct Cached;

impl Guard for Cached {
    const OURS: bool = true;
    const NAME: &'static str = "circuit_breaker, cache_ttl, fresh";
    const HOW: &'static str = "closed; the key is made of the argument at every call";
    type Caller = ();

    fn caller(&self) {}

    #[inline]
    async fn call(&self, (): &mut (), id: u64) -> Answer {
        cached(id).await
    }

    fn admits(&self) -> Option<bool> {
        Some(is_closed("cached"))
    }
}

/// The rest of ours, which differ in their attribute only.
macro_rules! ours {
    ($guard:ident, $function:ident, $name:literal, $how:literal, $breaker:literal, $($argument:tt)*) => {
        #[circuit_breaker(name = $breaker, $($argument)*)]
        async fn $function(id: u64) -> Answer {
            if id == BROKEN { Err(down()) } else { Ok(black_box(id).wrapping_mul(3)) }
        }

        impl Guard for $guard {
            const OURS: bool = true;
            const NAME: &'static str = $name;
            const HOW: &'static str = $how;
            type Caller = ();

            fn caller(&self) {}

            #[inline]
            async fn call(&self, (): &mut (), id: u64) -> Answer {
                $function(id).await
            }

            fn admits(&self) -> Option<bool> {
                Some(is_closed($breaker))
            }
        }
    };
}

pub struct Slow;

ours! {
    Slow, slow, "circuit_breaker, slow calls", "closed; slow_call_duration = 2 s, half of the calls of a minute", "slow",
    failure_threshold = 5, slow_call_duration = "2s", slow_call_rate_threshold = 0.5, reset_timeout = "1h"
}

pub struct LastCalls;

ours! {
    LastCalls, last_calls, "circuit_breaker, last 100 calls", "closed; half of the last 100 calls", "last-calls",
    failure_rate_threshold = 0.5, window_calls = 100, reset_timeout = "1h"
}

/// Has recovered, and ramps up for an hour.
pub struct Ramping;

ours! {
    Ramping, ramping, "circuit_breaker, ramping up", "closed since a moment: a tenth of the calls is admitted", "ramping",
    failure_threshold = 1, success_threshold = 1, reset_timeout = "1ms", ramp_up = "1h"
}

impl Ramping {
    pub fn new() -> Self {
        let guard = Ramping;
        trip(&guard);
        runtime().block_on(async {
            while guard.admits() == Some(false) {
                let _ = guard.call(&mut (), 7).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        guard
    }
}

pub struct Failsafe(failsafe::StateMachine<ConsecutiveFailures<Constant>, ()>);

impl Failsafe {
    pub fn new() -> Self {
        let policy = failure_policy::consecutive_failures(FAILURES, backoff::constant(OPEN_FOR));
        Failsafe(failsafe::Config::new().failure_policy(policy).build())
    }
}

impl Guard for Failsafe {
    const NAME: &'static str = "failsafe 1.3";
    const HOW: &'static str = "consecutive_failures(5)";
    type Caller = ();

    fn caller(&self) {}

    #[inline]
    async fn call(&self, (): &mut (), id: u64) -> Answer {
        self.0.call(bare(id)).await.map_err(|error| match error {
            failsafe::Error::Inner(error) => error,
            failsafe::Error::Rejected => Failure::Rejected,
        })
    }

    fn admits(&self) -> Option<bool> {
        Some(self.0.is_call_permitted())
    }
}

pub struct Reclosed(AsyncRecloser);

impl Reclosed {
    pub fn new() -> Self {
        Reclosed(Recloser::custom().closed_len(100).open_wait(OPEN_FOR).build().into())
    }
}

impl Guard for Reclosed {
    const NAME: &'static str = "recloser 1.4";
    const HOW: &'static str = "its default: half of the last 100 calls";
    type Caller = ();

    fn caller(&self) {}

    #[inline]
    async fn call(&self, (): &mut (), id: u64) -> Answer {
        self.0.call(bare(id)).await.map_err(|error| match error {
            recloser::Error::Inner(error) => error,
            recloser::Error::Rejected => Failure::Rejected,
        })
    }

    /// It shows its state to nobody, so it is asked by a call.
    fn admits(&self) -> Option<bool> {
        let asked = pin!(self.0.call(bare(1))).poll(&mut Context::from_waker(Waker::noop()));
        Some(matches!(asked, Poll::Ready(Ok(_))))
    }
}

pub struct CircuitBreakerRs(CircuitBreaker<DefaultPolicy, Failure>);

impl CircuitBreakerRs {
    pub fn new() -> Self {
        let builder = CircuitBreaker::<DefaultPolicy, Failure>::builder();
        CircuitBreakerRs(builder.consecutive_failures(FAILURES.into()).cooldown(OPEN_FOR).build())
    }
}

impl Guard for CircuitBreakerRs {
    const NAME: &'static str = "circuitbreaker-rs 0.1";
    const HOW: &'static str = "consecutive_failures(5)";
    type Caller = ();

    fn caller(&self) {}

    #[inline]
    async fn call(&self, (): &mut (), id: u64) -> Answer {
        self.0.call_async(|| bare(id)).await.map_err(|error| match error {
            circuitbreaker_rs::BreakerError::Operation(error) => error,
            _ => Failure::Rejected,
        })
    }

    fn admits(&self) -> Option<bool> {
        Some(self.0.current_state() == circuitbreaker_rs::State::Closed)
    }
}

pub struct TowerResilience<F> {
    layer: CircuitBreakerLayer<DefaultClassifier>,
    handle: CircuitBreakerHandle,
    function: F,
}

impl<F> TowerResilience<F> {
    pub fn new(function: F) -> Self {
        let builder = CircuitBreakerLayer::builder();
        let builder = builder.consecutive_failures(FAILURES as usize).wait_duration_in_open(OPEN_FOR);
        let (layer, handle) = builder.build_with_handle().expect("it is a valid configuration");
        TowerResilience { layer, handle, function }
    }
}

impl<F, Called> Guard for TowerResilience<F>
where
    F: Fn(u64) -> Called + Copy + Send + Sync + 'static,
    Called: Future<Output = Answer> + Send + 'static,
{
    const NAME: &'static str = "tower-resilience 0.13";
    const HOW: &'static str = "consecutive_failures(5); ready() and call() on a service per thread";
    type Caller = tower_resilience::circuitbreaker::CircuitBreaker<ServiceFn<F>, DefaultClassifier>;

    fn caller(&self) -> Self::Caller {
        self.layer.layer(tower::service_fn(self.function))
    }

    #[inline]
    async fn call(&self, caller: &mut Self::Caller, id: u64) -> Answer {
        let answer = match caller.ready().await {
            Ok(ready) => ready.call(id).await,
            Err(error) => Err(error),
        };
        answer.map_err(|error| match error {
            CircuitBreakerError::Inner(error) => error,
            CircuitBreakerError::OpenCircuit => Failure::Rejected,
        })
    }

    fn admits(&self) -> Option<bool> {
        Some(self.handle.state() == CircuitState::Closed)
    }
}

/// Does something with every guard; the bare function is not one of them.
pub trait Visit {
    fn visit(&mut self, guard: impl Guard + 'static);
}

pub fn visit_all(visitor: &mut impl Visit) {
    visitor.visit(Closed);
    visitor.visit(Open);
    visitor.visit(Cached);
    visitor.visit(Slow);
    visitor.visit(LastCalls);
    visitor.visit(Ramping::new());
    visitor.visit(Reclosed::new());
    visitor.visit(Failsafe::new());
    visitor.visit(CircuitBreakerRs::new());
    visitor.visit(TowerResilience::new(bare));
}

/// A runtime for one thread: some guards wait for a tokio lock.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built")
}

/// Polls a future, and is never inlined. A function that is worth a guard is not a part of its caller's loop
/// either; were the bare one (which does next to nothing) to dissolve in it, the guards would be charged
/// with the cost of calling a function at all.
#[inline(never)]
fn poll_apart<F: Future>(future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
    future.poll(cx)
}

/// Calls the function so often, and always with the same argument.
#[inline]
pub async fn call_often<G: Guard>(guard: &G, calls: u64) {
    let mut caller = guard.caller();
    for _ in 0..calls {
        let mut call = pin!(guard.call(&mut caller, black_box(7)));
        let _ = black_box(poll_fn(|cx| poll_apart(call.as_mut(), cx)).await);
    }
}

/// Lets the function fail until the guard rejects.
///
/// # Panics
/// If it never does.
pub fn trip<G: Guard>(guard: &G) {
    runtime().block_on(async {
        let mut caller = guard.caller();
        for _ in 0..1000 {
            let _ = guard.call(&mut caller, BROKEN).await;
            if guard.admits() == Some(false) {
                return;
            }
        }
        panic!("{} does not open", G::NAME);
    });
}
