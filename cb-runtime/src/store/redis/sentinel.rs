//! Connections to the master that Sentinel names.
//!
//! redis-rs' client is not used here: it keeps connections to the sentinels open, logs in to them with the
//! master's credentials, and needs `ROLE` or `INFO`, which a restricted user may not call.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ConnectionAddr, ConnectionInfo, RedisConnectionInfo, RedisResult, Value};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::open::{Inbox, open};
use crate::error::Error;

/// Asks all sentinels, at every connect, because a failover changes the master. The first answer that leads
/// to a master is taken, so that silent sentinels delay nothing.
pub(super) async fn open_master(
    sentinels: &[ConnectionInfo],
    name: &str,
    limit: Duration,
    inbox: Option<Inbox>,
) -> Result<MultiplexedConnection, Error> {
    let mut asked = JoinSet::new();
    for sentinel in sentinels {
        let (sentinel, name) = (sentinel.clone(), name.to_owned());
        asked.spawn(async move { ask(&sentinel, &name, limit).await });
    }
    let (mut tried, mut problem) = (Vec::new(), None);
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok(Ok(address)) if tried.contains(&address) => {}
            Ok(Ok(address)) => {
                let (host, port) = address.clone();
                tried.push(address);
                // The first sentinel's address has the master's credentials.
                match open_if_master(&sentinels[0], host, port, limit, inbox.clone()).await {
                    Ok(connection) => return Ok(connection),
                    // It tells more than that a sentinel has failed.
                    Err(error) => problem = Some(error),
                }
            }
            Ok(Err(error)) => problem = problem.or(Some(error)),
            Err(_panicked) => {}
        }
    }
    Err(problem.unwrap_or_else(|| Error::store("connecting", "no sentinel is known")))
}

async fn ask(sentinel: &ConnectionInfo, name: &str, limit: Duration) -> Result<(String, u16), Error> {
    let failed = |problem: String| {
        Error::store("asking Sentinel for the master", format!("{}: {problem}", sentinel.addr()))
    };
    let anonymous = RedisConnectionInfo::default()
        .set_protocol(sentinel.redis_settings().protocol())
        .set_skip_set_lib_name();
    let mut answer = ask_as(&sentinel.clone().set_redis_settings(anonymous), name, limit).await?;
    if answer.as_ref().is_err_and(|error| error.code() == Some("NOAUTH")) {
        let mut own = sentinel.redis_settings().clone();
        own = own.set_db(0);
        answer = ask_as(&sentinel.clone().set_redis_settings(own), name, limit).await?;
    }
    match answer {
        Ok(Some((host, port))) => Ok((host, port)),
        Ok(None) => Err(failed(format!("it knows no master with the name {name:?}"))),
        Err(error) => Err(failed(error.to_string())),
    }
}

async fn ask_as(
    sentinel: &ConnectionInfo,
    name: &str,
    limit: Duration,
) -> Result<RedisResult<Option<(String, u16)>>, Error> {
    let mut connection = open(sentinel, limit, None).await?;
    let command = redis::cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name).to_owned();
    let asked = timeout(limit, command.query_async(&mut connection)).await;
    asked.map_err(|_| {
        Error::store("asking Sentinel for the master", format!("{}: no answer", sentinel.addr()))
    })
}

async fn open_if_master(
    like: &ConnectionInfo,
    host: String,
    port: u16,
    limit: Duration,
    inbox: Option<Inbox>,
) -> Result<MultiplexedConnection, Error> {
    let addr = match like.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    let master = like.clone().set_addr(addr);
    let mut connection = open(&master, limit, inbox).await?;
    let role = timeout(limit, redis::cmd("ROLE").query_async::<Value>(&mut connection)).await;
    let replica = match role {
        Ok(Ok(Value::Array(role))) => !matches!(
            role.first(),
            Some(Value::BulkString(role)) if role == b"master"
        ),
        // A user without the permission finds out at the first write.
        Ok(_) => false,
        Err(_) => return Err(Error::store("connecting", format!("{}: no answer", master.addr()))),
    };
    if replica {
        let problem =
            format!("{} is a replica: the sentinel does not know of the failover yet", master.addr());
        return Err(Error::store("connecting", problem));
    }
    Ok(connection)
}
