//! The cached fallback: the last good result in place of a failure.

use std::future::Future;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::return_kind::{Ended, Output, ReturnKind};
use crate::breaker::Core;
use crate::breaker::permit::Rejection;
use crate::breakers::SiteBreaker;
use crate::cache::{Arguments, CacheKey, CacheSite, Caller, Function, FunctionId, Here};
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
        if let Some(arguments) = &mut *key.0 {
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

/// A call's arguments, if its result may be cached. [`key_of`] drops them: each annotated function would
/// otherwise contain the code that drops them if an argument's `Serialize` panics.
pub struct Key(ManuallyDrop<Option<Arguments>>);

/// Begins a call's key.
#[inline]
pub fn key(breaker: &SiteBreaker, version: &str) -> Key {
    Key(ManuallyDrop::new(breaker.cache_ttl().map(|_| Arguments::new(version))))
}

/// The arguments of a call, and the static beside its function.
pub struct CallKey {
    site: &'static CacheSite,
    key: CacheKey,
}

/// Completes a call's key. `None`: the call does not use the cache.
#[inline]
pub fn key_of<Inside>(
    breaker: &SiteBreaker,
    function: CachedFunction<Inside>,
    key: &mut Key,
) -> Option<CallKey> {
    key_in(breaker, function.site, FunctionId::of::<Inside>(), CacheSite::function::<Inside>, key)
}

/// The part of [`key_of`] that is compiled once for all functions, where nothing is inlined.
#[cfg_attr(not(debug_assertions), expect(clippy::inline_always, reason = "a call would copy the key"))]
#[cfg_attr(not(debug_assertions), inline(always))]
fn key_in(
    breaker: &SiteBreaker,
    site: &'static CacheSite,
    id: FunctionId,
    function: fn(&'static CacheSite) -> &'static Function,
    key: &mut Key,
) -> Option<CallKey> {
    let arguments = key.0.as_ref()?;
    let core = breaker.core();
    let of_function = (id, || function(site));
    let Some(made) = core.cache().key(core.name(), core.cache_scope(), of_function, arguments) else {
        without_key(key);
        return None;
    };
    Some(CallKey { site, key: made })
}

/// Drops arguments that cannot be a key. Others own nothing.
#[cold]
#[inline(never)]
fn without_key(key: &mut Key) {
    *key.0 = None;
}

/// The functions that write and read an `R`. It has one word, because the call's future holds it.
///
/// The expansion creates it where the type is checked. With the bound on the functions that use it, the bound
/// would be part of the type of the awaited future, and the compiler would report one mistake three times.
pub struct Codec<'a, R>(&'a CodecFunctions<'a, R>);

struct CodecFunctions<'a, R> {
    function: fn(&'static CacheSite) -> &'static Function,
    keep: fn(&Core, Caller<'_>, CacheKey, Duration, &R, u64),
    recall: fn(&'a Core, Caller<'a>, CacheKey, Duration, Ended<'a, R>) -> Recalled<'a, R>,
}

/// The answer of the cache.
pub enum Recalled<'a, R> {
    /// The cached result.
    Value(R),
    /// There is none.
    Nothing(Ended<'a, R>),
    /// The store may have one.
    InStore(Recalling<'a, R>),
}

/// Asks the store. `Err`: it has no result. In a box, because few calls need it; so it can be sent to another
/// thread whatever `R` is.
pub(super) type Recalling<'a, R> = Pin<Box<dyn Future<Output = Result<R, Ended<'a, R>>> + Send + 'a>>;

/// The codec of a function's return value. `hold`: see `Hold`.
#[inline]
pub fn codec<'a, R, K: ReturnKind<R>, H: Hold<'a, R>, Inside>(
    _output: Output<R>,
    _kind: K,
    _hold: H,
    _function: CachedFunction<Inside>,
) -> Codec<'a, R>
where
    K::Value: Cacheable + 'a,
{
    Codec(&CodecFunctions {
        function: CacheSite::function::<Inside>,
        keep: kept::<R, K>,
        recall: recalled::<R, K, H>,
    })
}

impl<R> Clone for Codec<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Codec<'_, R> {}

impl<'a, R> Codec<'a, R> {
    fn caller<'c>(self, core: &'c Core, site: &'static CacheSite) -> Caller<'c> {
        let function = (self.0.function)(site);
        Caller { breaker: core.name(), name: core.error_name(), scope: core.cache_scope(), function }
    }

    /// The cached result in place of a failure or a rejection.
    pub(super) fn recall(
        self,
        breaker: &'a SiteBreaker,
        key: Option<CallKey>,
        ended: Ended<'a, R>,
    ) -> Recalled<'a, R> {
        match (key, breaker.cache_ttl()) {
            (Some(CallKey { site, key }), Some(ttl)) => {
                let core = breaker.core();
                (self.0.recall)(core, self.caller(core, site), key, ttl, ended)
            }
            _ => Recalled::Nothing(ended),
        }
    }
}

/// Caches a success, unless the cached result is fresh. The result is passed by value, because one to which a
/// reference exists would have to be in memory even where it is not kept.
#[cfg_attr(not(debug_assertions), expect(clippy::inline_always, reason = "see above"))]
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn keep_success<R>(
    breaker: &SiteBreaker,
    key: Option<&CallKey>,
    codec: Codec<'_, R>,
    result: ManuallyDrop<R>,
) -> ManuallyDrop<R> {
    match key.and_then(|call| call.stale_at(breaker)) {
        Some((call, now)) => {
            let kept = result;
            keep(breaker, call, codec, &kept, now);
            kept
        }
        _ => result,
    }
}

impl CallKey {
    /// The key and the time, unless the cached result is fresh.
    #[cfg_attr(not(debug_assertions), inline)]
    fn stale_at(&self, breaker: &SiteBreaker) -> Option<(&Self, u64)> {
        let core = breaker.core();
        core.cache().stale_at(core.cache_scope(), &self.key).map(|now| (self, now))
    }
}

#[cold]
#[inline(never)]
fn keep<R>(breaker: &SiteBreaker, call: &CallKey, codec: Codec<'_, R>, result: &R, now: u64) {
    if let Some(ttl) = breaker.cache_ttl() {
        let core = breaker.core();
        (codec.0.keep)(core, codec.caller(core, call.site), call.key.clone(), ttl, result, now);
    }
}

/// Caches a success, in a function with a predicate.
#[inline]
pub fn cache_success<R>(
    breaker: &SiteBreaker,
    key: &Option<CallKey>,
    codec: Codec<'_, R>,
    verdict: Verdict,
    result: &R,
) {
    if verdict == Verdict::Success
        && let Some((call, now)) = key.as_ref().and_then(|call| call.stale_at(breaker))
    {
        keep(breaker, call, codec, result, now);
    }
}

/// The cached result in place of a failure or a rejection, in a function with a predicate.
pub fn recall<'a, R>(
    breaker: &'a SiteBreaker,
    key: Option<CallKey>,
    codec: Codec<'a, R>,
    ended: Ended<'a, R>,
) -> Recalled<'a, R> {
    codec.recall(breaker, key, ended)
}

fn kept<R, K: ReturnKind<R>>(
    core: &Core,
    caller: Caller<'_>,
    key: CacheKey,
    ttl: Duration,
    result: &R,
    now: u64,
) where
    K::Value: Cacheable,
{
    if let Some(value) = K::cacheable(result) {
        core.cache().keep(caller, key, ttl, value, now);
    }
}

fn recalled<'a, R, K: ReturnKind<R>, H: Hold<'a, R>>(
    core: &'a Core,
    caller: Caller<'a>,
    key: CacheKey,
    ttl: Duration,
    ended: Ended<'a, R>,
) -> Recalled<'a, R>
where
    K::Value: Cacheable + 'a,
{
    let store = match core.cache().recall_here(caller, &key, ttl) {
        Here::Found(value) => {
            core.answered_from_cache();
            return Recalled::Value(K::restore(value));
        }
        // Asking the store is no use: it has what is undecodable here, or there is no store.
        Here::Undecodable | Here::Nothing(None) => return Recalled::Nothing(ended),
        Here::Nothing(store) => store,
    };
    let held = match H::hold(ended) {
        Ok(held) => held,
        Err(ended) => return Recalled::Nothing(ended),
    };
    let recalling = core.cache().recall_shared(caller, key.with_store(store), ttl);
    Recalled::InStore(Box::pin(async move {
        match recalling.await {
            Some(value) => {
                core.answered_from_cache();
                Ok(K::restore(value))
            }
            None => Err(H::release(held)),
        }
    }))
}

/// The part of a failed call that its future holds while the store is read.
pub trait Hold<'a, R> {
    /// The held value. The future that holds it may have to be `Send`.
    type Held: Send + 'a;
    /// `Err`: it cannot be held.
    #[doc(hidden)]
    fn hold(ended: Ended<'a, R>) -> Result<Self::Held, Ended<'a, R>>;
    #[doc(hidden)]
    fn release(held: Self::Held) -> Ended<'a, R>;
}

/// Holds everything, because `R` is `Send`.
#[derive(Clone, Copy)]
pub struct HoldAll;

impl<'a, R: Send + 'a> Hold<'a, R> for HoldAll {
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
