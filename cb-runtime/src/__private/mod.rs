//! What the expansion of `#[circuit_breaker]` names. Not a public interface: it changes with the macro, without notice.

mod cached;
mod classify;
mod fallback;
mod into_return;
mod pattern_site;
mod reply;
mod return_kind;
mod site;

pub use std::boxed::Box;

pub use core::format_args;
pub use core::mem::ManuallyDrop;
pub use core::option::Option;
pub use core::result::Result;
pub use core::time::Duration;

pub use crate::breaker::permit::Permit;
pub use crate::call::CallError;
pub use crate::config::BreakerConfig;
pub use crate::registry::Registry;

pub use cached::{cached, codec, keep, key, key_part};
pub use classify::{by_predicate, by_type, opening};
pub use fallback::{Arguments, call, clone_arg};
pub use into_return::{
    Ended, Reason, ReturnOr, into_return, into_return_or_any, into_return_or_error, into_return_or_open,
    is_returned,
};
pub use pattern_site::PatternSite;
pub use reply::{IsMismatch, IsOkValue, IsOkValueLater, IsWhole, IsWholeLater, Reply, answer, call_forever};
pub use return_kind::{
    BoxedFuture, OtherOutput, Output, ResultKind, ReturnKind, Returns, ValueKind, can_fail, never, returning,
    with_output,
};
pub use site::{
    MakeSettings, Site, SiteBreaker, SiteBreakerRef, admitted, ask, base, borrowing, end, end_never,
    must_wait, run, settings, time_out, wait,
};
