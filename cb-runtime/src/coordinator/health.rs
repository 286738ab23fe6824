//! Executes health checks on threads of their own, so that user code that blocks or panics affects nothing
//! else.
//!
//! Each check has a thread of a small pool, which polls it on a runtime for checks only. Its timeout runs on
//! the coordinator's thread, where no user code runs.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

use crate::breaker::Core;
use crate::breaker::health::Check;
use crate::health::HealthCheck;
use crate::sync::PerProcess;

/// The number of concurrent checks in one process, including blocked ones. Further checks wait, within their
/// timeout.
const THREADS: usize = 64;

/// The runtime of the checks. It starts with the first check and lives as long as the process.
fn runtime() -> io::Result<&'static Handle> {
    static RUNTIME: PerProcess<Runtime> = PerProcess::new();
    // The workers serve timers, sockets and spawned tasks. The checks themselves run on the blocking pool.
    let make = || {
        Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(THREADS)
            .thread_name("cb-checks")
            .enable_all()
            .build()
    };
    Ok(RUNTIME.get_or_make(make)?.handle())
}

/// Runs a check of this breaker, on the coordinator's runtime, and reports its result.
pub(super) async fn run(core: Arc<Core>, mut check: Check) {
    let clock = core.context().clock.clone();
    let begun = clock.now();
    let result = match check.slot.take() {
        None => Err("earlier checks are blocked; this one was not started".into()),
        Some(slot) => match start(check.what.clone(), slot) {
            Err(error) => Err(format!("starting the threads for checks failed: {error}")),
            Ok((ended, _cancel)) => tokio::select! {
                biased;
                result = ended => result.unwrap_or_else(|_| Err("was not started".into())),
                () = clock.sleep_until(begun.after(check.timeout)) => {
                    Err(format!("no result within {:?}", check.timeout))
                }
            },
        },
    };
    core.end_check(&check, result, clock.now().since(begun));
}

type CheckEnded = oneshot::Receiver<Result<(), String>>;

/// Starts a check. Dropping the second value ends it at its next await.
fn start(what: HealthCheck, slot: Arc<()>) -> io::Result<(CheckEnded, oneshot::Sender<()>)> {
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
        let result = catch_unwind(AssertUnwindSafe(checking))
            .unwrap_or_else(|payload| Some(Err(panic_message(payload))));
        if let Some(result) = result {
            // Fails if the check has just timed out.
            let _ = end.send(result);
        }
        drop(slot);
    });
    Ok((ended, cancel))
}

/// The message of a panic. The payload is dropped here, because its destructor is user code, too.
fn panic_message(payload: Box<dyn Any + Send>) -> String {
    let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => format!("panicked: {text}"),
        (_, Some(text)) => format!("panicked: {text}"),
        _ => "panicked".into(),
    };
    let _ = catch_unwind(AssertUnwindSafe(move || drop(payload)));
    text
}
