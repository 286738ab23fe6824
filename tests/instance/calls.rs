//! Groups of calls in flight.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use cb_runtime::{Breaker, CallError};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::dependency::{DependencyError, Scripted, Stage, depend};
use crate::functions;
use crate::protocol::{Act, Calls, Ended, Function};

/// What guards the calls of a group.
#[derive(Clone)]
pub(crate) enum Guard {
    Breaker(Breaker),
    Function(Function, u64),
}

pub(crate) struct Group {
    stage: Stage,
    finale: watch::Sender<Option<Act>>,
    tasks: Vec<JoinHandle<()>>,
    record: Arc<Mutex<Record>>,
    begun: Instant,
}

#[derive(Default)]
struct Record {
    ended: Vec<Ended>,
    slowest: Duration,
    last: Duration,
}

impl Record {
    fn add(&mut self, ended: Ended, took: Duration, by: Duration) {
        self.ended.push(ended);
        self.slowest = self.slowest.max(took);
        self.last = by;
    }
}

/// Sequential calls that start `every` apart; `times` of them, or as many as fit until the group is finished.
struct Series {
    times: Option<usize>,
    every: Option<Duration>,
}

impl Group {
    fn new(act: Act) -> Group {
        let finale = watch::Sender::new(None);
        let stage = Stage::new(act, finale.subscribe());
        Group { stage, finale, tasks: Vec::new(), record: Arc::default(), begun: Instant::now() }
    }

    /// Makes `times` calls, one after another.
    pub(crate) fn sequence(runtime: &Handle, guard: &Guard, act: Act, times: usize) -> Group {
        let mut group = Group::new(act);
        group.spawn(runtime, guard, Series { times: Some(times), every: None });
        group
    }

    /// Makes `callers` concurrent calls.
    pub(crate) fn concurrent(runtime: &Handle, guard: &Guard, act: Act, callers: usize) -> Group {
        let mut group = Group::new(act);
        for _ in 0..callers {
            group.spawn(runtime, guard, Series { times: Some(1), every: None });
        }
        group
    }

    /// Calls the function concurrently, once with each argument.
    pub(crate) fn each(runtime: &Handle, function: Function, arguments: Range<u64>, act: Act) -> Group {
        let mut group = Group::new(act);
        for argument in arguments {
            let guard = Guard::Function(function, argument);
            group.spawn(runtime, &guard, Series { times: Some(1), every: None });
        }
        group
    }

    /// Makes calls until the group is finished.
    pub(crate) fn traffic(runtime: &Handle, guard: &Guard, act: Act, every: Duration) -> Group {
        let mut group = Group::new(act);
        group.spawn(runtime, guard, Series { times: None, every: Some(every) });
        group
    }

    fn spawn(&mut self, runtime: &Handle, guard: &Guard, series: Series) {
        let (guard, stage, record, begun) =
            (guard.clone(), self.stage.clone(), self.record.clone(), self.begun);
        let stop = self.finale.subscribe();
        self.tasks.push(runtime.spawn(async move {
            let mut made = 0;
            while series.times.map_or_else(|| stop.borrow().is_none(), |times| made < times) {
                let start = Instant::now();
                let ended = Caught(Box::pin(perform(guard.clone(), stage.clone()))).await;
                lock(&record).add(ended, start.elapsed(), begun.elapsed());
                made += 1;
                if let Some(every) = series.every {
                    tokio::time::sleep(every.saturating_sub(start.elapsed())).await;
                }
            }
        }));
    }

    pub(crate) fn calls(&self) -> Calls {
        let record = lock(&self.record);
        Calls {
            ended: record.ended.clone(),
            ran: self.stage.ran(),
            slowest_us: micros(record.slowest),
            took_us: micros(record.last),
        }
    }

    /// Waits for the calls to end by themselves.
    pub(crate) async fn ended(mut self) -> Calls {
        for task in std::mem::take(&mut self.tasks) {
            // A task ends with an error only if it was aborted: scripted panics are caught.
            let _ = task.await;
        }
        self.calls()
    }

    pub(crate) async fn finish(self, act: Act) -> Calls {
        self.finale.send_replace(Some(act));
        self.ended().await
    }

    pub(crate) async fn drop_calls(self) -> Calls {
        for task in &self.tasks {
            task.abort();
        }
        self.ended().await
    }
}

/// Catches the scripted panic of a call, so that a series goes on after it.
struct Caught(Pin<Box<dyn Future<Output = Ended> + Send>>);

impl Future for Caught {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
            Ok(polled) => polled,
            Err(payload) if payload.is::<Scripted>() => Poll::Ready(Ended::Panicked),
            Err(payload) => resume_unwind(payload),
        }
    }
}

async fn perform(guard: Guard, stage: Stage) -> Ended {
    stage
        .perform(async move {
            match guard {
                Guard::Breaker(breaker) => match breaker.call(depend).await {
                    Ok(value) => Ended::Value(value),
                    Err(CallError::Failed(error)) => ended_with(error),
                    Err(CallError::Rejected(error) | CallError::TimedOut(error)) => {
                        ended_with(DependencyError::Breaker(error))
                    }
                    Err(other) => panic!("Breaker::call has no predicate, but returned {other:?}"),
                },
                Guard::Function(function, argument) => match functions::call(function, argument).await {
                    Ok(value) => Ended::Value(value),
                    Err(error) => ended_with(error),
                },
            }
        })
        .await
}

fn ended_with(error: DependencyError) -> Ended {
    match error {
        DependencyError::Broken | DependencyError::RetryAfter(_) => Ended::Failed,
        DependencyError::Ignored => Ended::Ignored,
        DependencyError::Breaker(error) if error.is_timeout() => Ended::TimedOut,
        DependencyError::Breaker(error) if error.is_ramping_up() => Ended::RampRejected,
        DependencyError::Breaker(error) => {
            Ended::Rejected { retry_after_us: error.retry_after().map(micros) }
        }
    }
}

pub(crate) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}
