//! The cached fallback: the last good result in place of a failure.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Ended;
use super::return_kind::{Output, ReturnKind};
use super::site::SiteBreaker;
use crate::breaker::Core;
use crate::cache::{Arguments, CacheKey, CacheSite, Caller, FunctionId, Here};
use crate::error::BreakerError;

/// A result that can be kept and read back, in this process and in another.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be cached",
    label = "does not implement both `Serialize` and `DeserializeOwned`",
    note = "derive `serde::Serialize` and `serde::Deserialize` for it, or leave `cache_ttl` out"
)]
pub trait Cacheable: Serialize + DeserializeOwned {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> Cacheable for T {}

/// A part of what tells one call's result from another's.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a part of the cache key",
    label = "does not implement `serde::Serialize`",
    note = "derive `serde::Serialize` for it, or say what tells the results apart: `cache_key = expression`"
)]
pub trait KeyPart: Serialize {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + ?Sized> KeyPart for T {}

/// The function that a cached result is of. `Inside` is the type of a closure in the function: no two
/// functions, and no two instances of a generic function, have the same.
pub struct CachedFunction<Inside> {
    site: &'static CacheSite,
    inside: PhantomData<fn() -> Inside>,
}

impl<Inside> Clone for CachedFunction<Inside> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Inside> Copy for CachedFunction<Inside> {}

/// The function in which the closure stands.
#[inline]
pub fn cached_function<Inside>(site: &'static CacheSite, _inside: Inside) -> CachedFunction<Inside> {
    CachedFunction { site, inside: PhantomData }
}

impl<Inside> CachedFunction<Inside> {
    fn caller(self, core: &Core) -> Caller<'_> {
        Caller { breaker: core.name(), function: self.site.function::<Inside>() }
    }
}

/// The key of one call while its arguments are added.
pub struct Key(Option<Arguments>);

/// Begins a call's key, if results of this function are cached.
#[inline]
pub fn key(breaker: &SiteBreaker, version: &str) -> Key {
    Key(breaker.cache_ttl().map(|_| Arguments::new(version)))
}

/// Adds an argument, or what the attribute gives in place of all.
#[inline]
pub fn key_part<T: KeyPart + ?Sized>(key: &mut Key, part: &T) {
    if let Some(arguments) = &mut key.0 {
        arguments.add(part);
    }
}

/// Ends a call's key. `None`: the call does without a cache.
#[inline]
pub fn key_of<Inside>(
    breaker: &SiteBreaker,
    function: CachedFunction<Inside>,
    key: &Key,
) -> Option<CacheKey> {
    let arguments = key.0.as_ref()?;
    let core = breaker.core();
    let function = (FunctionId::of::<Inside>(), || function.site.function::<Inside>());
    core.cache().key(core.name(), core.cache_scope(), function, arguments)
}

