//! Connections: to one server, to a cluster, or to the master that Sentinel names.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

#[cfg(feature = "cluster")]
use redis::ConnectionAddr;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionInfo, Pipeline, RedisError, RedisFuture, Value};
use tokio::time::timeout;

use super::{address, hint};
use crate::error::Error;
#[cfg(any(feature = "cluster", feature = "sentinel"))]
use crate::error::ErrorKind;

/// A connection that is not there by then is given up.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// Which Redis.
#[derive(Clone)]
pub(crate) enum Target {
    /// One server: `redis://`, `rediss://` or `unix://`.
    Single(String),
    /// Some of a cluster's nodes.
    #[cfg(feature = "cluster")]
    Cluster(Vec<String>),
    /// The master that these sentinels know under this name. User, password, database and TLS of
    /// the first address are the master's; a sentinel that wants to be logged in to gets its own address's.
    #[cfg(feature = "sentinel")]
    Sentinel { urls: Vec<String>, master: String },
}

/// A connection, of whichever kind. Clones share it.
#[derive(Clone)]
pub(super) enum Link {
    Server(MultiplexedConnection),
    #[cfg(feature = "cluster")]
    Cluster(redis::cluster_async::ClusterConnection),
}

impl Link {
    fn inner(&mut self) -> &mut (dyn ConnectionLike + Send) {
        match self {
            Link::Server(connection) => connection,
            #[cfg(feature = "cluster")]
            Link::Cluster(connection) => connection,
        }
    }
}

impl ConnectionLike for Link {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        self.inner().req_packed_command(cmd)
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        self.inner().req_packed_commands(pipeline, offset, count)
    }

    fn get_db(&self) -> i64 {
        match self {
            Link::Server(connection) => connection.get_db(),
            #[cfg(feature = "cluster")]
            Link::Cluster(connection) => connection.get_db(),
        }
    }
}

/// Makes connections, one at a time.
pub(super) struct Dialer {
    plan: Plan,
    limit: Duration,
    turn: tokio::sync::Mutex<()>,
    /// How many attempts have failed, and how the last one did.
    failed: Mutex<(u64, Option<Error>)>,
}

enum Plan {
    Single(ConnectionInfo),
    /// With one of its nodes' addresses, which says how all of them are spoken to.
    #[cfg(feature = "cluster")]
    Cluster(Box<redis::cluster::ClusterClient>, ConnectionAddr),
    #[cfg(feature = "sentinel")]
    Sentinel {
        sentinels: Vec<ConnectionInfo>,
        master: String,
    },
}

impl Dialer {
    pub(super) fn new(target: Target) -> Result<Self, Error> {
        let plan = match target {
            Target::Single(url) => Plan::Single(address::check(&url)?),
            #[cfg(feature = "cluster")]
            Target::Cluster(urls) => cluster(&urls)?,
            #[cfg(feature = "sentinel")]
            Target::Sentinel { urls, master } => Plan::Sentinel { sentinels: several(&urls)?, master },
        };
        let limit = CONNECT_TIMEOUT;
        Ok(Dialer { plan, limit, turn: tokio::sync::Mutex::default(), failed: Mutex::default() })
    }

    /// Waits longer: tests on a busy machine must not fail because it is busy.
    #[cfg(test)]
    pub(super) fn wait_for(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// A new connection; or what `ready` has, if it has something once it is this caller's turn. An attempt
    /// that failed while this caller waited for its turn is its failure, too: a crowd
    /// must not knock one after the other at a door that does not open.
    pub(super) async fn dial(&self, ready: impl Fn() -> Option<Link>) -> Result<Link, Error> {
        let before = self.failed().0;
        let _turn = self.turn.lock().await;
        if let Some(link) = ready() {
            return Ok(link);
        }
        {
            let failed = self.failed();
            if let (count, Some(error)) = &*failed
                && *count != before
            {
                return Err(error.clone());
            }
        }
        let result = self.plan.connect(self.limit).await;
        if let Err(error) = &result {
            let mut failed = self.failed();
            *failed = (failed.0 + 1, Some(error.clone()));
        }
        result
    }

    /// What to do about a connection that broke, where none has ever been of use.
    pub(super) fn hint_on_silence(&self, error: &RedisError) -> &'static str {
        match &self.plan {
            Plan::Single(info) => hint::on_connecting(info.addr(), error),
            #[cfg(any(feature = "cluster", feature = "sentinel"))]
            _ => "",
        }
    }

    fn failed(&self) -> std::sync::MutexGuard<'_, (u64, Option<Error>)> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plan {
    async fn connect(&self, limit: Duration) -> Result<Link, Error> {
        match self {
            Plan::Single(info) => open(info, limit).await.map(Link::Server),
            #[cfg(feature = "cluster")]
            Plan::Cluster(client, addr) => match timeout(limit * 2, client.get_async_connection()).await {
                Ok(Ok(connection)) => Ok(Link::Cluster(connection)),
                Ok(Err(error)) => {
                    let hint = hint::on_connecting(addr, &error);
                    Err(Error::store("connecting to the cluster", format!("{error}{hint}")))
                }
                Err(_) => {
                    let problem = format!("its nodes do not answer in time{}", hint::on_delay(addr));
                    Err(Error::store("connecting to the cluster", problem))
                }
            },
            #[cfg(feature = "sentinel")]
            Plan::Sentinel { sentinels, master } => {
                super::sentinel::open_master(sentinels, master, limit).await.map(Link::Server)
            }
        }
    }
}

/// One connection to one server, logged in and ready. Its requests have no time limit of their own.
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

/// Several addresses; at least one.
#[cfg(any(feature = "cluster", feature = "sentinel"))]
fn several(urls: &[String]) -> Result<Vec<ConnectionInfo>, Error> {
    if urls.is_empty() {
        return Err(Error::new(ErrorKind::Url {
            problem: "there is none; at least one must be given".into(),
        }));
    }
    urls.iter().map(|url| address::check(url)).collect()
}

#[cfg(feature = "cluster")]
fn cluster(urls: &[String]) -> Result<Plan, Error> {
    let nodes = several(urls)?;
    let addr = nodes[0].addr().clone();
    // A time limit for a request is kept where the request is made; the watch needs a long one.
    let hour = Duration::from_secs(3600);
    let builder = redis::cluster::ClusterClientBuilder::new(nodes);
    // Nodes that the cluster itself names are spoken to like the first one that the user has named.
    #[cfg(feature = "tls")]
    let builder = match super::tls::certificates(&urls[0]) {
        Ok(Some(certificates)) => builder.certs(certificates),
        Ok(None) => builder,
        Err(problem) => return Err(Error::new(ErrorKind::Url { problem })),
    };
    builder
        .connection_timeout(CONNECT_TIMEOUT)
        .response_timeout(hour)
        .overall_response_timeout(None)
        // Redirections are retries here; more of them than this means that something is wrong.
        .retries(3)
        .build()
        .map(|client| Plan::Cluster(Box::new(client), addr))
        .map_err(|error| Error::new(ErrorKind::Url { problem: error.to_string() }))
}
