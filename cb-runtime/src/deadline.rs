//! Deadlines without a runtime: one thread per process wakes the futures whose deadline has passed.
//!
//! A guarded call may be awaited on any executor, with or without a timer, and in a forked process, where
//! none of the parent's threads exist. So the few waits of a call that depend on the coordinator are bounded
//! by this clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::sync::lock;

/// The coordinator answers a request within this time, unless it is gone.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

/// A future that is ready after a span of the machine's clock, which begins with the first poll.
pub(crate) struct Deadline {
    span: Duration,
    alarm: Option<Arc<Alarm>>,
}

#[derive(Default)]
struct Alarm {
    has_passed: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

/// The process that the thread runs in, and the way to it.
static TIMER: Mutex<Option<(u32, Sender<Pending>)>> = Mutex::new(None);

struct Pending {
    at: Instant,
    alarm: Weak<Alarm>,
}

impl Deadline {
    pub(crate) fn after(span: Duration) -> Self {
        Deadline { span, alarm: None }
    }
}

impl Future for Deadline {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let span = self.span;
        let mut started = true;
        let alarm = self.alarm.get_or_insert_with(|| {
            let alarm = Arc::<Alarm>::default();
            started = start(Pending { at: Instant::now() + span, alarm: Arc::downgrade(&alarm) });
            alarm
        });
        *lock(&alarm.waker) = Some(cx.waker().clone());
        // Where no thread can be started, the wait ends at once rather than never.
        if !started || alarm.has_passed.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

fn start(pending: Pending) -> bool {
    let mut timer = lock(&TIMER);
    let process = std::process::id();
    let pending = match &*timer {
        Some((owner, sender)) if *owner == process => match sender.send(pending) {
            Ok(()) => return true,
            Err(unsent) => unsent.0,
        },
        _ => pending,
    };
    let (sender, receiver) = channel();
    let started = thread::Builder::new().name("cb-deadlines".into()).spawn(move || run(&receiver)).is_ok();
    let sent = sender.send(pending).is_ok();
    *timer = started.then_some((process, sender));
    started && sent
}

fn run(receiver: &Receiver<Pending>) {
    let mut all = BinaryHeap::new();
    loop {
        let next = all.peek().map(|Reverse(pending): &Reverse<Pending>| pending.at);
        let next = match next {
            None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => receiver.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        match next {
            Ok(pending) => add(&mut all, pending),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        while all.peek().is_some_and(|Reverse(pending)| pending.at <= now) {
            let alarm = all.pop().and_then(|Reverse(pending)| pending.alarm.upgrade());
            if let Some(alarm) = alarm {
                alarm.has_passed.store(true, Ordering::Release);
                let waker = lock(&alarm.waker).take();
                // Outside the lock: the task may be polled here and now.
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
        }
    }
}

/// Every call with a `call_timeout` adds one, and most end long before it: those are removed before the heap
/// grows.
fn add(all: &mut BinaryHeap<Reverse<Pending>>, pending: Pending) {
    if all.len() == all.capacity() {
        all.retain(|Reverse(pending)| pending.alarm.strong_count() > 0);
        // So that the next look comes only after as many more.
        all.reserve(all.len().max(64));
    }
    all.push(Reverse(pending));
}

impl PartialEq for Pending {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Pending {}

impl PartialOrd for Pending {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pending {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

/// The future's output, or `None` if it takes longer than `span`.
pub(crate) async fn within<T>(span: Duration, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut deadline) = (std::pin::pin!(future), Deadline::after(span));
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Pin::new(&mut deadline).poll(cx).map(|()| None),
    })
    .await
}

/// Runs a future on this thread, without a runtime. If the thread runs a task, its budget is left alone: the
/// task cannot yield meanwhile.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = std::pin::pin!(tokio::task::unconstrained(future));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_pass_without_a_runtime_and_in_their_order() {
        let (sender, receiver) = channel();
        thread::scope(|scope| {
            for millis in [60, 1, 30] {
                let sender = sender.clone();
                scope.spawn(move || {
                    let begun = Instant::now();
                    block_on(Deadline::after(Duration::from_millis(millis)));
                    assert!(begun.elapsed() >= Duration::from_millis(millis));
                    sender.send(()).unwrap();
                });
            }
        });
        assert_eq!(receiver.try_iter().count(), 3);
    }

    #[test]
    fn waits_that_have_ended_before_their_deadlines_are_forgotten() {
        let at = Instant::now() + Duration::from_secs(3600);
        let (mut all, mut kept) = (BinaryHeap::new(), Vec::new());
        for number in 0..10_000 {
            let alarm = Arc::<Alarm>::default();
            add(&mut all, Pending { at, alarm: Arc::downgrade(&alarm) });
            if number % 100 == 0 {
                kept.push(alarm);
            }
        }
        let waiting = all.iter().filter(|Reverse(pending)| pending.alarm.strong_count() > 0).count();
        assert_eq!(waiting, kept.len());
        assert!(all.len() < 400, "{}", all.len());
    }

    #[test]
    fn wait_for_an_answer_that_never_comes_ends() {
        let never = std::future::pending::<()>();
        assert_eq!(block_on(within(Duration::from_millis(1), never)), None);
        assert_eq!(block_on(within(Duration::from_secs(3600), std::future::ready(7))), Some(7));
    }
}
