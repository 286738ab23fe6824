//! Opens a connection to one server.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo};
use tokio::time::timeout;

#[cfg(any(feature = "cluster", feature = "sentinel"))]
use super::address;
use super::hint;
use crate::error::Error;
#[cfg(any(feature = "cluster", feature = "sentinel"))]
use crate::error::ErrorKind;

/// Opens a connection to a server and logs in. Its requests have no time limit of their own.
pub(super) async fn open(info: &ConnectionInfo, limit: Duration) -> Result<MultiplexedConnection, Error> {
    let failed =
        |problem: &dyn std::fmt::Display| Error::store("connecting", format!("{}: {problem}", info.addr()));
    let client = Client::open(info.clone()).map_err(|error| failed(&error))?;
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
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
