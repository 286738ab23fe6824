//! The cached fallback: the last good result in place of a failure.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::return_kind::{Ended, Output, ReturnKind};
use crate::breaker::Core;
use crate::breaker::permit::Rejection;
use crate::breakers::SiteBreaker;
use crate::cache::{Arguments, CacheKey, CacheSite, Caller, FunctionId, Here};
use crate::call::Verdict;
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

/// A part of a cache key: an argument, or the attribute's `cache_key`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a part of the cache key",
    label = "does not implement `serde::Serialize`",
    note = "derive `serde::Serialize` for it, or say what tells the results apart: `cache_key = expression`"
)]
pub trait KeyPart {
    /// Adds it to the key.
    #[doc(hidden)]
    fn add_to(&self, key: &mut Key);
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + ?Sized> KeyPart for T {
    #[inline]
    fn add_to(&self, key: &mut Key) {
        if let Some(arguments) = &mut key.0 {
            arguments.add(self);
        }
    }
}

/// The function that returned a cached result. `Inside` is the type of a closure in the function: each
/// function, and each instance of a generic function, has its own.
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

/// The function that contains the closure.
#[inline]
pub fn cached_function<Inside>(site: &'static CacheSite, _inside: Inside) -> CachedFunction<Inside> {
    CachedFunction { site, inside: PhantomData }
}

impl<Inside> CachedFunction<Inside> {
    fn caller(self, core: &Core) -> Caller<'_> {
        Caller { breaker: core.name(), function: self.site.function::<Inside>() }
    }
}

/// The key of one call, to which its arguments are added.
pub struct Key(Option<Arguments>);

/// Begins a call's key, if results of this function are cached.
#[inline]
pub fn key(breaker: &SiteBreaker, version: &str) -> Key {
    Key(breaker.cache_ttl().map(|_| Arguments::new(version)))
}

/// Completes a call's key. `None`: the call does not use the cache.
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

/// The functions that write and read a `T`. It has one word, because the function's future holds it.
///
/// The expansion creates it where the type is checked. With the bound on [`cached`] itself, the bound would
/// be part of the type of the awaited future, and the compiler would report one mistake three times.
pub struct Codec<'a, T>(&'a CodecFunctions<'a, T>);

