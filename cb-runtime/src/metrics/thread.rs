//! The publishing thread: one per process, so that a recorder that blocks delays nothing else.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::publisher::Publisher;
use super::reading::Source;
use crate::coordinator;

/// The interval between rounds. Metrics are usually collected less often.
const ROUND: Duration = Duration::from_secs(1);

enum Request {
    Enter(Arc<Source>),
    Leave(Arc<Source>),
    /// An additional round. Dropping the sender signals its end.
    Round(oneshot::Sender<()>),
}

/// Publishes a registry's metrics until it is dropped.
pub(crate) struct Enrolled {
    source: Arc<Source>,
    thread: Sender<Request>,
}

/// Starts to publish a registry's metrics, and the thread if this is the first registry.
pub(crate) fn enroll(source: Source) -> io::Result<Enrolled> {
    let thread = thread()?.clone();
    let source = Arc::new(source);
    // The thread lives as long as the process.
    let _ = thread.send(Request::Enter(source.clone()));
    Ok(Enrolled { source, thread })
}

impl Enrolled {
    /// Publishes new counts at once and waits until that is done, at most `limit`. Cancelling ends only the
    /// wait.
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
    // If two threads get here concurrently, one sender is dropped, and its thread ends.
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
