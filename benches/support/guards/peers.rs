//! Other crates: breakers that are closed, open, or see failures below their limit, and two caches.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use circuitbreaker_rs::{CircuitBreaker, DefaultPolicy};
use failsafe::backoff::{self, Constant};
use failsafe::failure_policy::{self, ConsecutiveFailures, SuccessRateOverTimeWindow};
use failsafe::futures::CircuitBreaker as _;
use recloser::{AsyncRecloser, Recloser};
use tower::util::ServiceFn;
use tower::{Layer, Service, ServiceExt};
use tower_resilience::circuitbreaker::{
    CircuitBreakerError, CircuitBreakerHandle, CircuitBreakerLayer, CircuitState, DefaultClassifier,
};

use super::answers::{Answer, Failure};
use super::{
    BROKEN, Bare, Circuit, FAILURES, FailingBare, Guard, OPEN_FOR, Visit, bare, own_numbers, sometimes_broken,
};

/// The measured case: `CLOSED`, `OPEN`, or closed while three of ten calls fail.
pub const CLOSED: u8 = 0;
pub const OPEN: u8 = 1;
pub const FAILING: u8 = 2;

/// Its rate decays with time, not with calls. Over a minute, the final trip would take a minute.
const SECOND: Duration = Duration::from_secs(1);
const AT_LEAST: u32 = 10;

pub fn visit_all(visitor: &mut impl Visit) {
    visitor.visit(Reclosed::<CLOSED>::new());
    visitor.visit(Reclosed::<OPEN>::new());
    visitor.visit(Reclosed::<FAILING>::new());
    visitor.visit(Failsafe::<_, CLOSED>::new(failsafe_consecutive()));
    visitor.visit(Failsafe::<_, OPEN>::new(failsafe_consecutive()));
    visitor.visit(Failsafe::<_, FAILING>::new(failsafe_rate()));
    visitor.visit(CircuitBreakerRs::<CLOSED>::new());
    visitor.visit(CircuitBreakerRs::<OPEN>::new());
    visitor.visit(CircuitBreakerRs::<FAILING>::new());
    visitor.visit(TowerResilience::<_, CLOSED>::new(bare));
    visitor.visit(TowerResilience::<_, OPEN>::new(bare));
    visitor.visit(TowerResilience::<_, FAILING>::new(bare));
    visitor.visit(Moka::<false>::new());
    visitor.visit(Moka::<true>::new());
    visitor.visit(Memoized::<false>);
    visitor.visit(Memoized::<true>);
}

/// The common part of all other circuit breakers.
macro_rules! peer {
    ($name:literal, $how:literal, $rate:literal) => {
        const NAME: &'static str = match CASE {
            CLOSED => $name,
            OPEN => concat!($name, ", open"),
            _ => concat!($name, ", 30 % failures"),
        };
        const HOW: &'static str = match CASE {
            CLOSED => $how,
            OPEN => concat!($how, "; rejected with an error"),
            _ => $rate,
        };
        const MEASURED: Circuit = if CASE == OPEN { Circuit::Open } else { Circuit::Closed };
        type Returned = Answer;
        type Bare = BareOf<CASE>;
    };
}

/// The function without a guard, with as many failures.
#[derive(Default)]
pub struct BareOf<const CASE: u8>(Bare<Answer>, FailingBare);

impl<const CASE: u8> Guard for BareOf<CASE> {
    const NAME: &'static str = if CASE == FAILING { FailingBare::NAME } else { <Bare<Answer>>::NAME };
    const HOW: &'static str = "";
    const MEASURED: Circuit = Circuit::None;
    type Returned = Answer;
    type Bare = Self;
    type Caller = u64;

    fn caller(&self) -> u64 {
        0
    }

    #[inline]
    fn call(&self, turn: &mut u64, id: u64) -> impl Future<Output = Answer> {
        bare(argument::<CASE>(turn, id))
    }

    fn circuit(&self) -> Circuit {
        Circuit::None
    }
}

#[inline]
fn argument<const CASE: u8>(turn: &mut u64, id: u64) -> u64 {
    if CASE == FAILING { sometimes_broken(turn, id) } else { id }
}

fn closed_if(admits: bool) -> Circuit {
    if admits { Circuit::Closed } else { Circuit::Open }
}

