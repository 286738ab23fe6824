//! Makes health checks: users' code, on threads of its own, so that one that blocks or panics harms nobody else.
//!
//! Each check has a thread of a small pool to itself, which drives it on a runtime that only checks use. Its time is
//! measured elsewhere: on the coordinator's thread, where nothing of the user's runs.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

use crate::breaker::Core;
use crate::breaker::health::Check;
use crate::health::HealthCheck;

/// So many checks can be under way in one process, those included that are stuck; further ones wait, within
/// their time.
const THREADS: usize = 64;

/// What checks run on; started with the first one, it lives as long as the process.
fn runtime() -> io::Result<&'static Handle> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime.handle());
    }
    // The workers serve timers and sockets, and what checks spawn; checks themselves run on the blocking pool.
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(THREADS)
        .thread_name("cb-checks")
        .enable_all()
        .build()?;
    // The loser of two first checks at once must not wait for its threads here.
    if let Err(second) = RUNTIME.set(runtime) {
        second.shutdown_background();
    }
    Ok(RUNTIME.get().expect("just set").handle())
}

/// Makes one check of this breaker, and tells it the result. On the coordinator's runtime.
pub(super) async fn run(core: Arc<Core>, mut check: Check) {
    let clock = core.context().clock.clone();
    let begun = clock.now();
    let result = match check.slot.take() {
        None => Err("earlier checks are stuck, no further one is made".into()),
        Some(slot) => match start(check.what.clone(), slot) {
            Err(error) => Err(format!("no threads for checks: {error}")),
            Ok((ended, _cancel)) => tokio::select! {
                biased;
                result = ended => result.unwrap_or_else(|_| Err("was not made".into())),
                () = clock.sleep_until(begun.after(check.timeout)) => {
                    Err(format!("no result within {:?}", check.timeout))
                }
            },
        },
    };
    core.end_check(&check, result, clock.now().since(begun));
}

type Ended = oneshot::Receiver<Result<(), String>>;

/// Begins it. Dropping the second value ends a check that awaits something.
fn start(what: HealthCheck, slot: Arc<()>) -> io::Result<(Ended, oneshot::Sender<()>)> {
    let runtime = runtime()?;
    let (cancel, cancelled) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    runtime.spawn_blocking(move || {
        let checking = || {
            Handle::current().block_on(async move {
                tokio::select! {
                    biased;
                    _ = cancelled => None,
                    result = async { what.begin().await } => Some(result),
                }
            })
        };
        let result =
            catch_unwind(AssertUnwindSafe(checking)).unwrap_or_else(|payload| Some(Err(said(payload))));
        if let Some(result) = result {
            // It may have been given up just now.
            let _ = end.send(result);
        }
        drop(slot);
    });
    Ok((ended, cancel))
}

/// What a panic says. Its payload ends here: it is the user's, too.
fn said(payload: Box<dyn Any + Send>) -> String {
    let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => format!("panicked: {text}"),
        (_, Some(text)) => format!("panicked: {text}"),
        _ => "panicked".into(),
    };
    let _ = catch_unwind(AssertUnwindSafe(move || drop(payload)));
    text
}
