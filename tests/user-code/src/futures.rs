//! Functions that return a future instead of being `async`.
#![allow(
    impl_trait_overcaptures,
    clippy::elidable_lifetime_names,
    clippy::must_use_candidate,
    reason = "futures are written in many ways, and before edition 2024 some borrow less than in it"
)]

#[allow(redundant_imports, reason = "in the prelude since 2024 only")]
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use cb_runtime::circuit_breaker;
use futures_util::future::{BoxFuture, FutureExt, LocalBoxFuture};

use crate::{ask, Failure, User};

/// An alias that names neither the box nor the lifetime.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send>>;

/// By an alias of another crate.
#[circuit_breaker(name = "user: alias", fallback = |_| Ok(User { id: 0, name: String::new() }))]
pub fn alias(id: u64) -> BoxFuture<'static, Result<User, Failure>> {
    Box::pin(async move { ask(id).await })
}

/// By an alias, and with the method that makes one.
#[circuit_breaker(name = "user: alias boxed")]
pub fn alias_boxed(id: &u64) -> BoxFuture<'_, Result<u64, Failure>> {
    async move { Ok(ask(*id).await?.id) }.boxed()
}

/// For one thread.
#[circuit_breaker(name = "user: alias local")]
pub fn alias_local<'a>(id: &'a u64) -> LocalBoxFuture<'a, Result<&'a u64, Failure>> {
    Box::pin(async move {
        let _user = ask(*id).await?;
        Ok(id)
    })
}

/// By a variable with the name that tokio's attributes give to theirs.
#[circuit_breaker(name = "user: alias of a body")]
pub fn alias_body() -> BoxFuture<'static, Result<u64, Failure>> {
    let body = async { Ok(ask(4).await?.id) };
    Box::pin(body)
}

/// By an alias of this crate.
#[circuit_breaker(name = "user: alias own", fallback = |id| Ok(id + 1))]
pub fn alias_own(id: u64) -> Answer<u64> {
    if id == 7 {
        return Box::pin(async { Err(Failure::NotFound) });
    }
    Box::pin(async move { Ok(ask(id).await?.id) })
}

/// What can be asked.
pub trait Service {
    /// Its answer, later.
    type Future;

    /// Asks.
    fn call(&mut self, id: u64) -> Self::Future;
}

/// Asks for users.
#[derive(Clone, Debug, Default)]
pub struct Client {
    prefix: Arc<str>,
    calls: u64,
}

impl Client {
    /// With a prefix for all names.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into(), calls: 0 }
    }

    /// Clones what it needs; the future outlives the client.
    #[circuit_breaker(name = "user: detached")]
    pub fn detached(&self, id: u64) -> Pin<Box<dyn Future<Output = Result<String, Failure>> + Send>> {
        let prefix = Arc::clone(&self.prefix);
        Box::pin(async move { Ok(format!("{} {}", prefix, ask(id).await?.name)) })
    }

    /// Clones what it needs, by an alias, with a key of what it borrows.
    #[circuit_breaker(name = "user: detached alias", cache_ttl = "1m", cache_key = (&*self.prefix, key))]
    pub fn detached_alias(&self, key: &str) -> BoxFuture<'static, Result<String, Failure>> {
        let (this, key) = (self.clone(), key.to_owned());
        async move { Ok(format!("{} {} {}", this.prefix, key, ask(1).await?.name)) }.boxed()
    }

    /// Borrows the client, and clones the rest.
    #[circuit_breaker(name = "user: half detached")]
    pub fn half_detached<'a>(&'a self, key: &str) -> BoxFuture<'a, Result<String, Failure>> {
        let key = key.to_owned();
        Box::pin(async move { Ok(format!("{} {}", self.prefix, key)) })
    }

    /// Hands on another's future.
    #[circuit_breaker(name = "user: delegated")]
    pub fn delegated(&self, id: u64) -> BoxFuture<'static, Result<String, Failure>> {
        self.detached(id)
    }

    /// Changes the client before the future.
    #[circuit_breaker(name = "user: counted")]
    pub fn counted(&mut self, id: u64) -> Pin<Box<dyn Future<Output = Result<u64, Failure>> + Send>> {
        self.calls += 1;
        let calls = self.calls;
        Box::pin(async move { Ok(calls + ask(id).await?.id) })
    }

    /// Changes an argument before the future.
    #[circuit_breaker(name = "user: next")]
    pub fn next(&self, mut id: u64) -> BoxFuture<'_, Result<String, Failure>> {
        id += 1;
        Box::pin(async move { Ok(format!("{} {}", self.prefix, ask(id).await?.name)) })
    }

    /// Takes what need not be `Send`, and makes of it what the future holds.
    #[circuit_breaker(name = "user: into")]
    pub fn into_key<'a>(&'a self, key: impl Into<String>) -> BoxFuture<'a, Result<String, Failure>> {
        let key = key.into();
        Box::pin(async move { Ok(format!("{} {} {}", self.prefix, key, ask(1).await?.name)) })
    }

    /// In no box, by a type parameter.
    ///
    /// # Errors
    /// As the dependency does.
    #[circuit_breaker(name = "user: into opaque")]
    pub fn into_key_opaque<'a, K>(
        &'a self,
        key: K,
    ) -> impl Future<Output = Result<String, Failure>> + Send + 'a
    where
        K: Into<String> + 'a,
    {
        let key = key.into();
        async move { Ok(format!("{} {} {}", self.prefix, key, ask(1).await?.name)) }
    }

    /// Takes what is `Send`, and holds it.
    #[circuit_breaker(name = "user: into later")]
    pub fn into_later<'a, K>(&'a self, key: K) -> BoxFuture<'a, Result<String, Failure>>
    where
        K: Into<String> + Send + 'a,
    {
        Box::pin(async move { Ok(format!("{} {} {}", self.prefix, key.into(), ask(1).await?.name)) })
    }

    /// In no box; before edition 2024 the future borrows nothing that it does not name.
    ///
    /// # Errors
    /// As the dependency does.
    #[circuit_breaker(name = "user: detached opaque")]
    pub fn detached_opaque(
        &self,
        id: &u64,
    ) -> impl Future<Output = Result<String, Failure>> + Send + 'static {
        let (prefix, id) = (Arc::clone(&self.prefix), *id);
        async move { Ok(format!("{} {}", prefix, ask(id).await?.name)) }
    }

    /// In no box, and it borrows.
    ///
    /// # Errors
    /// As the dependency does.
    #[circuit_breaker(name = "user: opaque borrowed", fallback = |_, id| Ok(id.to_string()))]
    pub fn opaque_borrowed<'a>(&'a self, id: u64) -> impl Future<Output = Result<String, Failure>> + 'a {
        async move { Ok(format!("{} {}", self.prefix, ask(id).await?.name)) }
    }
}

