//! Opens a connection to one server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, ProtocolVersion, PushInfo};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::timeout;

#[cfg(any(feature = "cluster", feature = "sentinel"))]
use super::address;
use super::hint;
use crate::error::Error;
#[cfg(any(feature = "cluster", feature = "sentinel"))]
use crate::error::ErrorKind;

/// Where a connection passes on what the server sends unasked.
#[derive(Clone)]
pub(super) struct Inbox {
    pub(super) messages: mpsc::Sender<PushInfo>,
    /// A message did not fit, and was dropped.
    pub(super) overflowed: Arc<AtomicBool>,
}

impl Inbox {
    pub(super) fn push(&self, message: PushInfo) -> Result<(), TrySendError<PushInfo>> {
        match self.messages.try_send(message) {
            Err(TrySendError::Full(_)) => {
                self.overflowed.store(true, Ordering::Release);
                Ok(())
            }
            result => result,
        }
    }
}

/// Opens a connection to a server and logs in. Its requests have no time limit of their own. Only with an
/// inbox it can subscribe.
pub(super) async fn open(
    info: &ConnectionInfo,
    limit: Duration,
    inbox: Option<Inbox>,
) -> Result<MultiplexedConnection, Error> {
    let failed =
        |problem: &dyn std::fmt::Display| Error::store("connecting", format!("{}: {problem}", info.addr()));
    let (mut info, mut config) = (info.clone(), AsyncConnectionConfig::new());
    if let Some(inbox) = inbox {
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        info = info.set_redis_settings(settings);
        config = config.set_push_sender(move |message| inbox.push(message));
    }
    let client = Client::open(info.clone()).map_err(|error| failed(&error))?;
    let config = config.set_connection_timeout(None).set_response_timeout(None);
    match timeout(limit, client.get_multiplexed_async_connection_with_config(&config)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(failed(&format!("{error}{}", hint::on_connecting(info.addr(), &error)))),
        Err(_) => Err(failed(&format!("no answer within {limit:?}{}", hint::on_delay(info.addr())))),
    }
}

/// Parses several addresses, at least one.
#[cfg(any(feature = "cluster", feature = "sentinel"))]
pub(super) fn several(urls: &[String]) -> Result<Vec<ConnectionInfo>, Error> {
    if urls.is_empty() {
        return Err(Error::new(ErrorKind::Url { problem: "no address; at least one is required".into() }));
    }
    urls.iter().map(|url| address::check(url)).collect()
}
