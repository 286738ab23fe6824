//! Connections to each server of a store, for `cbctl doctor`: made as the store makes its own.

use std::collections::BTreeSet;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ConnectionAddr, ConnectionInfo, RedisResult, Value};

use super::open::{open, several};
use super::{Target, address, sentinel};
use crate::error::Error;

const ASKING: &str = "asking the cluster for its masters";

/// One server of a store, and where it is.
pub struct Server {
    /// Its address, without credentials.
    pub address: String,
    /// A connection that has logged in.
    pub connection: MultiplexedConnection,
}

/// Connects to the server, to the master that Sentinel names, or to all masters of a cluster.
///
/// # Errors
/// If an address is invalid, or a server does not answer within `limit`.
pub async fn connect(target: Target, limit: Duration) -> Result<Vec<Server>, Error> {
    match target {
        Target::Single(url) => Ok(vec![server(&address::check(&url)?, limit).await?]),
        Target::Sentinel { urls, master } => {
            let connection = sentinel::open_master(&several(&urls)?, &master, limit, None).await?;
            Ok(vec![Server { address: format!("the master \"{master}\""), connection }])
        }
        Target::Cluster(urls) => {
            let nodes = several(&urls)?;
            let mut servers = Vec::new();
            for addr in masters(&nodes, limit).await? {
                servers.push(server(&nodes[0].clone().set_addr(addr), limit).await?);
            }
            Ok(servers)
        }
    }
}

async fn server(info: &ConnectionInfo, limit: Duration) -> Result<Server, Error> {
    Ok(Server { address: info.addr().to_string(), connection: open(info, limit, None).await? })
}

/// The first node that answers knows all masters.
async fn masters(nodes: &[ConnectionInfo], limit: Duration) -> Result<Vec<ConnectionAddr>, Error> {
    let mut last = Error::store("connecting to the cluster", "no node is known");
    for node in nodes {
        let slots_of_node = async {
            let mut connection = open(node, limit, None).await?;
            let slots = redis::cmd("CLUSTER").arg("SLOTS").to_owned();
            let slots = tokio::time::timeout(limit, slots.query_async(&mut connection)).await;
            let slots: Vec<Vec<Value>> = slots
                .map_err(|_| Error::store(ASKING, "no answer"))?
                .map_err(|error| Error::store(ASKING, error))?;
            let masters: RedisResult<BTreeSet<_>> = slots.iter().map(|range| master_of(range)).collect();
            masters.map_err(|error| Error::store(ASKING, error))
        };
        match slots_of_node.await {
            Ok(masters) => {
                return Ok(masters.into_iter().map(|(host, port)| node_at(node, host, port)).collect());
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A range of slots: its first, its last, then its master's host and port, and others.
fn master_of(range: &[Value]) -> RedisResult<(String, u16)> {
    let master: Vec<Value> = redis::from_redis_value(range.get(2).cloned().unwrap_or(Value::Nil))?;
    let value = |place: usize| master.get(place).cloned().unwrap_or(Value::Nil);
    Ok((redis::from_redis_value(value(0))?, redis::from_redis_value(value(1))?))
}

/// The address of another node, which is reached as this one is.
fn node_at(like: &ConnectionInfo, host: String, port: u16) -> ConnectionAddr {
    match like.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    }
}
