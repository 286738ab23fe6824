//! The cached fallback: the last good result in place of a failure.

use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::return_kind::{Ended, Output, ReturnKind};
use crate::breaker::Core;
use crate::breaker::permit::Rejection;
use crate::breakers::SiteBreaker;
use crate::cache::{Arguments, CacheKey, CacheSite, Caller, Function, Here};
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

/// The function that returned a cached result.
#[derive(Clone, Copy)]
pub struct CachedFunction(&'static Function);

/// The function that contains the closure. `Inside` is the closure's type: each function, and each instance
/// of a generic function, has its own.
#[inline]
pub fn cached_function<Inside>(site: &'static CacheSite, _inside: Inside) -> CachedFunction {
    CachedFunction(site.function::<Inside>())
}

/// A call's arguments, if its result may be cached. Whatever uses the key drops it: each annotated function
/// would otherwise contain the code that drops it if an argument's `Serialize` panics.
pub struct Key(ManuallyDrop<Option<Arguments>>);

/// Begins a call's key.
#[inline]
pub fn key(breaker: &SiteBreaker, version: &str) -> Key {
    Key(ManuallyDrop::new(breaker.cache_ttl().map(|_| Arguments::new(version))))
}

/// The function and the arguments of a call.
pub struct CallKey {
    function: &'static Function,
    key: CacheKey,
}

/// Completes a call's key. `None`: the call does not use the cache.
#[inline]
pub fn key_of(breaker: &SiteBreaker, CachedFunction(function): CachedFunction, key: Key) -> Option<CallKey> {
    let arguments = ManuallyDrop::into_inner(key.0)?;
    let core = breaker.core();
    let key = core.cache().key(core.name(), core.cache_scope(), (function.id(), || function), &arguments)?;
    Some(CallKey { function, key })
}

impl CallKey {
    fn caller<'a>(&self, core: &'a Core) -> Caller<'a> {
        Caller { breaker: core.name(), function: self.function }
    }
}

/// The functions that write and read an `R`. It has one word, because the call's future holds it.
///
/// The expansion creates it where the type is checked. With the bound on the functions that use it, the bound
/// would be part of the type of the awaited future, and the compiler would report one mistake three times.
pub struct Codec<'a, R>(&'a CodecFunctions<'a, R>);

struct CodecFunctions<'a, R> {
    keep: fn(&Core, &CallKey, Duration, &R),
    recall: fn(&'a Core, CallKey, Duration, Ended<'a, R>) -> Recalled<'a, R>,
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

/// The codec of a function's return value. `hold`: see [`Hold`].
#[inline]
pub fn codec<'a, R, K: ReturnKind<R>, H: Hold<'a, R>>(_output: Output<R>, _kind: K, _hold: H) -> Codec<'a, R>
where
    K::Value: Cacheable + 'a,
{
    Codec(&CodecFunctions {
        keep: |core, call, ttl, result| {
            if let Some(value) = K::cacheable(result) {
                core.cache().keep(call.caller(core), call.key.clone(), ttl, value);
            }
        },
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
    /// The cached result in place of a failure or a rejection.
    pub(super) fn recall(
        self,
        breaker: &'a SiteBreaker,
        key: Option<CallKey>,
        ended: Ended<'a, R>,
    ) -> Recalled<'a, R> {
        match (key, breaker.cache_ttl()) {
            (Some(key), Some(ttl)) => (self.0.recall)(breaker.core(), key, ttl, ended),
            _ => Recalled::Nothing(ended),
        }
    }
}

/// Caches a success, unless the cached result is fresh.
#[cfg_attr(not(debug_assertions), inline)]
pub(super) fn keep_success<R>(breaker: &SiteBreaker, key: Option<&CallKey>, codec: Codec<'_, R>, result: &R) {
    if let Some(call) = key
        && !breaker.core().cache().is_fresh(&call.key)
    {
        keep(breaker, call, codec, result);
    }
}

#[cold]
#[inline(never)]
fn keep<R>(breaker: &SiteBreaker, call: &CallKey, codec: Codec<'_, R>, result: &R) {
    if let Some(ttl) = breaker.cache_ttl() {
        (codec.0.keep)(breaker.core(), call, ttl, result);
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
    if verdict == Verdict::Success {
        keep_success(breaker, key.as_ref(), codec, result);
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

fn recalled<'a, R, K: ReturnKind<R>, H: Hold<'a, R>>(
    core: &'a Core,
    call: CallKey,
    ttl: Duration,
    ended: Ended<'a, R>,
) -> Recalled<'a, R>
where
    K::Value: Cacheable + 'a,
{
    let caller = call.caller(core);
    let store = match core.cache().recall_here(caller, &call.key, ttl) {
        Here::Found(value) => {
            core.answered_from_cache();
            return Recalled::Value(K::restore(value));
        }
        // The store has the same result.
        Here::Undecodable | Here::Nothing(None) => return Recalled::Nothing(ended),
        Here::Nothing(store) => store,
    };
    let held = match H::hold(ended) {
        Ok(held) => held,
        Err(ended) => return Recalled::Nothing(ended),
    };
    let recalling = core.cache().recall_shared(caller, call.key.with_store(store), ttl);
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
