//! This project's breakers: every path that a call can take.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use cb_runtime::{Registry, State, circuit_breaker};

use super::answers::{Answer, Coded, Dynamic, Returned, Text, WideError, WideValue};
use super::{BROKEN, Bare, Circuit, FailingBare, Guard, Visit, own_numbers, runtime, sometimes_broken};

pub fn visit_all(visitor: &mut impl Visit) {
    visitor.visit(Closed);
    visitor.visit(ClosedCode);
    visitor.visit(ClosedDynamic);
    visitor.visit(ClosedText);
    visitor.visit(ClosedWideError);
    visitor.visit(ClosedWideValue);
    visitor.visit(LastCalls);
    visitor.visit(Slow);
    visitor.visit(Fallback);
    visitor.visit(OpenFallback);
    visitor.visit(OpenError);
    visitor.visit(HalfOpenFallback::new());
    visitor.visit(HalfOpenError::new());
    visitor.visit(RampingFallback::new());
    visitor.visit(RampingError::new());
    visitor.visit(Failing);
    visitor.visit(Cached);
    visitor.visit(CachedNewKey);
    visitor.visit(KeyedHot);
    visitor.visit(KeyedThousand);
}

/// The state of a breaker's circuit.
fn circuit(breaker: &str) -> Circuit {
    match Registry::global().breaker(breaker).expect("it has been called").state() {
        State::Closed => Circuit::Closed,
        State::Open => Circuit::Open,
        State::HalfOpen => Circuit::HalfOpen,
        other => panic!("{other}"),
    }
}

fn ramp_rejected(breaker: &str) -> u64 {
    Registry::global().breaker(breaker).expect("it has been called").snapshot().outcomes.ramp_rejected
}

/// The attributed function and its guard. `circuit` and `measured` are for circuits that are not closed.
macro_rules! ours {
    (
        $guard:ident($function:ident) -> $returned:ty: $name:literal, $how:literal,
        $(measured = $measured:ident, $(circuit = $circuit:expr,)?)? $(check = $check:expr,)?
        attribute($breaker:literal, $($attribute:tt)*)
    ) => {
        #[circuit_breaker(name = $breaker, $($attribute)*)]
        async fn $function(id: u64) -> $returned {
            if id == BROKEN { Returned::bad() } else { Returned::good(black_box(id)) }
        }

        pub struct $guard;

        impl Guard for $guard {
            const OURS: bool = true;
            const NAME: &'static str = concat!("circuit_breaker, ", $name);
            const HOW: &'static str = $how;
            $(const MEASURED: Circuit = Circuit::$measured;)?
            type Returned = $returned;
            type Bare = Bare<$returned>;
            type Caller = ();

            fn caller(&self) {}

            #[inline]
            fn call(&self, (): &mut (), id: u64) -> impl Future<Output = $returned> {
                $function(id)
            }

            #[allow(unreachable_code, reason = "a row that says itself what its circuit does")]
            fn circuit(&self) -> Circuit {
                $($(return $circuit;)?)?
                circuit($breaker)
            }

            $(fn check(&self) {
                let check: fn(&$guard) = $check;
                check(self);
            })?
        }
    };
}

ours! {
    Closed(closed) -> Answer: "closed", "failure_threshold = 5",
    attribute("closed", failure_threshold = 5, reset_timeout = "1h")
}

ours! {
    ClosedCode(closed_code) -> Coded: "closed, u8 error", "as above; the error is a u8",
    attribute("closed-code", failure_threshold = 5, reset_timeout = "1h")
}

ours! {
    ClosedDynamic(closed_dynamic) -> Dynamic: "closed, Box<dyn Error>", "as above; the error is a boxed trait object",
    attribute("closed-dynamic", failure_threshold = 5, reset_timeout = "1h")
}

ours! {
    ClosedText(closed_text) -> Text: "closed, String", "as above; the value is a String, the error boxed",
    attribute("closed-text", failure_threshold = 5, reset_timeout = "1h")
}