struct CodecFunctions<'a, T> {
    keep: fn(&Core, Caller<'_>, CacheKey, Duration, &T),
    recall_here: fn(&Core, Caller<'_>, &CacheKey, Duration) -> Here<T>,
    recall_shared: fn(&'a Core, Caller<'a>, CacheKey, Duration) -> Recalling<'a, T>,
}

type Recalling<'a, T> = Pin<Box<dyn Future<Output = Option<T>> + Send + 'a>>;

/// The codec of a function's return value.
#[inline]
pub fn codec<'a, R, K: ReturnKind<R>>(_output: Output<R>, _kind: K) -> Codec<'a, K::Value>
where
    K::Value: Cacheable + 'a,
{
    Codec(&CodecFunctions {
        keep: |core, caller, key, ttl, value| core.cache().keep(caller, key, ttl, value),
        recall_here: |core, caller, key, ttl| core.cache().recall_here(caller, key, ttl),
        recall_shared: |core, caller, key, ttl| Box::pin(core.cache().recall_shared(caller, key, ttl)),
    })
}

impl<T> Clone for Codec<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Codec<'_, T> {}

/// Caches a success.
#[inline]
pub fn cache_success<R, K: ReturnKind<R>, Inside>(
    breaker: &SiteBreaker,
    function: CachedFunction<Inside>,
    key: &Option<CacheKey>,
    codec: Codec<'_, K::Value>,
    _kind: K,
    verdict: Verdict,
    value: &R,
) {
    if verdict == Verdict::Success
        && let Some(key) = key
        && !breaker.core().cache().is_fresh(key)
    {
        keep(breaker, function, key, codec, K::cacheable(value));
    }
}

#[cold]
#[inline(never)]
fn keep<T, Inside>(
    breaker: &SiteBreaker,
    function: CachedFunction<Inside>,
    key: &CacheKey,
    codec: Codec<'_, T>,
    value: Option<&T>,
) {
    let core = breaker.core();
    if let (Some(value), Some(ttl)) = (value, breaker.cache_ttl()) {
        (codec.0.keep)(core, function.caller(core), key.clone(), ttl, value);
    }
}

/// The part of a failed call that its future holds while the store is read.
pub trait Hold<'a, R> {
    /// The held value. It is part of the annotated function's future, which may have to be `Send`.
    type Held;
    /// `Err`: it cannot be held.
    #[doc(hidden)]
    fn hold(ended: Ended<'a, R>) -> Result<Self::Held, Ended<'a, R>>;
    #[doc(hidden)]
    fn release(held: Self::Held) -> Ended<'a, R>;
}

/// Holds everything, because `R` is `Send`.
#[derive(Clone, Copy)]
pub struct HoldAll;

impl<'a, R> Hold<'a, R> for HoldAll {
    type Held = Ended<'a, R>;

    #[inline]
    fn hold(ended: Ended<'a, R>) -> Result<Ended<'a, R>, Ended<'a, R>> {
        Ok(ended)
    }

    #[inline]
    fn release(held: Ended<'a, R>) -> Ended<'a, R> {
        held
    }
}

/// Holds the breaker's errors, but no value of `R`.
#[derive(Clone, Copy)]
pub struct HoldErrors;

/// The end of a call that returned no value.
pub enum Unanswered<'a> {
    /// See [`Ended::Rejected`].
    Rejected(Rejection<'a>),
    /// See [`Ended::TimedOut`].
    TimedOut(BreakerError),
}

impl<'a, R> Hold<'a, R> for HoldErrors {
    type Held = Unanswered<'a>;

    fn hold(ended: Ended<'a, R>) -> Result<Unanswered<'a>, Ended<'a, R>> {
        match ended {
            Ended::Rejected(rejection) => Ok(Unanswered::Rejected(rejection)),
            Ended::TimedOut(error) => Ok(Unanswered::TimedOut(error)),
            Ended::Failed(_) => Err(ended),
        }
    }

    fn release(held: Unanswered<'a>) -> Ended<'a, R> {
        match held {
            Unanswered::Rejected(rejection) => Ended::Rejected(rejection),
            Unanswered::TimedOut(error) => Ended::TimedOut(error),
        }
    }
}

/// Chooses `HoldAll`. A call on `&output` finds this method first.
pub trait IsSend {
    #[doc(hidden)]
    #[inline]
    fn circuit_breaker_hold(&self) -> HoldAll {
        HoldAll
    }
}

impl<R: Send> IsSend for Output<R> {}

/// Chooses `HoldErrors`, where `R` is not known to be `Send`.
pub trait IsNotSend {
    #[doc(hidden)]
    #[inline]
    fn circuit_breaker_hold(&self) -> HoldErrors {
        HoldErrors
    }
}

impl<R> IsNotSend for &Output<R> {}

/// The answer of this process' cache.
pub enum CachedReply<'a, R, Later> {
    /// The cached result.
    Value(R),
    /// There is none, and the store has none.
    Nothing(Ended<'a, R>),
    /// The store may have one: a future. It does not take an `Ended`, because it could then not be sent to
    /// another thread if `R` cannot.
    InStore(Later),
}

/// The cached result in place of a failure or a rejection.
#[inline]
pub fn cached<'a, R, K, H, Inside>(
    breaker: &'a SiteBreaker,
    function: CachedFunction<Inside>,
    key: Option<CacheKey>,
    codec: Codec<'a, K::Value>,
    (_kind, _hold): (K, H),
    ended: Ended<'a, R>,
) -> CachedReply<'a, R, impl Future<Output = Result<R, Ended<'a, R>>>>
where
    K: ReturnKind<R>,
    H: Hold<'a, R>,
{
    let (Some(key), Some(ttl)) = (key, breaker.cache_ttl()) else { return CachedReply::Nothing(ended) };
    let core = breaker.core();
    let caller = function.caller(core);
    let store = match (codec.0.recall_here)(core, caller, &key, ttl) {
        Here::Found(value) => {
            core.answered_from_cache();
            return CachedReply::Value(K::restore(value));
        }
        // The store has the same result.
        Here::Undecodable | Here::Nothing(None) => return CachedReply::Nothing(ended),
        Here::Nothing(store) => store,
    };
    let held = match H::hold(ended) {
        Ok(held) => held,
        Err(ended) => return CachedReply::Nothing(ended),
    };
    let recalling = (codec.0.recall_shared)(core, caller, key.with_store(store), ttl);
    CachedReply::InStore(async move {
        match recalling.await {
            Some(value) => {
                core.answered_from_cache();
                Ok(K::restore(value))
            }
            None => Err(H::release(held)),
        }
    })
}
