//! The last good answer, in the place of a bad one.

use std::any::type_name_of_val;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Ended;
use super::return_kind::{Output, ReturnKind};
use super::site::SiteBreaker;
use crate::breaker::Core;
use crate::cache::{CacheKey, KeyHasher, Unkeyable};

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

/// Keeps a success; puts the kept one in the place of a failure or a rejection.
#[inline]
pub async fn cached<'a, R, F: ReturnKind<R>>(
    breaker: &'a SiteBreaker,
    key: Result<CacheKey, Unkeyable>,
    codec: Codec<'a, F::Value>,
    _form: F,
    ended: Ended<R>,
) -> Ended<R> {
    let Some(ttl) = breaker.cache_ttl() else { return ended };
    let key = match key {
        Ok(key) => key,
        Err(problem) => {
            breaker.core().unkeyable(&problem);
            return ended;
        }
    };
    match &ended {
        Ended::Ignored(_) => return ended,
        Ended::Success(value) => {
            if let Some(value) = F::cacheable(value) {
                (codec.remember)(breaker.core(), &key, ttl, value);
            }
            return ended;
        }
        Ended::Failed(_) | Ended::Rejected(_) | Ended::TimedOut(_) => {}
    }
    match (codec.recall)(breaker.core(), key, ttl).await {
        Some(value) => Ended::Success(F::restore(value)),
        None => ended,
    }
}