ours! {
    ClosedWideError(closed_wide_error) -> WideError: "closed, 48-byte error", "as above; the error is an enum of 48 bytes",
    attribute("closed-wide-error", failure_threshold = 5, reset_timeout = "1h")
}

ours! {
    ClosedWideValue(closed_wide_value) -> WideValue: "closed, 96-byte value", "as above; the value has 96 bytes, the error 48",
    attribute("closed-wide-value", failure_threshold = 5, reset_timeout = "1h")
}

ours! {
    LastCalls(last_calls) -> Answer: "last 100 calls", "closed; half of the last 100 calls",
    attribute("last-calls", failure_rate_threshold = 0.5, window_calls = 100, reset_timeout = "1h")
}

ours! {
    Slow(slow) -> Answer: "slow calls", "closed; slow_call_duration = 2 s, half of the calls of a minute",
    attribute(
        "slow", failure_threshold = 5, slow_call_duration = "2s", slow_call_rate_threshold = 0.5, reset_timeout = "1h"
    )
}

fn instead(id: u64) -> u64 {
    black_box(id).wrapping_mul(5)
}

ours! {
    Fallback(fallback) -> Answer: "closed, with a fallback", "closed; the function has a fallback",
    attribute("fallback", failure_threshold = 5, reset_timeout = "1h", fallback = instead)
}

impl Fallback {
    fn answers(guard: &impl Guard<Returned = Answer, Caller = ()>) {
        let answer = runtime().block_on(guard.call(&mut (), 7));
        assert!(matches!(answer, Ok(35)), "{answer:?}");
    }
}

fn rejects<G: Guard>(guard: &G) {
    let answer = runtime().block_on(guard.call(&mut guard.caller(), 7));
    assert!(answer.is_rejected(), "{}", G::NAME);
}

ours! {
    OpenFallback(open_fallback) -> Answer: "open, fallback", "rejected; a fallback with the same arguments answers",
    measured = Open,
    check = |guard| Fallback::answers(guard),
    attribute("open-fallback", failure_threshold = 5, reset_timeout = "1h", fallback = instead)
}

ours! {
    OpenError(open_error) -> Answer: "open, error", "rejected with an error",
    measured = Open,
    check = |guard| rejects(guard),
    attribute("open-error", failure_threshold = 5, reset_timeout = "1h")
}

/// The argument of a call that never ends.
const HANGS: u64 = u64::MAX - 1;

/// The number of such calls that have begun.
static HANGING: AtomicUsize = AtomicUsize::new(0);

async fn hanging(id: u64) -> Answer {
    match id {
        HANGS => {
            HANGING.fetch_add(1, Ordering::Relaxed);
            std::future::pending().await
        }
        BROKEN => Returned::bad(),
        id => Returned::good(black_box(id)),
    }
}

/// The function of these calls, without a guard.
#[derive(Default)]
pub struct HangingBare;

impl Guard for HangingBare {
    const NAME: &'static str = "the bare function, which may hang";
    const HOW: &'static str = "";
    const MEASURED: Circuit = Circuit::None;
    type Returned = Answer;
    type Bare = Self;
    type Caller = ();

    fn caller(&self) {}

    #[inline]
    #[expect(clippy::manual_async_fn, reason = "an async function would keep `self` in its future")]
    fn call(&self, (): &mut (), id: u64) -> impl Future<Output = Answer> {
        // As the guarded functions do.
        async move { hanging(id).await }
    }

    fn circuit(&self) -> Circuit {
        Circuit::None
    }
}