/// How to keep and to read back a `T`.
///
/// Made where the type is checked: with the bound on [`cached`] itself, the compiler would report one mistake
/// three times, as the bound is part of the type of what is awaited.
pub struct Codec<'a, T> {
    keep: fn(&Core, Caller<'_>, CacheKey, Duration, &T),
    recall_here: fn(&Core, Caller<'_>, &CacheKey, Duration) -> Here<T>,
    recall_shared: fn(&'a Core, Caller<'a>, CacheKey, Duration) -> Recalling<'a, T>,
}

type Recalling<'a, T> = Pin<Box<dyn Future<Output = Option<T>> + Send + 'a>>;

/// The codec of what a function returns.
#[inline]
pub fn codec<'a, R, K: ReturnKind<R>>(_output: Output<R>, _kind: K) -> Codec<'a, K::Value>
where
    K::Value: Cacheable + 'a,
{
    Codec {
        keep: |core, caller, key, ttl, value| core.cache().keep(caller, key, ttl, value),
        recall_here: |core, caller, key, ttl| core.cache().recall_here(caller, key, ttl),
        recall_shared: |core, caller, key, ttl| Box::pin(core.cache().recall_shared(caller, key, ttl)),
    }
}

/// What of a failed call's result can be kept while the store is asked.
pub trait Keep<R> {
    /// What is kept: a part of the annotated function's future, which may have to be `Send`.
    type Kept;
    /// `Err`: it cannot be kept.
    #[doc(hidden)]
    fn keep(ended: Ended<R>) -> Result<Self::Kept, Ended<R>>;
    #[doc(hidden)]
    fn restore(kept: Self::Kept) -> Ended<R>;
}

/// All of it, since `R` is `Send`.
#[derive(Clone, Copy)]
pub struct KeepAll;

impl<R> Keep<R> for KeepAll {
    type Kept = Ended<R>;

    #[inline]
    fn keep(ended: Ended<R>) -> Result<Ended<R>, Ended<R>> {
        Ok(ended)
    }

    #[inline]
    fn restore(kept: Ended<R>) -> Ended<R> {
        kept
    }
}

/// The breaker's own errors, but no value of `R`.
#[derive(Clone, Copy)]
pub struct KeepErrors;

/// What a call ended with that returned nothing.
pub enum Unanswered {
    /// See [`Ended::Rejected`].
    Rejected(BreakerError),
    /// See [`Ended::TimedOut`].
    TimedOut(BreakerError),
}

impl<R> Keep<R> for KeepErrors {
    type Kept = Unanswered;

    fn keep(ended: Ended<R>) -> Result<Unanswered, Ended<R>> {
        match ended {
            Ended::Rejected(error) => Ok(Unanswered::Rejected(error)),
            Ended::TimedOut(error) => Ok(Unanswered::TimedOut(error)),
            Ended::Success(_) | Ended::Ignored(_) | Ended::Failed(_) => Err(ended),
        }
    }

    fn restore(kept: Unanswered) -> Ended<R> {
        match kept {
            Unanswered::Rejected(error) => Ended::Rejected(error),
            Unanswered::TimedOut(error) => Ended::TimedOut(error),
        }
    }
}

/// Chooses `KeepAll`. A call on `&output` finds this method first.
pub trait IsSend {
    #[doc(hidden)]
    #[inline]
    fn circuit_breaker_keep(&self) -> KeepAll {
        KeepAll
    }
}

impl<R: Send> IsSend for Output<R> {}

/// Chooses `KeepErrors`, where `R` is not known to be `Send`.
pub trait IsNotSend {
    #[doc(hidden)]
    #[inline]
    fn circuit_breaker_keep(&self) -> KeepErrors {
        KeepErrors
    }
}

impl<R> IsNotSend for &Output<R> {}

/// Keeps a success; puts the result that this process has kept in place of a failure or a rejection. `Err`: the
/// store has to be asked, by a future that does not have `ended` for an argument, as it could not be sent if
/// `ended` cannot.
#[inline]
pub fn cached<'a, R, K, H, Inside>(
    breaker: &'a SiteBreaker,
    function: CachedFunction<Inside>,
    key: Option<CacheKey>,
    codec: Codec<'a, K::Value>,
    (_kind, _keep): (K, H),
    ended: Ended<R>,
) -> Result<Ended<R>, impl Future<Output = Ended<R>>>
where
    K: ReturnKind<R>,
    H: Keep<R>,
{
    let (Some(key), Some(ttl)) = (key, breaker.cache_ttl()) else { return Ok(ended) };
    let core = breaker.core();
    let caller = function.caller(core);
    match &ended {
        Ended::Ignored(_) => return Ok(ended),
        Ended::Success(value) => {
            if let Some(value) = K::cacheable(value)
                && !core.cache().is_fresh(&key, ttl)
            {
                (codec.keep)(core, caller, key, ttl, value);
            }
            return Ok(ended);
        }
        Ended::Failed(_) | Ended::Rejected(_) | Ended::TimedOut(_) => {}
    }
    let store = match (codec.recall_here)(core, caller, &key, ttl) {
        Here::Found(value) => return Ok(recalled::<R, K>(core, value)),
        // The store would have the same.
        Here::Undecodable | Here::Nothing(None) => return Ok(ended),
        Here::Nothing(store) => store,
    };
    let kept = match H::keep(ended) {
        Ok(kept) => kept,
        Err(ended) => return Ok(ended),
    };
    let recalling = (codec.recall_shared)(core, caller, key.with_store(store), ttl);
    Err(async move {
        match recalling.await {
            Some(value) => recalled::<R, K>(core, value),
            None => H::restore(kept),
        }
    })
}

/// A kept result, in place of a failure.
fn recalled<R, K: ReturnKind<R>>(core: &Core, value: K::Value) -> Ended<R> {
    core.answered_from_cache();
    Ended::Success(K::restore(value))
}
