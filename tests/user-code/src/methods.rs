//! Methods: every receiver, traits, generic types.

use std::fmt::Debug;
use std::sync::Arc;

use cb_runtime::circuit_breaker;
use serde::Serialize;

use crate::{ask, Failure, User};

/// Asks for users on behalf of a tenant.
#[derive(Clone, Debug)]
pub struct Client<T> {
    tenant: T,
    asked: u64,
}

impl<T: Clone + Debug + Send + Serialize + Sync> Client<T> {
    /// Of a tenant.
    pub const fn new(tenant: T) -> Self {
        Self { tenant, asked: 0 }
    }

    /// By reference.
    ///
    /// # Errors
    /// None that the fallback does not answer.
    #[circuit_breaker(
        name = "user: methods",
        fallback = Self::unknown,
        cache_ttl = "1m",
        cache_key = (&self.tenant, id)
    )]
    pub async fn find(&self, id: u64) -> Result<User, Failure> {
        let mut user = ask(id).await?;
        user.name = format!("{} of {:?}", user.name, self.tenant);
        Ok(user)
    }

    fn unknown(&self, id: u64) -> Result<User, Failure> {
        if id > 100 {
            Err(Failure::NotFound)
        } else {
            Ok(User { id, name: format!("{:?}", self.tenant) })
        }
    }

    /// Exclusively.
    ///
    /// # Errors
    /// As the dependency does.
    #[circuit_breaker(name = "user: methods")]
    pub async fn count(&mut self, id: u64) -> Result<&mut u64, Failure> {
        let user = ask(id).await?;
        self.asked += user.id;
        Ok(&mut self.asked)
    }

    /// By value.
    ///
    /// # Errors
    /// As the dependency does.
    #[circuit_breaker(name = "user: methods", fallback = |this| Ok(this.tenant), fallback_on = "open")]
    pub async fn into_tenant(mut self) -> Result<T, Failure> {
        self.asked += ask(1).await?.id;
        Ok(self.tenant)
    }

    /// In an `Arc`.
    ///
    /// # Errors
    /// As the dependency does.
    #[circuit_breaker(name = "user: methods", fallback = |this, _id| Ok(this.tenant.clone()))]
    pub async fn shared(self: Arc<Self>, id: u64) -> Result<T, Failure> {
        let _user = ask(id).await?;
        Ok(self.tenant.clone())
    }
}

/// What knows names.
#[async_trait::async_trait]
pub trait Directory {
    /// Of one.
    ///
    /// # Errors
    /// As the dependency does.
    async fn name_of(&self, id: u64) -> Result<String, Failure>;

    /// For one.
    ///
    /// # Errors
    /// None.
    #[circuit_breaker(name = "user: async-trait default", fallback = |_this, id| Ok(format!("no {id}")))]
    async fn greeting(&self, id: u64) -> Result<String, Failure> {
        Ok(format!("hello {}", self.name_of(id).await?))
    }
}

#[async_trait::async_trait]
impl Directory for Client<String> {
    #[circuit_breaker(name = "user: async-trait", cache_ttl = "1m", cache_key = (&self.tenant, id))]
    async fn name_of(&self, id: u64) -> Result<String, Failure> {
        Ok(ask(id).await?.name)
    }
}

/// A trait with async functions.
#[allow(async_fn_in_trait, reason = "to show that it can be guarded")]
pub trait Native {
    /// Anything.
    ///
    /// # Errors
    /// As the dependency does.
    async fn load(&self, id: u64) -> Result<u64, Failure>;

    /// Twice that.
    ///
    /// # Errors
    /// As the dependency does.
    #[circuit_breaker(name = "user: native default")]
    async fn twice(&self, id: u64) -> Result<u64, Failure> {
        Ok(self.load(id).await? * 2)
    }
}

impl Native for Client<u64> {
    #[circuit_breaker(name = "user: native", fallback = |this, _| Ok(this.tenant))]
    async fn load(&self, id: u64) -> Result<u64, Failure> {
        Ok(ask(id).await?.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn methods_do_what_they_say() {
        let mut client = Client::new(7);
        assert_eq!(client.find(1).await.unwrap().name, "user 1 of 7");
        assert_eq!(*client.count(3).await.unwrap(), 3);
        assert_eq!(client.load(0).await, Ok(7));
        assert_eq!(client.twice(2).await, Ok(4));
        assert_eq!(Arc::new(client.clone()).shared(0).await, Ok(7));
        assert_eq!(client.into_tenant().await, Ok(7));
        let client = Client::new("t".to_owned());
        assert_eq!(client.greeting(0).await.unwrap(), "no 0");
        assert_eq!(client.name_of(4).await.unwrap(), "user 4");
    }
}