/// Half-open; its only probe is under way and takes an hour.
macro_rules! half_open {
    ($guard:ident($function:ident): $name:literal, $breaker:literal, $check:expr, $($attribute:tt)*) => {
        #[circuit_breaker(
            name = $breaker, failure_threshold = 1, reset_timeout = "1ms", half_open_max_calls = 1, call_timeout = "1h",
            $($attribute)*
        )]
        async fn $function(id: u64) -> Answer {
            hanging(id).await
        }

        pub struct $guard;

        impl $guard {
            pub fn new() -> Self {
                let _ = runtime().block_on($function(BROKEN));
                // The probe's timer belongs to a runtime that exists as long as the probe.
                let runtime = Box::leak(Box::new(runtime()));
                let _entered = runtime.enter();
                let (hanging, until) = (HANGING.load(Ordering::Relaxed), Instant::now() + Duration::from_secs(60));
                while Instant::now() < until {
                    let mut probe = Box::pin($function(HANGS));
                    // The first poll may request a lease from the coordinator.
                    while probe.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
                        if HANGING.load(Ordering::Relaxed) > hanging {
                            Box::leak(Box::new(probe));
                            return $guard;
                        }
                        assert!(Instant::now() < until, "no probe was granted");
                        std::thread::yield_now();
                    }
                }
                panic!("no probe was granted");
            }
        }

        impl Guard for $guard {
            const OURS: bool = true;
            const NAME: &'static str = concat!("circuit_breaker, half-open, ", $name);
            const HOW: &'static str = "rejected, because the only probe is under way";
            const MEASURED: Circuit = Circuit::HalfOpen;
            type Returned = Answer;
            type Bare = HangingBare;
            type Caller = ();

            fn caller(&self) {}

            #[inline]
            fn call(&self, (): &mut (), id: u64) -> impl Future<Output = Answer> {
                $function(id)
            }

            fn circuit(&self) -> Circuit {
                circuit($breaker)
            }

            fn check(&self) {
                let check: fn(&$guard) = $check;
                check(self);
            }
        }
    };
}

half_open!(
    HalfOpenError(half_open_error): "error", "half-open-error", |guard| rejects(guard),
);

half_open!(
    HalfOpenFallback(half_open_fallback): "fallback", "half-open-fallback", |guard| Fallback::answers(guard),
    fallback = instead
);

/// Whether a closed breaker is ramping up, and so rejects some calls.
fn ramping<G: Guard>(guard: &G, breaker: &str) -> Circuit {
    let before = ramp_rejected(breaker);
    runtime().block_on(super::call_often(guard, 30));
    match circuit(breaker) {
        Circuit::Closed if ramp_rejected(breaker) > before => Circuit::RampingUp,
        other => other,
    }
}