pub struct Failsafe<P, const CASE: u8>(failsafe::StateMachine<P, ()>);

fn failsafe_consecutive() -> ConsecutiveFailures<Constant> {
    failure_policy::consecutive_failures(FAILURES, backoff::constant(OPEN_FOR))
}

fn failsafe_rate() -> SuccessRateOverTimeWindow<Constant> {
    failure_policy::success_rate_over_time_window(0.5, AT_LEAST, SECOND, backoff::constant(OPEN_FOR))
}

impl<P: failsafe::FailurePolicy, const CASE: u8> Failsafe<P, CASE> {
    fn new(policy: P) -> Self {
        Failsafe(failsafe::Config::new().failure_policy(policy).build())
    }
}

impl<P: failsafe::FailurePolicy + Send + Sync + 'static, const CASE: u8> Guard for Failsafe<P, CASE> {
    peer!("failsafe 1.3", "consecutive_failures(5)", "success_rate_over_time_window(0.5, 10, one second)");
    type Caller = u64;

    fn caller(&self) -> u64 {
        0
    }

    #[inline]
    async fn call(&self, turn: &mut u64, id: u64) -> Answer {
        self.0.call(bare(argument::<CASE>(turn, id))).await.map_err(|error| match error {
            failsafe::Error::Inner(error) => error,
            failsafe::Error::Rejected => Failure::Rejected,
        })
    }

    fn circuit(&self) -> Circuit {
        closed_if(self.0.is_call_permitted())
    }
}

pub struct Reclosed<const CASE: u8>(AsyncRecloser);

impl<const CASE: u8> Reclosed<CASE> {
    fn new() -> Self {
        Reclosed(Recloser::custom().closed_len(100).open_wait(OPEN_FOR).build().into())
    }
}

impl<const CASE: u8> Guard for Reclosed<CASE> {
    peer!("recloser 1.4", "its default: half of the last 100 calls", "half of the last 100 calls");
    type Caller = u64;

    fn caller(&self) -> u64 {
        0
    }

    #[inline]
    async fn call(&self, turn: &mut u64, id: u64) -> Answer {
        self.0.call(bare(argument::<CASE>(turn, id))).await.map_err(|error| match error {
            recloser::Error::Inner(error) => error,
            recloser::Error::Rejected => Failure::Rejected,
        })
    }

    /// It has no method for its state, so a call shows it.
    fn circuit(&self) -> Circuit {
        let asked = pin!(self.0.call(bare::<Answer>(1))).poll(&mut Context::from_waker(Waker::noop()));
        closed_if(matches!(asked, Poll::Ready(Ok(_))))
    }
}

pub struct CircuitBreakerRs<const CASE: u8>(CircuitBreaker<DefaultPolicy, Failure>);

impl<const CASE: u8> CircuitBreakerRs<CASE> {
    fn new() -> Self {
        let builder = CircuitBreaker::<DefaultPolicy, Failure>::builder().cooldown(OPEN_FOR);
        let builder = if CASE == FAILING {
            builder.failure_threshold(0.5).min_throughput(AT_LEAST.into())
        } else {
            builder.consecutive_failures(FAILURES.into())
        };
        CircuitBreakerRs(builder.build())
    }
}

impl<const CASE: u8> Guard for CircuitBreakerRs<CASE> {
    peer!("circuitbreaker-rs 0.1", "consecutive_failures(5)", "failure_threshold(0.5)");
    type Caller = u64;

    fn caller(&self) -> u64 {
        0
    }

    #[inline]
    async fn call(&self, turn: &mut u64, id: u64) -> Answer {
        let id = argument::<CASE>(turn, id);
        self.0.call_async(|| bare(id)).await.map_err(|error| match error {
            circuitbreaker_rs::BreakerError::Operation(error) => error,
            _ => Failure::Rejected,
        })
    }

    fn circuit(&self) -> Circuit {
        closed_if(self.0.current_state() == circuitbreaker_rs::State::Closed)
    }
}

pub struct TowerResilience<F, const CASE: u8> {
    layer: CircuitBreakerLayer<DefaultClassifier>,
    handle: CircuitBreakerHandle,
    function: F,
}

