//! What the expansion of `#[circuit_breaker]` names. Not public interface: it changes with the macro,
//! without notice.

mod cached;
mod fallback;
mod form;
mod site;

pub use core::option::Option;
pub use core::pin::pin;
pub use core::result::Result;
pub use core::time::Duration;

pub use crate::breaker::permit::Permit;
pub use crate::call::{CallError, Ended, Verdict};
pub use crate::config::BreakerConfig;
pub use crate::registry::Registry;

pub use cached::{cached, key, key_part};
pub use fallback::{Given, call, reply, settle, settle_any, settle_error, settle_open, spare};
pub use form::{AsResult, AsValue, Form, OtherOutput, Output, can_fail};
pub use site::{Found, Site, SiteBreaker, base, settings};
