//! What the guarded calls depend on: it does what the order that makes the call says.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cb_runtime::BreakerError;
use tokio::sync::watch;

use crate::protocol::Act;

tokio::task_local! {
    /// The same for all calls of a group. Not an argument of the guarded functions, because a cache
    /// tells results apart by their arguments.
    static STAGE: Stage;
}

/// What the calls of one group share.
#[derive(Clone)]
pub(crate) struct Stage {
    act: Act,
    ran: Arc<AtomicUsize>,
    /// What those that hold do in the end.
    finale: watch::Receiver<Option<Act>>,
}

impl Stage {
    pub(crate) fn new(act: Act, finale: watch::Receiver<Option<Act>>) -> Stage {
        Stage { act, ran: Arc::default(), finale }
    }

    pub(crate) fn ran(&self) -> usize {
        self.ran.load(Ordering::SeqCst)
    }

    /// Makes a call whose guarded code comes to [`depend`].
    pub(crate) async fn perform<T>(self, call: impl Future<Output = T>) -> T {
        STAGE.scope(self, call).await
    }
}

/// The guarded code's own error.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    Broken,
    Shrug,
    Asks(Duration),
    Breaker(BreakerError),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Broken => f.write_str("the dependency is broken"),
            Trouble::Asks(span) => write!(f, "the dependency asks for {span:?} of rest"),
            Trouble::Shrug => f.write_str("the dependency says it was asked something silly"),
            Trouble::Breaker(error) => error.fmt(f),
        }
    }
}

impl From<BreakerError> for Trouble {
    fn from(error: BreakerError) -> Self {
        Trouble::Breaker(error)
    }
}

/// The body of every guarded call.
pub(crate) async fn depend() -> Result<Option<String>, Trouble> {
    let stage = STAGE.with(Clone::clone);
    stage.ran.fetch_add(1, Ordering::SeqCst);
    act(stage.act, stage.finale).await
}

type Acted = Pin<Box<dyn Future<Output = Result<Option<String>, Trouble>> + Send>>;

fn act(what: Act, mut finale: watch::Receiver<Option<Act>>) -> Acted {
    Box::pin(async move {
        match what {
            Act::Succeed(value) => Ok(value),
            Act::Fail => Err(Trouble::Broken),
            Act::Shrug => Err(Trouble::Shrug),
            Act::Ask(millis) => Err(Trouble::Asks(Duration::from_millis(millis))),
            Act::Panic => std::panic::panic_any(Scripted),
            Act::After(millis, then) => {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                act(*then, finale).await
            }
            Act::Hold => {
                let last = finale.wait_for(Option::is_some).await.ok().and_then(|last| last.clone());
                match last {
                    Some(last) if last != Act::Hold => act(last, finale).await,
                    // The group has been dropped, and this future will be.
                    _ => std::future::pending().await,
                }
            }
        }
    })
}

/// The payload of a panic that an order asked for.
pub(crate) struct Scripted;
