//! Breakers that reject calls: open, half-open, or ramping up.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use cb_runtime::{Registry, circuit_breaker};

use super::super::answers::{Answer, Returned};
use super::super::{BROKEN, Bare, Circuit, Guard, call_often, runtime};
use super::{circuit, instead};

fn fallback_answers(guard: &impl Guard<Returned = Answer, Caller = ()>) {
    let answer = runtime().block_on(guard.call(&mut (), 7));
    assert!(matches!(answer, Ok(35)), "{answer:?}");
}

fn rejects<G: Guard>(guard: &G) {
    let answer = runtime().block_on(guard.call(&mut guard.caller(), 7));
    assert!(answer.is_rejected(), "{}", G::NAME);
}

ours! {
    OpenFallback(open_fallback) -> Answer: "open, fallback", "rejected; a fallback with the same arguments answers",
    measured = Open,
    check = |guard| fallback_answers(guard),
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
    HalfOpenFallback(half_open_fallback): "fallback", "half-open-fallback", |guard| fallback_answers(guard),
    fallback = instead
);

fn ramp_rejected(breaker: &str) -> u64 {
    Registry::global().breaker(breaker).expect("it has been called").snapshot().outcomes.ramp_rejected
}

/// Whether a closed breaker is ramping up, and so rejects some calls.
fn ramping<G: Guard>(guard: &G, breaker: &str) -> Circuit {
    let before = ramp_rejected(breaker);
    runtime().block_on(call_often(guard, 30));
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
    pub fn new() -> Self {
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
    pub fn new() -> Self {
        recover(&RampingError, "ramping-error");
        RampingError
    }
}
