//! Fallbacks whose result the compiler has to find out.
#![allow(
    clippy::default_trait_access,
    clippy::print_stderr,
    clippy::uninlined_format_args,
    reason = "to show that it compiles"
)]

use std::collections::HashMap;

use cb_runtime::circuit_breaker;

use crate::{ask, Failure, User};

/// The default of the value.
///
/// # Errors
/// None.
#[circuit_breaker(name = "user: inferred default", fallback = |_| Default::default())]
pub async fn default(id: u64) -> Result<HashMap<u64, String>, Failure> {
    Ok(std::iter::once((id, ask(id).await?.name)).collect())
}

/// The default of the value, by its path.
///
/// # Errors
/// None.
#[circuit_breaker(name = "user: inferred path", fallback = Default::default)]
pub async fn default_path() -> Result<String, Failure> {
    Ok(ask(0).await?.name)
}

/// Into the value.
///
/// # Errors
/// None.
#[circuit_breaker(name = "user: inferred into", fallback = |_| "nobody".into())]
pub async fn into(id: u64) -> Result<String, Failure> {
    Ok(ask(id).await?.name)
}

/// Into the value of what is no `Result`.
#[circuit_breaker(name = "user: inferred option", is_failure = Option::is_none, fallback = |_| Default::default())]
pub async fn option(id: u64) -> Option<User> {
    ask(id).await.ok()
}

/// A number of the value's type.
///
/// # Errors
/// None.
#[circuit_breaker(name = "user: inferred number", fallback = |_| 7)]
pub async fn number(id: u64) -> Result<u8, Failure> {
    ask(id).await.map(|_| 1)
}

/// Collected into the value.
///
/// # Errors
/// None.
#[circuit_breaker(name = "user: inferred collect", fallback = |ids| ids.iter().map(ToString::to_string).collect())]
pub async fn collect(ids: &[u64]) -> Result<Vec<String>, Failure> {
    let user = ask(ids[0]).await?;
    Ok(vec![user.name])
}

/// No answer at all.
///
/// # Errors
/// As the dependency does.
///
/// # Panics
/// While the circuit is open.
#[circuit_breaker(name = "user: inferred diverging", fallback = |_| panic!("no fallback"), fallback_on = "open")]
pub async fn diverging(id: u64) -> Result<User, Failure> {
    ask(id).await
}

/// A default, and async.
///
/// # Errors
/// None.
#[circuit_breaker(name = "user: inferred later", fallback = |_| async { Default::default() })]
#[allow(closure_returning_async_block, reason = "to show that it compiles")]
pub async fn later(id: u64) -> Result<String, Failure> {
    Ok(ask(id).await?.name)
}

/// The whole result, its error left open.
///
/// # Errors
/// None.
#[circuit_breaker(name = "user: inferred whole", fallback = |_| Ok(Default::default()))]
pub async fn whole(id: u64) -> Result<String, Failure> {
    Ok(ask(id).await?.name)
}

/// Never comes back.
#[circuit_breaker(name = "user: inferred never", call_timeout = "1s", fallback = |_| std::process::exit(1))]
pub async fn never(id: u64) -> ! {
    loop {
        let _answer = ask(id).await;
        std::future::pending::<()>().await;
    }
}

fn stop(id: u64, reason: &str) -> ! {
    eprintln!("{} {}", id, reason);
    std::process::exit(1)
}

/// Never comes back, and says why.
#[circuit_breaker(name = "user: inferred panic", call_timeout = "1s", fallback = |id, reason| stop(id, &reason.to_string()))]
pub async fn stops(id: u64) -> ! {
    loop {
        let _answer = ask(id).await;
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_inferred_is_the_value() {
        assert!(default(0).await.unwrap().is_empty());
        assert_eq!(default_path().await.as_deref(), Ok(""));
        assert_eq!(into(0).await.as_deref(), Ok("nobody"));
        assert_eq!(option(0).await, None);
        assert_eq!(number(0).await, Ok(7));
        assert_eq!(collect(&[0, 1]).await.unwrap(), ["0", "1"]);
        assert_eq!(diverging(0).await, Err(Failure::Down));
        assert_eq!(later(0).await.as_deref(), Ok(""));
        assert_eq!(whole(0).await.as_deref(), Ok(""));
    }
}