impl Service for Client {
    type Future = BoxFuture<'static, Result<User, Failure>>;

    #[circuit_breaker(name = "user: service")]
    fn call(&mut self, id: u64) -> Self::Future {
        let prefix = Arc::clone(&self.prefix);
        Box::pin(async move {
            let user = ask(id).await?;
            Ok(User { name: format!("{} {}", prefix, user.name), ..user })
        })
    }
}

/// Asks another service, as a layer of tower does.
#[derive(Clone, Debug, Default)]
pub struct Layered<S> {
    inner: S,
}

impl<S> Service for Layered<S>
where
    S: Service<Future = BoxFuture<'static, Result<User, Failure>>> + Clone + Send + 'static,
{
    type Future = BoxFuture<'static, Result<User, Failure>>;

    #[circuit_breaker(name = "user: layered")]
    fn call(&mut self, id: u64) -> Self::Future {
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(async move { inner.call(id).await })
    }
}

/// Borrows nothing, in no box.
///
/// # Errors
/// As the dependency does.
#[circuit_breaker(name = "user: opaque of a reference")]
#[allow(clippy::manual_async_fn, reason = "the future is independent of the reference, before edition 2024")]
pub fn opaque_of_reference(name: &str) -> impl Future<Output = Result<usize, Failure>> {
    let length = name.len();
    async move {
        if length == 0 {
            return Err(Failure::NotFound);
        }
        Ok(length)
    }
}

/// Never to come back, in a box.
#[circuit_breaker(name = "user: alias unit", call_timeout = "1s", fallback = |_| ())]
pub fn alias_unit(id: u64) -> BoxFuture<'static, ()> {
    Box::pin(async move { drop(ask(id).await) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sendable::assert_send;

    #[tokio::test]
    async fn returned_futures_are_guarded() {
        assert_eq!(alias(0).await.unwrap().id, 0);
        assert_eq!(alias_boxed(&2).await, Ok(2));
        assert_eq!(alias_local(&3).await, Ok(&3));
        assert_eq!(alias_body().await, Ok(4));
        assert_eq!(alias_own(7).await, Ok(8));
        alias_unit(1).await;
        assert_eq!(opaque_of_reference("abc").await, Ok(3));
        let (detached, alias, half, delegated, opaque, user);
        let mut client = Client::new("dr");
        {
            detached = client.detached(1);
            alias = client.detached_alias(&String::from("k"));
            half = client.half_detached("h").await;
            delegated = client.delegated(2);
            opaque = client.detached_opaque(&5);
            user = client.call(3);
        }
        assert_eq!(client.opaque_borrowed(0).await.as_deref(), Ok("0"));
        drop(client);
        assert_eq!(detached.await.as_deref(), Ok("dr user 1"));
        assert_eq!(alias.await.as_deref(), Ok("dr k user 1"));
        assert_eq!(half.as_deref(), Ok("dr h"));
        assert_eq!(delegated.await.as_deref(), Ok("dr user 2"));
        assert_eq!(opaque.await.as_deref(), Ok("dr user 5"));
        assert_eq!(user.await.unwrap().name, "dr user 3");
    }

    struct Key(std::rc::Rc<str>);

    impl From<Key> for String {
        fn from(Key(key): Key) -> Self {
            key.as_ref().into()
        }
    }

    #[tokio::test]
    async fn code_before_the_future_takes_what_cannot_be_sent() {
        let (client, key) = (Client::new("dr"), || Key("k".into()));
        assert_eq!(assert_send(client.into_key(key())).await.as_deref(), Ok("dr k user 1"));
        assert_eq!(client.into_key_opaque(key()).await.as_deref(), Ok("dr k user 1"));
        assert_eq!(client.into_later("k").await.as_deref(), Ok("dr k user 1"));
    }

    #[tokio::test]
    async fn code_before_the_future_changes_what_it_likes() {
        let mut client = Client::new("dr");
        assert_eq!(client.counted(1).await, Ok(2));
        assert_eq!(client.next(1).await.as_deref(), Ok("dr user 2"));
        let mut layered = Layered { inner: client };
        assert_eq!(layered.call(3).await.unwrap().name, "dr user 3");
    }
}
