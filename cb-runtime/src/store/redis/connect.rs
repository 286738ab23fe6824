//! Connections: to one server, to a cluster, or to the master that Sentinel names.

use std::sync::Mutex;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, ConnectionInfo, Pipeline, RedisError, RedisFuture, RedisResult, Value};
#[cfg(feature = "cluster")]
use redis::{ConnectionAddr, ProtocolVersion};
#[cfg(feature = "cluster")]
use tokio::time::timeout;

#[cfg(any(feature = "cluster", feature = "sentinel"))]
use super::open::several;
use super::open::{Inbox, open};
use super::{Target, address, hint};
use crate::error::Error;
#[cfg(any(feature = "cluster", feature = "sentinel"))]
use crate::error::ErrorKind;
use crate::sync::lock;
use crate::timeouts::Timeouts;

/// The caller of a request limits its time. A cluster's connection waits longer than any caller, but not for
/// ever: it keeps the requests that a silent node does not answer.
#[cfg(feature = "cluster")]
const ABANDONED: Duration = Duration::from_secs(20);

/// A connection to a server or a cluster. Clones share it.
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

    /// The connection must have been made with an inbox.
    pub(super) async fn subscribe(&mut self, channels: &[String]) -> RedisResult<()> {
        match self {
            Link::Server(connection) => connection.subscribe(channels).await,
            #[cfg(feature = "cluster")]
            Link::Cluster(connection) => connection.subscribe(channels).await,
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
    pub(super) timeouts: Timeouts,
    turn: tokio::sync::Mutex<()>,
    /// The number of failed attempts, and the error of the last one.
    failed: Mutex<(u64, Option<Error>)>,
}

enum Plan {
    Single(ConnectionInfo),
    /// With a node's address, for hints about errors.
    #[cfg(feature = "cluster")]
    Cluster(Box<redis::cluster::ClusterClient>, ConnectionAddr),
    #[cfg(feature = "sentinel")]
    Sentinel {
        sentinels: Vec<ConnectionInfo>,
        master: String,
    },
}

impl Dialer {
    pub(super) fn new(target: Target, timeouts: Timeouts) -> Result<Self, Error> {
        let plan = match target {
            Target::Single(url) => Plan::Single(address::check(&url)?),
            #[cfg(feature = "cluster")]
            Target::Cluster(urls) => cluster(&urls)?,
            #[cfg(feature = "sentinel")]
            Target::Sentinel { master, .. } if master.is_empty() => {
                let problem = "the master's name is empty; write the one of the Sentinels' configuration";
                return Err(Error::new(ErrorKind::Url { problem: problem.into() }));
            }
            #[cfg(feature = "sentinel")]
            Target::Sentinel { urls, master } => Plan::Sentinel { sentinels: several(&urls)?, master },
        };
        Ok(Dialer { plan, timeouts, turn: tokio::sync::Mutex::default(), failed: Mutex::default() })
    }

    /// Makes a connection, unless `ready` returns one when it is this caller's turn. If an attempt failed
    /// while this caller waited, its error is returned: concurrent callers must not try one after another.
    pub(super) async fn dial(
        &self,
        ready: impl Fn() -> Option<Link>,
        inbox: Option<Inbox>,
    ) -> Result<Link, Error> {
        let before = lock(&self.failed).0;
        let _turn = self.turn.lock().await;
        if let Some(link) = ready() {
            return Ok(link);
        }
        {
            let failed = lock(&self.failed);
            if let (count, Some(error)) = &*failed
                && *count != before
            {
                return Err(error.clone());
            }
        }
        let result = self.plan.connect(self.timeouts.loss(), inbox).await;
        if let Err(error) = &result {
            let mut failed = lock(&self.failed);
            *failed = (failed.0 + 1, Some(error.clone()));
        }
        result
    }

    /// A hint for a connection that broke, if none has ever worked.
    pub(super) fn hint_on_silence(&self, error: &RedisError) -> &'static str {
        match &self.plan {
            Plan::Single(info) => hint::on_connecting(info.addr(), error),
            #[cfg(any(feature = "cluster", feature = "sentinel"))]
            _ => "",
        }
    }
}

impl Plan {
    async fn connect(&self, limit: Duration, inbox: Option<Inbox>) -> Result<Link, Error> {
        match self {
            Plan::Single(info) => open(info, limit, inbox).await.map(Link::Server),
            #[cfg(feature = "cluster")]
            Plan::Cluster(client, addr) => {
                // redis-rs waits for the nodes of the addresses, and then for those that the cluster names. A
                // silent one must not use up the time for both.
                let mut config = redis::cluster::ClusterConfig::new()
                    .set_connection_timeout(limit / 2)
                    .set_response_timeout(ABANDONED);
                if let Some(inbox) = inbox {
                    config = config.set_push_sender(move |message| inbox.push(message));
                }
                match timeout(limit * 2, client.get_async_connection_with_config(config)).await {
                    Ok(Ok(connection)) => Ok(Link::Cluster(connection)),
                    Ok(Err(error)) => {
                        let hints = [hint::on_connecting(addr, &error), hint::on_refusal(&error)];
                        Err(Error::store("connecting to the cluster", format!("{error}{}", hints.concat())))
                    }
                    Err(_) => {
                        let problem = format!("its nodes do not answer in time{}", hint::on_delay(addr));
                        Err(Error::store("connecting to the cluster", problem))
                    }
                }
            }
            #[cfg(feature = "sentinel")]
            Plan::Sentinel { sentinels, master } => {
                super::sentinel::open_master(sentinels, master, limit, inbox).await.map(Link::Server)
            }
        }
    }
}

#[cfg(feature = "cluster")]
fn cluster(urls: &[String]) -> Result<Plan, Error> {
    let nodes = several(urls)?;
    let (addr, tcp) = (nodes[0].addr().clone(), nodes[0].tcp_settings().clone());
    let builder = redis::cluster::ClusterClientBuilder::new(nodes);
    // Nodes that the cluster announces use the TLS settings of the first address.
    #[cfg(feature = "tls")]
    let builder = match super::tls::certificates(&urls[0]) {
        Ok(Some(certificates)) => builder.certs(certificates),
        Ok(None) => builder,
        Err(problem) => return Err(Error::new(ErrorKind::Url { problem })),
    };
    builder
        .tcp_settings(tcp)
        .use_protocol(ProtocolVersion::RESP3)
        .overall_response_timeout(None)
        // redis-rs counts redirections as retries. More than three indicate an error.
        .retries(3)
        .build()
        .map(|client| Plan::Cluster(Box::new(client), addr))
        .map_err(|error| Error::new(ErrorKind::Url { problem: error.to_string() }))
}
