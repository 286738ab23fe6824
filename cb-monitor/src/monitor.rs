//! The set-up of a monitor.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use axum::Router;
use cb_runtime::Registry;

use crate::access::Access;
use crate::fleet::Source;
use crate::hub::Hub;
use crate::routes;

/// Routes that show a registry's whole namespace, and a page; see the [crate's documentation](crate).
///
/// A monitor is read-only until it has a [`token`](Self::token). Reading needs no authentication unless there
/// is a [`read_token`](Self::read_token): bind it to loopback, or nest it behind the service's own
/// authentication.
#[must_use = "a monitor does nothing until its router is served"]
pub struct Monitor {
    registry: Registry,
    prefix: String,
    access: Access,
}

impl Monitor {
    /// A monitor of the namespace that this registry is in: a `Registry`, or a reference to one.
    pub fn new(registry: impl Borrow<Registry>) -> Monitor {
        Monitor { registry: registry.borrow().clone(), prefix: "/circuits".into(), access: Access::default() }
    }

    /// Permits no actions, which is the default. An earlier [`token`](Self::token) is removed.
    pub fn read_only(mut self) -> Monitor {
        self.access.set_act(None);
        self
    }

    /// Requests with `Authorization: Bearer <token>` may act. White space around the token is ignored.
    ///
    /// A token of fewer than 16 characters is reported as a warning, because it could be guessed. An empty
    /// one is reported as an error and matches no request.
    pub fn token(mut self, secret: impl AsRef<str>) -> Monitor {
        self.access.set_act(Some(secret.as_ref()));
        self
    }

    /// Requires this token, or the one for actions, for reading. Without it, all clients that reach the
    /// routes may read. The page itself, which contains no figures, and `/live` stay open. Short and empty
    /// tokens are reported as by [`token`](Self::token).
    pub fn read_token(mut self, secret: impl AsRef<str>) -> Monitor {
        self.access.set_read(secret.as_ref());
        self
    }

    /// Where the routes are; default `/circuits`. An empty prefix puts the page at `/`.
    ///
    /// # Panics
    /// If it neither is empty nor begins with `/`, or if it has characters that are special in a route or a
    /// URL.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Monitor {
        let prefix = prefix.into();
        let Some(plain) = plain_prefix(&prefix) else {
            panic!("a monitor's prefix must be a plain path such as \"/circuits\", not {prefix:?}")
        };
        self.prefix = plain.into();
        self
    }

    /// The routes, to be merged into a service's router, or nested below a path of it.
    pub fn into_router(self) -> Router {
        let hub = Hub::new(Source::new(self.registry));
        routes::router(&self.prefix, Arc::new(hub), self.access)
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the tokens nor their digests are shown.
        f.debug_struct("Monitor")
            .field("prefix", &self.prefix)
            .field("read_only", &self.access.is_read_only())
            .finish_non_exhaustive()
    }
}

/// The prefix without slashes at its end; `None` if it is no plain path that begins with a slash.
pub(crate) fn plain_prefix(prefix: &str) -> Option<&str> {
    let prefix = prefix.trim_end_matches('/');
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.~".contains(c);
    let is_plain = prefix.starts_with('/') && prefix.chars().all(plain) && !prefix.contains("//");
    (prefix.is_empty() || is_plain).then_some(prefix)
}
