//! The annotated functions, written as a user writes them.

use std::collections::HashMap;
use std::sync::Mutex;

use cb_runtime::{BreakerConfig, CallError, circuit_breaker};

use crate::dependency::{Trouble, depend};
use crate::protocol::Function;

static CONFIGS: Mutex<Option<HashMap<Function, BreakerConfig>>> = Mutex::new(None);

/// What the function's attribute says from its first call on.
pub(crate) fn configure(function: Function, config: BreakerConfig) {
    let mut configs = CONFIGS.lock().expect("nothing panics under this lock");
    configs.get_or_insert_default().insert(function, config);
}

fn config_of(function: Function) -> BreakerConfig {
    let configs = CONFIGS.lock().expect("nothing panics under this lock");
    configs.as_ref().and_then(|configs| configs.get(&function)).cloned().unwrap_or_default()
}

pub(crate) type Value = Option<String>;

pub(crate) async fn call(function: Function, argument: u64) -> Result<Value, Trouble> {
    match function {
        Function::Plain => plain(argument).await,
        Function::Shown => shown(argument, &format!("tag-{argument}")).await,
        Function::Reasoned => reasoned(argument).await,
        Function::Cached => cached(argument).await,
        Function::Twin => twin(argument).await,
        Function::FirstShard => Shard(1).read(argument).await,
        Function::SecondShard => Shard(2).read(argument).await,
    }
}

#[circuit_breaker(
    name = "plain",
    config = config_of(Function::Plain),
    is_failure = |result| !matches!(result, Ok(_) | Err(Trouble::Shrug))
)]
async fn plain(_id: u64) -> Result<Value, Trouble> {
    depend().await
}

#[circuit_breaker(name = "shown", config = config_of(Function::Shown), fallback = show)]
async fn shown(_id: u64, _tag: &str) -> Result<Value, Trouble> {
    depend().await
}

async fn show(id: u64, tag: &str) -> Result<Value, Trouble> {
    tokio::task::yield_now().await;
    Ok(Some(format!("fallback({id}, {tag})")))
}

#[circuit_breaker(name = "reasoned", config = config_of(Function::Reasoned), fallback = reason)]
async fn reasoned(_id: u64) -> Result<Value, Trouble> {
    depend().await
}

fn reason(id: u64, reason: CallError<Trouble>) -> Result<Value, Trouble> {
    let kind = match reason {
        CallError::Rejected(error) if error.is_open() => "rejected",
        CallError::TimedOut(_) => "timed out",
        CallError::Failed(Trouble::Broken) => "failed",
        _ => "something else",
    };
    Ok(Some(format!("fallback({id}): {kind}")))
}

#[circuit_breaker(name = "cached", config = config_of(Function::Cached), cache_ttl = "10m", fallback = last_resort)]
async fn cached(_id: u64) -> Result<Value, Trouble> {
    depend().await
}

#[circuit_breaker(name = "cached", config = config_of(Function::Cached), cache_ttl = "10m", fallback = last_resort)]
async fn twin(_id: u64) -> Result<Value, Trouble> {
    depend().await
}

fn last_resort(_id: u64) -> Result<Value, Trouble> {
    Ok(Some("fallback".into()))
}

struct Shard(u8);

impl Shard {
    #[circuit_breaker(
        name = "shards",
        config = config_of(Function::FirstShard),
        cache_ttl = "10m",
        cache_key = (self.0, _id),
        fallback = Self::none
    )]
    async fn read(&self, _id: u64) -> Result<Value, Trouble> {
        depend().await
    }

    fn none(&self, _id: u64) -> Result<Value, Trouble> {
        Ok(Some("fallback".into()))
    }
}
