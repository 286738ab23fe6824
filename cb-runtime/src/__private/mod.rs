//! What the expansion of `#[circuit_breaker]` names. Not public interface: it changes with the macro,
//! without notice.

mod cached;
mod ended;
mod fallback;
mod form;
mod named;
mod site;

pub use std::boxed::Box;

pub use core::format_args;
pub use core::option::Option;
pub use core::pin::pin;
pub use core::result::Result;
pub use core::time::Duration;

pub use crate::breaker::permit::CallPermit;
pub use crate::call::{CallError, Ended};
pub use crate::config::BreakerConfig;
pub use crate::registry::Registry;

pub use cached::{cached, codec, key, key_part};
pub use ended::{Settled, by_predicate, by_type, opening, settle, settle_any, settle_error, settle_open};
pub use fallback::{Given, call, call_forever, reply, spare};
pub use form::{AsResult, AsValue, Form, OtherOutput, Output, Returns, can_fail, never, returning};
pub use named::NamedSite;
pub use site::{Found, Site, SiteBreaker, base, settings};
