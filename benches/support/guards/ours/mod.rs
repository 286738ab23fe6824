//! This project's breakers: every path that a call can take.

use std::hint::black_box;

use cb_runtime::{Registry, State, circuit_breaker};

use super::answers::{Answer, Coded, Dynamic, Returned, Text, WideError, WideValue};
use super::{BROKEN, Bare, Circuit, FailingBare, Guard, Visit, sometimes_broken};
use by_argument::{Cached, CachedNewKey, KeyedHot, KeyedThousand};
use rejecting::{HalfOpenError, HalfOpenFallback, OpenError, OpenFallback, RampingError, RampingFallback};

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

// After the macro, which they use.
mod by_argument;
mod rejecting;

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
