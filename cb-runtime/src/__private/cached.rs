//! The last good answer, in the place of a bad one.

use std::any::type_name_of_val;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Ended;
use super::form::Form;
use super::site::SiteBreaker;
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

/// Keeps a success; puts the kept one in the place of a failure or a rejection.
#[inline]
pub async fn cached<R, F>(
    breaker: &SiteBreaker,
    key: Result<CacheKey, Unkeyable>,
    _form: F,
    ended: Ended<R>,
) -> Ended<R>
where
    F: Form<R>,
    F::Value: Cacheable,
{
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
                breaker.core().remember(&key, ttl, value);
            }
            return ended;
        }
        Ended::Failed(_) | Ended::Rejected(_) | Ended::TimedOut(_) => {}
    }
    match breaker.core().recall(&key, ttl).await {
        Some(value) => Ended::Success(F::restore(value)),
        None => ended,
    }
}
