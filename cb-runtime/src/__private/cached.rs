//! The last good answer, in the place of a bad one.

use std::any::type_name_of_val;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::return_kind::{Output, ReturnKind};
use super::site::SiteBreaker;
use crate::breaker::Core;
use crate::cache::{CacheKey, KeyHasher, Unkeyable};
use crate::call::Verdict;

/// A result that can be kept and read back, in this process and in another.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be cached",
    label = "does not implement both `Serialize` and `DeserializeOwned`",
    note = "derive `serde::Serialize` and `serde::Deserialize` for it, or leave `cache_ttl` out"
)]
pub trait Cacheable: Serialize + DeserializeOwned {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> Cacheable for T {}

/// What can tell one call's result from another's.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a part of the cache key",
    label = "does not implement `serde::Serialize`",
    note = "derive `serde::Serialize` for it, or say what tells the results apart: `cache_key = expression`"
)]
pub trait KeyPart: Serialize {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + ?Sized> KeyPart for T {}

/// Begins the key of a function, which it knows by a closure inside of it: its type's name is the path of
/// the function, with the type that it is implemented for and the types that it is generic over.
#[inline]
pub fn key<Inside>(inside: &Inside, version: &str) -> KeyHasher {
    KeyHasher::new(type_name_of_val(inside).trim_end_matches("::{{closure}}"), version)
}

/// Adds an argument, or what the attribute gives in place of all.
#[inline]
pub fn key_part<T: KeyPart + ?Sized>(key: &mut KeyHasher, part: &T) {
    key.arg(part);
}

/// How to keep and to read back a `T`.
///
/// Made where the type is checked: with the bound on [`cached`] itself, the compiler would report one
/// mistake three times, as the bound is part of the type of what is awaited.
pub struct Codec<'a, T> {
    remember: fn(&Core, &CacheKey, Duration, &T),
    recall: fn(&'a Core, CacheKey, Duration) -> Recalling<'a, T>,
}

type Recalling<'a, T> = Pin<Box<dyn Future<Output = Option<T>> + Send + 'a>>;

/// The codec of what a function returns.
#[inline]
pub fn codec<'a, R, F: ReturnKind<R>>(_output: Output<R>, _form: F) -> Codec<'a, F::Value>
where
    F::Value: Cacheable + 'a,
{
    Codec { remember: Core::remember::<F::Value>, recall: |core, key, ttl| Box::pin(recall(core, key, ttl)) }
}

async fn recall<T: Cacheable>(core: &Core, key: CacheKey, ttl: Duration) -> Option<T> {
    core.recall(&key, ttl).await
}

/// Keeps a success.
#[inline]
pub fn keep<R, K: ReturnKind<R>>(
    breaker: &SiteBreaker,
    key: &Result<CacheKey, Unkeyable>,
    codec: &Codec<'_, K::Value>,
    _kind: K,
    verdict: Verdict,
    value: &R,
) {
    let (Verdict::Success, Some(ttl)) = (verdict, breaker.cache_ttl()) else { return };
    match (key, K::cacheable(value)) {
        (Ok(key), Some(value)) => (codec.remember)(breaker.core(), key, ttl, value),
        (Ok(_), None) => {}
        (Err(problem), _) => breaker.core().unkeyable(problem),
    }
}

/// The kept result in the place of a bad one, if there is any.
pub async fn cached<'a, R, K: ReturnKind<R>>(
    breaker: &'a SiteBreaker,
    key: Result<CacheKey, Unkeyable>,
    codec: Codec<'a, K::Value>,
    _kind: K,
) -> Option<R> {
    let ttl = breaker.cache_ttl()?;
    match key {
        Ok(key) => (codec.recall)(breaker.core(), key, ttl).await.map(K::restore),
        Err(problem) => {
            breaker.core().unkeyable(&problem);
            None
        }
    }
}
