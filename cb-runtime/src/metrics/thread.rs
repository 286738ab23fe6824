//! The publishing thread: one per process, so that a recorder that blocks delays nothing else.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::publisher::Publisher;
use super::reading::MetricSource;
use crate::background;
use crate::sync::PerProcess;

/// The interval between rounds. Metrics are usually collected less often.
const ROUND: Duration = Duration::from_secs(1);

enum PublisherMessage {
    Enter(Arc<dyn MetricSource>),
    Leave(Arc<dyn MetricSource>),
    /// An additional round. Dropping the sender signals its end.
    Round(oneshot::Sender<()>),
}

/// Publishes a registry's metrics until it is dropped.
pub(crate) struct Enrolled {
    source: Arc<dyn MetricSource>,
    thread: Sender<PublisherMessage>,
}

/// Starts to publish a registry's metrics, and the thread if this is the first registry.
pub(crate) fn enroll(source: Arc<dyn MetricSource>) -> io::Result<Enrolled> {
    let thread = thread()?.clone();
    // The thread lives as long as the process.
    let _ = thread.send(PublisherMessage::Enter(source.clone()));
    Ok(Enrolled { source, thread })
}

impl Enrolled {
    /// Publishes new counts at once and waits until that is done, at most `limit`. Cancelling ends only the
    /// wait.
    pub(crate) async fn flush(&self, limit: Duration) {
        let (done, is_done) = oneshot::channel();
        let sent = self.thread.send(PublisherMessage::Round(done)).is_ok();
        // The caller may have no runtime, or one without a timer.
        if let (true, Ok(runtime)) = (sent, background::runtime()) {
            let _ = runtime.spawn(async move { tokio::time::timeout(limit, is_done).await }).await;
        }
    }
}

impl Drop for Enrolled {
    fn drop(&mut self) {
        let _ = self.thread.send(PublisherMessage::Leave(self.source.clone()));
    }
}

fn thread() -> io::Result<&'static Sender<PublisherMessage>> {
    static THREAD: PerProcess<Sender<PublisherMessage>> = PerProcess::new();
    THREAD.get_or_make(|| {
        let (sender, requests) = channel();
        std::thread::Builder::new().name("cb-metrics".into()).spawn(move || run(&requests))?;
        Ok(sender)
    })
}

fn run(requests: &Receiver<PublisherMessage>) {
    let mut publisher = Publisher::default();
    let mut next = Instant::now() + ROUND;
    loop {
        match requests.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(PublisherMessage::Enter(source)) => publisher.enter(source),
            Ok(PublisherMessage::Leave(source)) => publisher.leave(&source),
            Ok(PublisherMessage::Round(done)) => {
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
