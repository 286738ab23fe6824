//! Annotated functions, written as a user writes them.

// A fallback has the function's signature, even where it needs only a part of it.
#![allow(clippy::unnecessary_wraps, clippy::used_underscore_binding, clippy::unused_self)]

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use cb_runtime::{BreakerConfig, CallError, circuit_breaker};

use crate::dependency::{DependencyError, depend};
use crate::protocol::Function;

static CONFIGURED: Mutex<Option<HashMap<Function, (BreakerConfig, Duration)>>> = Mutex::new(None);

/// Sets the arguments of a function's attribute, before its first call.
pub(crate) fn configure(function: Function, config: BreakerConfig, cache_ttl: Duration) {
    let mut configured = CONFIGURED.lock().expect("nothing panics under this lock");
    configured.get_or_insert_default().insert(function, (config, cache_ttl));
}

fn arguments_of(function: Function) -> (BreakerConfig, Duration) {
    let configured = CONFIGURED.lock().expect("nothing panics under this lock");
    let given = configured.as_ref().and_then(|configured| configured.get(&function)).cloned();
    given.unwrap_or((BreakerConfig::default(), Duration::from_secs(600)))
}

fn config_of(function: Function) -> BreakerConfig {
    arguments_of(function).0
}

fn ttl_of(function: Function) -> Duration {
    arguments_of(function).1
}

pub(crate) type Value = Option<String>;

pub(crate) async fn call(function: Function, argument: u64) -> Result<Value, DependencyError> {
    match function {
        Function::Plain => plain(argument).await,
        Function::Shown => shown(argument, &format!("tag-{argument}")).await,
        Function::Reasoned => reasoned(argument).await,
        Function::Cached => cached(argument).await,
        Function::Twin => twin(argument).await,
        Function::FirstShard => Shard(1).read(argument).await,
        Function::SecondShard => Shard(2).read(argument).await,
        Function::Tenant => tenant(argument).await,
        Function::Obedient => obedient(argument).await,
    }
}

#[circuit_breaker(
    name = "plain",
    config = config_of(Function::Plain),
    is_failure = |result| !matches!(result, Ok(_) | Err(DependencyError::Ignored))
)]
async fn plain(_id: u64) -> Result<Value, DependencyError> {
    depend().await
}

#[circuit_breaker(name = "shown", config = config_of(Function::Shown), fallback = show)]
async fn shown(_id: u64, _tag: &str) -> Result<Value, DependencyError> {
    depend().await
}

async fn show(id: u64, tag: &str) -> Result<Value, DependencyError> {
    tokio::task::yield_now().await;
    Ok(Some(format!("fallback({id}, {tag})")))
}

#[circuit_breaker(name = "reasoned", config = config_of(Function::Reasoned), fallback = reason)]
async fn reasoned(_id: u64) -> Result<Value, DependencyError> {
    depend().await
}

fn reason(id: u64, reason: CallError<DependencyError>) -> Result<Value, DependencyError> {
    let kind = match reason {
        CallError::Rejected(error) if error.is_open() => "rejected",
        CallError::TimedOut(_) => "timed out",
        CallError::Failed(DependencyError::Broken) => "failed",
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
async fn cached(_id: u64) -> Result<Value, DependencyError> {
    depend().await
}

#[circuit_breaker(
    name = "cached",
    config = config_of(Function::Cached),
    cache_ttl = ttl_of(Function::Cached),
    fallback = last_resort
)]
async fn twin(_id: u64) -> Result<Value, DependencyError> {
    depend().await
}

fn last_resort(_id: u64) -> Result<Value, DependencyError> {
    Ok(Some(format!("fallback of {}", std::process::id())))
}

#[circuit_breaker(name = "obedient", config = config_of(Function::Obedient), open_for = asked_for)]
async fn obedient(_id: u64) -> Result<Value, DependencyError> {
    depend().await
}

fn asked_for(result: &Result<Value, DependencyError>) -> Option<Duration> {
    match result {
        Err(DependencyError::RetryAfter(span)) => Some(*span),
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
    async fn read(&self, _id: u64) -> Result<Value, DependencyError> {
        depend().await
    }

    fn none(&self, id: u64) -> Result<Value, DependencyError> {
        last_resort(id)
    }
}

#[circuit_breaker(name = "tenant-{id}", config = config_of(Function::Tenant))]
async fn tenant(id: u64) -> Result<Value, DependencyError> {
    let _ = id;
    depend().await
}