/// Trips the breaker and lets it recover; then it ramps up for an hour.
fn recover<G: Guard<Caller = ()>>(guard: &G, breaker: &str) {
    let _ = runtime().block_on(guard.call(&mut (), BROKEN));
    runtime().block_on(async {
        while circuit(breaker) != Circuit::Closed {
            let _ = guard.call(&mut (), 7).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

ours! {
    RampingFallback(ramping_fallback) -> Answer: "ramping up, fallback", "just closed: a tenth is admitted, a fallback answers the rest",
    measured = RampingUp,
    circuit = ramping(&RampingFallback, "ramping-fallback"),
    attribute(
        "ramping-fallback", failure_threshold = 1, success_threshold = 1, reset_timeout = "1ms", ramp_up = "1h",
        fallback = instead
    )
}

impl RampingFallback {
    fn new() -> Self {
        recover(&RampingFallback, "ramping-fallback");
        RampingFallback
    }
}

ours! {
    RampingError(ramping_error) -> Answer: "ramping up, error", "just closed: a tenth is admitted, the rest rejected with an error",
    measured = RampingUp,
    circuit = ramping(&RampingError, "ramping-error"),
    attribute("ramping-error", failure_threshold = 1, success_threshold = 1, reset_timeout = "1ms", ramp_up = "1h")
}

impl RampingError {
    fn new() -> Self {
        recover(&RampingError, "ramping-error");
        RampingError
    }
}

#[circuit_breaker(name = "failing", failure_rate_threshold = 0.5, reset_timeout = "1h")]
async fn failing(id: u64) -> Answer {
    if id == BROKEN { Returned::bad() } else { Returned::good(black_box(id)) }
}

/// Three of ten calls fail.
pub struct Failing;

impl Guard for Failing {
    const OURS: bool = true;
    const NAME: &'static str = "circuit_breaker, 30 % failures";
    const HOW: &'static str = "closed; three of ten calls fail, half of a minute's may";
    type Returned = Answer;
    type Bare = FailingBare;
    type Caller = u64;

    fn caller(&self) -> u64 {
        0
    }

    #[inline]
    fn call(&self, turn: &mut u64, id: u64) -> impl Future<Output = Answer> {
        failing(sometimes_broken(turn, id))
    }

    fn circuit(&self) -> Circuit {
        circuit("failing")
    }

    fn check(&self) {
        let outcomes = Registry::global().breaker("failing").expect("it has been called").snapshot().outcomes;
        assert!(outcomes.failure > outcomes.success / 4, "{outcomes:?}");
    }
}

ours! {
    Cached(cached) -> Answer: "cache_ttl, fresh", "closed; the result is kept already, as the key says",
    attribute("cached", failure_threshold = 5, reset_timeout = "1h", cache_ttl = 300)
}

#[circuit_breaker(name = "cached-new", failure_threshold = 5, reset_timeout = "1h", cache_ttl = 300)]
async fn cached_new_key(id: u64) -> Answer {
    if id == BROKEN { Returned::bad() } else { Returned::good(black_box(id)) }
}

/// Every call's result is cached.
pub struct CachedNewKey;

impl Guard for CachedNewKey {
    const OURS: bool = true;
    const NAME: &'static str = "circuit_breaker, cache_ttl, new key";
    const HOW: &'static str = "closed; a new key each time, so every result is kept";
    type Returned = Answer;
    type Bare = Bare<Answer>;
    type Caller = u64;

    fn caller(&self) -> u64 {
        own_numbers()
    }

    #[inline]
    fn call(&self, turn: &mut u64, id: u64) -> impl Future<Output = Answer> {
        *turn += 1;
        cached_new_key(if id == BROKEN { id } else { *turn })
    }

    fn circuit(&self) -> Circuit {
        circuit("cached-new")
    }
}

#[circuit_breaker(name = "tenant-{tenant}", failure_threshold = 5, reset_timeout = "1h")]
async fn keyed(tenant: u64, id: u64) -> Answer {
    if id == BROKEN { Returned::bad() } else { Returned::good(black_box(id ^ tenant)) }
}

/// The tenant whose breaker is tripped at the end.
const TENANT: u64 = 7;

pub struct KeyedHot;

impl Guard for KeyedHot {
    const OURS: bool = true;
    const NAME: &'static str = "circuit_breaker, keyed, one key";
    const HOW: &'static str = "closed; name = \"tenant-{tenant}\", always the same tenant";
    type Returned = Answer;
    type Bare = Bare<Answer>;
    type Caller = ();

    fn caller(&self) {}

    #[inline]
    fn call(&self, (): &mut (), id: u64) -> impl Future<Output = Answer> {
        keyed(black_box(TENANT), id)
    }

    fn circuit(&self) -> Circuit {
        circuit("tenant-7")
    }
}

#[circuit_breaker(name = "customer-{customer}", failure_threshold = 5, reset_timeout = "1h")]
async fn keyed_thousand(customer: u64, id: u64) -> Answer {
    if id == BROKEN { Returned::bad() } else { Returned::good(black_box(id ^ customer)) }
}

pub struct KeyedThousand;

impl Guard for KeyedThousand {
    const OURS: bool = true;
    const NAME: &'static str = "circuit_breaker, keyed, 1,000 keys";
    const HOW: &'static str = "closed; name = \"customer-{customer}\", a thousand customers in turn";
    type Returned = Answer;
    type Bare = Bare<Answer>;
    type Caller = u64;

    fn caller(&self) -> u64 {
        0
    }

    #[inline]
    fn call(&self, turn: &mut u64, id: u64) -> impl Future<Output = Answer> {
        *turn = (*turn + 1) % 1000;
        keyed_thousand(if id == BROKEN { TENANT } else { *turn }, id)
    }

    fn circuit(&self) -> Circuit {
        circuit("customer-7")
    }
}
