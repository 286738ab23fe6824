//! The attribute beside other attributes, extension traits with names like the expansion's, and odd patterns.

use std::fmt::Debug;

use cb_runtime::circuit_breaker;
use serde::Serialize;
use tracing::instrument;

use crate::{ask, Failure, User};

/// Methods for everything, by value and by reference, under the names that the expansion could call.
#[allow(missing_docs, reason = "they do nothing")]
pub trait Everything: Sized {
    fn form(self) -> &'static str {
        "user"
    }
    fn kind(self) -> &'static str {
        "user"
    }
    fn global(self) -> &'static str {
        "user"
    }
    fn within(self) -> &'static str {
        "user"
    }
    fn run(self) -> &'static str {
        "user"
    }
    fn admitted(self) -> &'static str {
        "user"
    }
    fn permitted(self) -> &'static str {
        "user"
    }
    fn finish(self) -> &'static str {
        "user"
    }
    fn call(self) -> &'static str {
        "user"
    }
    fn shape(self) -> &'static str {
        "user"
    }
    fn failure_threshold(self) -> &'static str {
        "user"
    }
    fn get(&self) -> &'static str {
        "user"
    }
    fn answer(&self) -> &'static str {
        "user"
    }
}

impl<T> Everything for T {}

/// With all that an expansion can hold.
///
/// # Errors
/// None.
#[circuit_breaker(name = "user: everything", failure_threshold = 3, cache_ttl = "1m", fallback = |id| Ok(id + 1))]
pub async fn everything(id: u64) -> Result<u64, Failure> {
    let _name = id.form();
    Ok(ask(id).await?.id)
}

/// With what is no `Result`, and a name of arguments.
#[circuit_breaker(
    name = "user: everything {id}",
    call_timeout = "1s",
    fallback = |_| None,
    is_failure = Option::is_none
)]
pub async fn everything_else(id: u64) -> Option<User> {
    ask(id).await.ok()
}

/// Who asks.
#[derive(Clone, Debug, Serialize)]
pub struct Context {
    /// On whose behalf.
    pub tenant: String,
    /// Since when.
    pub r#type: u64,
    /// Where.
    pub place: (u64, u64),
}

impl Context {
    /// A field with a raw name.
    ///
    /// # Errors
    /// As the dependency does.
    #[circuit_breaker(name = "user: raw {self.type} of {self.r#type}")]
    pub async fn raw(&self) -> Result<User, Failure> {
        ask(self.r#type).await
    }
}

/// A pattern over a reference.
///
/// # Errors
/// As the dependency does.
#[circuit_breaker(name = "user: pattern {tenant}")]
pub async fn pattern(Context { tenant, .. }: &Context, id: u64) -> Result<usize, Failure> {
    let _user = ask(id).await?;
    Ok(tenant.len())
}

/// A pattern over a reference, as a key.
///
/// # Errors
/// None.
#[circuit_breaker(
    name = "user: patterns {tenant} {left}",
    cache_ttl = "1m",
    cache_key = (tenant, left, right, id),
    fallback = |context, _, _| context.tenant.len()
)]
pub async fn patterns(
    Context { tenant, place: (left, _), .. }: &Context,
    &(mut right, _): &(u64, u64),
    (ref id, _): (u64, String),
) -> Result<usize, Failure> {
    right += ask(*id).await?.id + left;
    Ok(tenant.len() + right.to_string().len())
}

/// What knows names.
#[async_trait::async_trait]
pub trait Names {
    /// Of one.
    ///
    /// # Errors
    /// As the dependency does.
    async fn name_of(&self, id: u64) -> Result<String, Failure>;

    /// How many.
    async fn count(&self, limit: u64) -> Option<u64>;

    /// The first one.
    ///
    /// # Errors
    /// None.
    #[circuit_breaker(name = "user: instrumented default", fallback = |_this| Ok("first".into()))]
    #[instrument(err, ret, skip_all)]
    async fn first(&self) -> Result<String, Failure> {
        self.name_of(0).await
    }
}

#[async_trait::async_trait]
impl Names for Context {
    #[circuit_breaker(name = "user: instrumented", cache_ttl = "1m", cache_key = (&self.tenant, id))]
    #[instrument(err, ret, fields(tenant = %self.tenant))]
    async fn name_of(&self, id: u64) -> Result<String, Failure> {
        Ok(ask(id).await?.name)
    }

    #[circuit_breaker(name = "user: instrumented value", call_timeout = "1s", fallback = |_, limit| Some(limit))]
    #[instrument(ret, level = "debug")]
    async fn count(&self, limit: u64) -> Option<u64> {
        if limit == 0 {
            return None;
        }
        ask(limit).await.ok().map(|user| user.id)
    }
}

/// Attributes of all kinds.
///
/// # Errors
/// As the dependency does.
#[inline]
#[must_use = "nobody asks for nothing"]
#[circuit_breaker(name = "user: attributes")]
#[allow(clippy::missing_inline_in_public_items)]
pub async fn attributes(id: u64) -> Result<User, Failure> {
    #![allow(clippy::let_and_return)]
    let user = ask(id).await;
    user
}

/// No longer in use.
///
/// # Errors
/// As the dependency does.
#[deprecated(note = "ask `attributes`")]
#[circuit_breaker(name = "user: deprecated")]
pub async fn old(id: u64) -> Result<User, Failure> {
    ask(id).await
}

/// Two breakers.
///
/// # Errors
/// As the dependency does.
#[circuit_breaker(name = "user: inner")]
#[circuit_breaker(name = "user: outer")]
pub async fn twice(id: u64) -> Result<User, Failure> {
    ask(id).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context { tenant: "acme".into(), r#type: 3, place: (1, 2) }
    }

    #[tokio::test]
    async fn neighbors_do_no_harm() {
        assert_eq!(everything(0).await, Ok(1));
        assert_eq!(everything_else(1).await.unwrap().id, 1);
        let context = context();
        assert_eq!(context.raw().await.unwrap().id, 3);
        assert_eq!(pattern(&context, 1).await, Ok(4));
        assert_eq!(patterns(&context, &(1, 1), (1, String::new())).await, Ok(5));
        assert_eq!(patterns(&context, &(1, 1), (0, String::new())).await, Ok(4));
        assert_eq!(context.name_of(1).await.as_deref(), Ok("user 1"));
        assert_eq!(context.first().await.as_deref(), Ok("first"));
        assert_eq!(context.count(5).await, Some(5));
    }

    #[tokio::test]
    async fn names_come_from_patterns() {
        let registry = cb_runtime::Registry::global();
        let (context, context_name) = (context(), "user: pattern acme");
        assert_eq!(pattern(&context, 1).await, Ok(4));
        assert!(registry.breaker(context_name).is_some());
        assert!(context.raw().await.is_ok());
        assert!(registry.breaker("user: raw 3 of 3").is_some());
    }
}
