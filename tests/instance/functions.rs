//! The annotated functions, written as a user writes them.

// A fallback has the function's own signature, whatever it makes of it.
#![allow(clippy::unnecessary_wraps, clippy::used_underscore_binding, clippy::unused_self)]

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use cb_runtime::{BreakerConfig, CallError, circuit_breaker};

use crate::dependency::{Trouble, depend};
use crate::protocol::Function;

static SAID: Mutex<Option<HashMap<Function, (BreakerConfig, Duration)>>> = Mutex::new(None);

/// What the function's attribute says from its first call on.
pub(crate) fn configure(function: Function, config: BreakerConfig, cache_ttl: Duration) {
    let mut said = SAID.lock().expect("nothing panics under this lock");
    said.get_or_insert_default().insert(function, (config, cache_ttl));
}

fn said(function: Function) -> (BreakerConfig, Duration) {
    let said = SAID.lock().expect("nothing panics under this lock");
    let given = said.as_ref().and_then(|said| said.get(&function)).cloned();
    given.unwrap_or((BreakerConfig::default(), Duration::from_secs(600)))
}

fn config_of(function: Function) -> BreakerConfig {
    said(function).0
}

fn ttl_of(function: Function) -> Duration {
    said(function).1
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
        Function::Obedient => obedient(argument).await,
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

#[circuit_breaker(
    name = "cached",
    config = config_of(Function::Cached),
    cache_ttl = ttl_of(Function::Cached),
    fallback = last_resort
)]
async fn cached(_id: u64) -> Result<Value, Trouble> {
    depend().await
}

#[circuit_breaker(
    name = "cached",
    config = config_of(Function::Cached),
    cache_ttl = ttl_of(Function::Cached),
    fallback = last_resort
)]
async fn twin(_id: u64) -> Result<Value, Trouble> {
    depend().await
}

fn last_resort(_id: u64) -> Result<Value, Trouble> {
    Ok(Some(format!("fallback of {}", std::process::id())))
}

#[circuit_breaker(name = "obedient", config = config_of(Function::Obedient), open_for = asked_for)]
async fn obedient(_id: u64) -> Result<Value, Trouble> {
    depend().await
}

fn asked_for(result: &Result<Value, Trouble>) -> Option<Duration> {
    match result {
        Err(Trouble::Asks(span)) => Some(*span),
        _ => None,
    }
}

struct Shard(u8);

impl Shard {
    #[circuit_breaker(
        name = "shards",
        config = config_of(Function::FirstShard),
        cache_ttl = ttl_of(Function::FirstShard),
        cache_key = (self.0, _id),
        fallback = Self::none
    )]
    async fn read(&self, _id: u64) -> Result<Value, Trouble> {
        depend().await
    }

    fn none(&self, id: u64) -> Result<Value, Trouble> {
        last_resort(id)
    }
}