impl<F, const CASE: u8> TowerResilience<F, CASE> {
    fn new(function: F) -> Self {
        let builder = CircuitBreakerLayer::builder().wait_duration_in_open(OPEN_FOR);
        let builder = if CASE == FAILING {
            builder.failure_rate_threshold(0.5).sliding_window_size(100)
        } else {
            builder.consecutive_failures(FAILURES as usize)
        };
        let (layer, handle) = builder.build_with_handle().expect("it is a valid configuration");
        TowerResilience { layer, handle, function }
    }
}

impl<F, Called, const CASE: u8> Guard for TowerResilience<F, CASE>
where
    F: Fn(u64) -> Called + Copy + Send + Sync + 'static,
    Called: Future<Output = Answer> + Send + 'static,
{
    peer!(
        "tower-resilience 0.13",
        "consecutive_failures(5); ready() and call() on a service per thread",
        "half of the last 100 calls; ready() and call() on a service per thread"
    );
    type Caller = (tower_resilience::circuitbreaker::CircuitBreaker<ServiceFn<F>, DefaultClassifier>, u64);

    fn caller(&self) -> Self::Caller {
        (self.layer.layer(tower::service_fn(self.function)), 0)
    }

    #[inline]
    async fn call(&self, (service, turn): &mut Self::Caller, id: u64) -> Answer {
        let answer = match service.ready().await {
            Ok(ready) => ready.call(argument::<CASE>(turn, id)).await,
            Err(error) => Err(error),
        };
        answer.map_err(|error| match error {
            CircuitBreakerError::Inner(error) => error,
            CircuitBreakerError::OpenCircuit => Failure::Rejected,
        })
    }

    fn circuit(&self) -> Circuit {
        closed_if(self.handle.state() == CircuitState::Closed)
    }
}

/// The number of results that this project's cache has in a process.
const CAPACITY: u64 = 10_000;

#[inline]
fn key<const NEW: bool>(turn: &mut u64, id: u64) -> u64 {
    if NEW && id != BROKEN {
        *turn += 1;
        *turn
    } else {
        id
    }
}

/// A cache in front of the function: a hit does not call it at all.
pub struct Moka<const NEW: bool>(moka::future::Cache<u64, u64>);

impl<const NEW: bool> Moka<NEW> {
    fn new() -> Self {
        let builder = moka::future::Cache::builder().max_capacity(CAPACITY);
        Moka(builder.time_to_live(Duration::from_secs(300)).build())
    }
}

impl<const NEW: bool> Guard for Moka<NEW> {
    const NAME: &'static str = if NEW { "moka 0.12, new key" } else { "moka 0.12, hit" };
    const DEPENDS_ON_CACHES: bool = NEW;
    const HOW: &'static str = "a cache in front of the function, no breaker; 10,000 entries, 300 s";
    const MEASURED: Circuit = Circuit::None;
    type Returned = Answer;
    type Bare = Bare<Answer>;
    type Caller = u64;

    fn caller(&self) -> u64 {
        own_numbers()
    }

    #[inline]
    async fn call(&self, turn: &mut u64, id: u64) -> Answer {
        let id = key::<NEW>(turn, id);
        if let Some(kept) = self.0.get(&id).await {
            return Ok(kept);
        }
        let value = bare::<Answer>(id).await?;
        self.0.insert(id, value).await;
        Ok(value)
    }

    fn circuit(&self) -> Circuit {
        Circuit::None
    }
}

#[cached::proc_macro::cached(size = 10_000, time = 300, result = true)]
async fn memoized(id: u64) -> Result<u64, Failure> {
    bare(id).await
}

/// A memoized function: a hit does not call it at all.
pub struct Memoized<const NEW: bool>;

impl<const NEW: bool> Guard for Memoized<NEW> {
    const NAME: &'static str = if NEW { "cached 0.56, new key" } else { "cached 0.56, hit" };
    const DEPENDS_ON_CACHES: bool = NEW;
    const HOW: &'static str = "#[cached]: memoization, no breaker; 10,000 entries, 300 s";
    const MEASURED: Circuit = Circuit::None;
    type Returned = Answer;
    type Bare = Bare<Answer>;
    type Caller = u64;

    fn caller(&self) -> u64 {
        own_numbers()
    }

    #[inline]
    fn call(&self, turn: &mut u64, id: u64) -> impl Future<Output = Answer> {
        memoized(key::<NEW>(turn, id))
    }

    fn circuit(&self) -> Circuit {
        Circuit::None
    }
}
