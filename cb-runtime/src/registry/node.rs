//! The name of the node that an instance runs on.

use std::sync::Arc;

/// The given name, else `CB_INSTANCE`, else the host's.
pub(super) fn name(given: Option<String>) -> Arc<str> {
    let variable = || std::env::var_os("CB_INSTANCE").map(|name| name.to_string_lossy().into_owned());
    let name = given.or_else(variable).map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    match name {
        Some(name) => name.into(),
        None => host().into(),
    }
}

/// The host's name; in a container usually the container's.
pub(super) fn host() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}
