//! The thread that publishes: one per process, so that a recorder which blocks holds up nobody.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::publisher::Publisher;
use super::reading::Source;
use crate::coordinator;

/// From one round to the next. Whoever collects metrics does so less often.
const ROUND: Duration = Duration::from_secs(1);

enum Request {
    Enter(Arc<Source>),
    Leave(Arc<Source>),
    /// A round out of turn; what is dropped with it tells that it is over.
    Round(oneshot::Sender<()>),
}

/// A registry whose numbers are published until this is dropped.
pub(crate) struct Enrolled {
    source: Arc<Source>,
    thread: Sender<Request>,
}

/// Publishes a registry's numbers from now on. Starts the thread, if this is the first one.
pub(crate) fn enroll(source: Source) -> io::Result<Enrolled> {
    let thread = thread()?.clone();
    let source = Arc::new(source);
    // It listens as long as the process lives.
    let _ = thread.send(Request::Enter(source.clone()));
    Ok(Enrolled { source, thread })
}

impl Enrolled {
    /// Publishes what is new at once, and waits until that is done, but not for longer than `limit`. Cancelling
    /// abandons the wait only.
    pub(crate) async fn flush(&self, limit: Duration) {
        let (done, is_done) = oneshot::channel();
        let sent = self.thread.send(Request::Round(done)).is_ok();
        // The caller may have no runtime, or one without a timer.
        if let (true, Ok(background)) = (sent, coordinator::thread::runtime()) {
            let _ = background.spawn(async move { tokio::time::timeout(limit, is_done).await }).await;
        }
    }
}

impl Drop for Enrolled {
    fn drop(&mut self) {
        let _ = self.thread.send(Request::Leave(self.source.clone()));
    }
}

fn thread() -> io::Result<&'static Sender<Request>> {
    static THREAD: OnceLock<Sender<Request>> = OnceLock::new();
    if let Some(thread) = THREAD.get() {
        return Ok(thread);
    }
    let (sender, requests) = channel();
    std::thread::Builder::new().name("cb-metrics".into()).spawn(move || run(&requests))?;
    // Two first registries at once: nobody has the loser's sender, so its thread ends.
    Ok(THREAD.get_or_init(|| sender))
}

fn run(requests: &Receiver<Request>) {
    let mut publisher = Publisher::default();
    let mut next = Instant::now() + ROUND;
    loop {
        match requests.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(Request::Enter(source)) => publisher.enter(source),
            Ok(Request::Leave(source)) => publisher.leave(&source),
            Ok(Request::Round(done)) => {
                publisher.round();
                drop(done);
            }
            Err(RecvTimeoutError::Timeout) => {
                publisher.round();
                next = Instant::now() + ROUND;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
