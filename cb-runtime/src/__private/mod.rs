//! What the expansion of `#[circuit_breaker]` names, as `cb_runtime::attribute`. Not a public interface: it
//! changes with the macro, without notice.
//!
//! In the order of a call: `site` and `pattern_site` (with `keyed_settings`, `name_part` and `thread_table`)
//! find the breaker; `return_kind` and `classify` tell a failure from a success; `guarded`, `cached_call`
//! (with `cached`) and `steps` make the call; `into_return`, `fallback` and `reply` make its answer.

mod cached;
mod cached_call;
mod classify;
mod fallback;
mod guarded;
mod into_return;
mod keyed_settings;
mod name_part;
mod pattern_site;
mod reply;
mod return_kind;
mod site;
mod steps;
mod thread_table;

pub use std::boxed::Box;

pub use core::format_args;
pub use core::mem::ManuallyDrop;
pub use core::module_path;
pub use core::option::Option;
pub use core::option_env;
pub use core::result::Result;
pub use core::time::Duration;

pub use crate::cache::CacheSite;
pub use crate::config::BreakerConfig;
pub use crate::registry::Registry;

pub use cached::{
    IsNotSend, IsSend, KeyPart, Recalled, cache_success, cached_function, codec, key, key_of, recall,
};
pub use cached_call::call_cached;
pub use classify::{by_predicate, by_type, opening};
pub use fallback::*;
pub use guarded::{call, ended, is_error, is_rejected, rejected, rejection, stopped};
pub use into_return::{
    into_return, into_return_or_any, into_return_or_error, into_return_or_open, is_returned,
};
pub use name_part::{IsKnownPart, IsOtherPart, NamePart, PartOf};
pub use pattern_site::PatternSite;
pub use reply::{
    FallbackReply, IsMismatch, IsOkValue, IsOkValueLater, IsWhole, IsWholeLater, Reply, call_forever,
};
pub use return_kind::{
    BoxedFuture, CanFail, Ended, FromBreakerError, OtherOutput, Output, Returns, boxed, never, returning,
    unnameable, with_output,
};
pub use site::{MakeSettings, Site, settings};
pub use steps::{
    admit, admit_with_fallback, admitted, answered_by_fallback, end, end_never, must_wait, run_to_judge,
    time_out, wait, waited_with_fallback,
};

/// What the compiler's messages name besides the annotated function. The compiler shortens the path of an
/// item that a module contains which is not hidden itself.
pub mod messages {
    pub use super::cached::Cacheable;
    pub use super::reply::Forever;
    pub use super::{
        BoxedFuture, Callable, CanFail, CloneArg, FallbackReply, FromBreakerError, KeyPart, by_predicate,
        codec, opening,
    };
}
