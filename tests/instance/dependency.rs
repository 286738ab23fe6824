//! The dependency of the guarded calls. Its behaviour is part of the request that makes the calls.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cb_runtime::BreakerError;
use tokio::sync::watch;

use crate::protocol::Act;

tokio::task_local! {
    /// Shared by all calls of a group. A task-local rather than an argument, because arguments are part of
    /// the cache key.
    static STAGE: Stage;
}

/// The behaviour shared by the calls of one group.
#[derive(Clone)]
pub(crate) struct Stage {
    act: Act,
    ran: Arc<AtomicUsize>,
    /// What held calls do when the group is finished.
    finale: watch::Receiver<Option<Act>>,
}

impl Stage {
    pub(crate) fn new(act: Act, finale: watch::Receiver<Option<Act>>) -> Stage {
        Stage { act, ran: Arc::default(), finale }
    }

    pub(crate) fn ran(&self) -> usize {
        self.ran.load(Ordering::SeqCst)
    }

    /// Makes a call whose guarded code calls [`depend`].
    pub(crate) async fn perform<T>(self, call: impl Future<Output = T>) -> T {
        STAGE.scope(self, call).await
    }
}

/// The guarded code's own error.
#[derive(Clone, Debug)]
pub(crate) enum DependencyError {
    Broken,
    Ignored,
    RetryAfter(Duration),
    Breaker(BreakerError),
}

impl fmt::Display for DependencyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DependencyError::Broken => f.write_str("the dependency is broken"),
            DependencyError::RetryAfter(span) => {
                write!(f, "the dependency asks callers to stay away for {span:?}")
            }
            DependencyError::Ignored => f.write_str("the request is invalid"),
            DependencyError::Breaker(error) => error.fmt(f),
        }
    }
}

impl From<BreakerError> for DependencyError {
    fn from(error: BreakerError) -> Self {
        DependencyError::Breaker(error)
    }
}

/// The body of every guarded call.
pub(crate) async fn depend() -> Result<Option<String>, DependencyError> {
    let stage = STAGE.with(Clone::clone);
    stage.ran.fetch_add(1, Ordering::SeqCst);
    act(stage.act, stage.finale).await
}

type Acted = Pin<Box<dyn Future<Output = Result<Option<String>, DependencyError>> + Send>>;

fn act(what: Act, mut finale: watch::Receiver<Option<Act>>) -> Acted {
    Box::pin(async move {
        match what {
            Act::Succeed(value) => Ok(value),
            Act::Fail => Err(DependencyError::Broken),
            Act::FailIgnored => Err(DependencyError::Ignored),
            Act::RetryAfter(millis) => Err(DependencyError::RetryAfter(Duration::from_millis(millis))),
            Act::Panic => std::panic::panic_any(Scripted),
            Act::After(millis, then) => {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                act(*then, finale).await
            }
            Act::Hold => {
                let last = finale.wait_for(Option::is_some).await.ok().and_then(|last| last.clone());
                match last {
                    Some(last) if last != Act::Hold => act(last, finale).await,
                    // The group was dropped, and drops this future next.
                    _ => std::future::pending().await,
                }
            }
        }
    })
}

/// The payload of a panic that a request asked for.
pub(crate) struct Scripted;
