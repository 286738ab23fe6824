//! Requests to the store that a caller waits for.

use std::time::Duration;

use super::{Registry, no_thread};
use crate::background;
use crate::deadline::{ANSWER, within};
use crate::error::{Error, ErrorKind};

/// The deadline of a request.
const PATIENCE: Duration = Duration::from_secs(5);

impl Registry {
    /// Awaits a request to the store on the coordinator's thread, because the caller may have no runtime.
    /// Cancelling abandons the answer.
    pub(super) async fn in_background<T: Send + 'static>(
        &self,
        doing: &'static str,
        answer: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.in_background_within(PATIENCE, doing, answer).await
    }

    pub(super) async fn in_background_within<T: Send + 'static>(
        &self,
        patience: Duration,
        doing: &'static str,
        answer: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        if self.context.has_ended() {
            return Err(Error::new(ErrorKind::ShutDown));
        }
        let thread = background::runtime().map_err(no_thread)?;
        let bounded = thread.spawn(async move { tokio::time::timeout(patience, answer).await });
        // In a forked process the coordinator's thread does not exist.
        let limit = ANSWER.max(patience + Duration::from_secs(1));
        let Some(answer) = within(limit, bounded).await else {
            return Err(Error::store(doing, format!("no answer within {limit:?}")));
        };
        match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Error::store(doing, format!("no answer within {patience:?}"))),
            Err(_) => Err(Error::new(ErrorKind::ShutDown)),
        }
    }
}
