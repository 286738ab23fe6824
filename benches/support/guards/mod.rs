//! One function, bare and under the guard of each crate. Every target includes this module, so that the
//! compiler can inline all guards equally.

pub mod answers;
pub mod ours;
#[cfg(feature = "peers")]
pub mod peers;

use std::future::poll_fn;
use std::hint::black_box;
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use answers::{Answer, Returned};

/// An hour, so that no breaker changes its state during a measurement.
pub const OPEN_FOR: Duration = Duration::from_secs(3600);
pub const FAILURES: u32 = 5;

/// The argument for which the function fails.
pub const BROKEN: u64 = u64::MAX;

/// The function. It never waits, because the guard is measured.
#[inline]
#[allow(clippy::unused_async, reason = "guards take async functions")]
pub async fn bare<R: Returned>(id: u64) -> R {
    if id == BROKEN { R::bad() } else { R::good(black_box(id)) }
}

/// The state of a guard's circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    /// There is no circuit: the function is bare, or cached.
    None,
    Closed,
    Open,
    HalfOpen,
    RampingUp,
}

/// One way to call the function.
pub trait Guard: Sync {
    const NAME: &'static str;
    /// A description of the guard, for the legend.
    const HOW: &'static str;
    /// Whether it is one of this project's guards.
    const OURS: bool = false;
    /// The state of its circuit during the measurement. An open one is tripped before, a closed one after it.
    const MEASURED: Circuit = Circuit::Closed;
    /// Whether its time depends on what the processor's caches hold, because it uses much memory.
    const DEPENDS_ON_CACHES: bool = false;
    type Returned: Returned;
    /// The function without a guard.
    type Bare: Guard + Default + 'static;
    /// The value that a caller holds; created outside of the loop, one per thread.
    type Caller;

    fn caller(&self) -> Self::Caller;
    fn call(&self, caller: &mut Self::Caller, id: u64) -> impl Future<Output = Self::Returned>;
    fn circuit(&self) -> Circuit;
    /// Checks the calls that were made; panics if they were not as intended.
    fn check(&self) {}
}

/// The function without a guard.
pub struct Bare<R>(PhantomData<fn() -> R>);

impl<R> Default for Bare<R> {
    fn default() -> Self {
        Bare(PhantomData)
    }
}

impl<R: Returned> Guard for Bare<R> {
    const NAME: &'static str = R::BARE;
    const HOW: &'static str = "";
    const MEASURED: Circuit = Circuit::None;
    type Returned = R;
    type Bare = Self;
    type Caller = ();

    fn caller(&self) {}

    #[inline]
    fn call(&self, (): &mut (), id: u64) -> impl Future<Output = R> {
        bare(id)
    }

    fn circuit(&self) -> Circuit {
        Circuit::None
    }
}

/// The function without a guard. Three of ten calls fail.
#[derive(Default)]
pub struct FailingBare;

impl Guard for FailingBare {
    const NAME: &'static str = "the bare function, 30 % failures";
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
        bare(sometimes_broken(turn, id))
    }

    fn circuit(&self) -> Circuit {
        Circuit::None
    }
}

/// Three of ten calls get an argument for which the function fails.
#[inline]
pub fn sometimes_broken(turn: &mut u64, id: u64) -> u64 {
    *turn = (*turn + 1) % 10;
    if matches!(*turn, 3 | 6 | 9) { BROKEN } else { id }
}

/// A first number for a caller, different from those of all other callers.
pub fn own_numbers() -> u64 {
    static CALLERS: AtomicU64 = AtomicU64::new(1);
    CALLERS.fetch_add(1, Ordering::Relaxed) << 32
}

/// Visits every guard, but not the bare functions.
pub trait Visit {
    fn visit(&mut self, guard: impl Guard + 'static);
}

pub fn visit_all(visitor: &mut impl Visit) {
    ours::visit_all(visitor);
    #[cfg(feature = "peers")]
    peers::visit_all(visitor);
}

/// A runtime for one thread, because some guards wait for a tokio lock.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built")
}

/// Polls a future, and is never inlined. A function that needs a guard is not inlined into its caller's loop
/// either. If the bare function were, the cost of a function call would count as a cost of the guards.
#[inline(never)]
fn poll_apart<F: Future>(future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
    future.poll(cx)
}

/// Calls the function `calls` times with one argument.
#[inline]
pub async fn call_often<G: Guard>(guard: &G, calls: u64) {
    call_with(guard, &mut guard.caller(), calls).await;
}

/// [`call_often`] with a caller that has made calls before.
#[inline]
pub async fn call_with<G: Guard>(guard: &G, caller: &mut G::Caller, calls: u64) {
    for _ in 0..calls {
        let mut call = pin!(guard.call(caller, black_box(7)));
        let _ = black_box(poll_fn(|cx| poll_apart(call.as_mut(), cx)).await);
    }
}

/// Makes some calls, so that the breaker exists, and brings it into the measured state.
pub fn prepare<G: Guard>(guard: &G) {
    runtime().block_on(call_often(guard, 10));
    if G::MEASURED == Circuit::Open {
        trip(guard);
    }
}

/// Makes failing calls until the circuit is open.
///
/// # Panics
/// If it is not open after half a minute. A rate over a minute needs as many failures as there were calls.
pub fn trip<G: Guard>(guard: &G) {
    let until = Instant::now() + Duration::from_secs(30);
    runtime().block_on(async {
        let mut caller = guard.caller();
        for failures in 1_u64.. {
            let _ = guard.call(&mut caller, BROKEN).await;
            if (failures < 1000 || failures % 1000 == 0) && guard.circuit() == Circuit::Open {
                return;
            }
            assert!(failures % 1000 != 0 || Instant::now() < until, "{} does not open", G::NAME);
        }
    });
}
