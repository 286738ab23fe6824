//! Health checks as users define them.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

type Checking = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// A health check in a breaker's settings.
#[derive(Clone)]
pub(crate) struct HealthCheck {
    /// The type's name, which identifies the check in reports and comparisons.
    name: &'static str,
    check: Arc<dyn Fn() -> Checking + Send + Sync>,
}

/// The result of a health check: `bool`, `()`, or a `Result` whose error implements `Display`.
///
/// `false` and `Err` have failed. Every `Ok` has passed, whatever its value: `Ok(false)`, too.
pub trait Healthy {
    /// `Ok` if the dependency is healthy, else the reason.
    #[doc(hidden)]
    fn health(self) -> Result<(), String>;
}

impl Healthy for () {
    fn health(self) -> Result<(), String> {
        Ok(())
    }
}

impl Healthy for bool {
    fn health(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("returned false".into()) }
    }
}

impl<T, E: fmt::Display> Healthy for Result<T, E> {
    fn health(self) -> Result<(), String> {
        self.map(drop).map_err(|error| error.to_string())
    }
}

impl HealthCheck {
    pub(crate) fn new<F, C>(check: F) -> Self
    where
        F: Fn() -> C + Send + Sync + 'static,
        C: Future<Output: Healthy> + Send + 'static,
    {
        let name = std::any::type_name::<F>();
        let check = Arc::new(move || {
            let checking = check();
            Box::pin(async move { checking.await.health() }) as Checking
        });
        HealthCheck { name, check }
    }

    /// Starts a check. The user's function runs here until its first `await`, and may panic.
    pub(crate) fn begin(&self) -> Checking {
        (self.check)()
    }
}

impl PartialEq for HealthCheck {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl fmt::Debug for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Display for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::Healthy;

    #[test]
    fn only_false_and_errors_have_failed() {
        assert!(().health().is_ok() && true.health().is_ok());
        assert!(Ok::<_, String>(false).health().is_ok(), "the value of a result is not looked at");
        assert_eq!(false.health(), Err("returned false".into()));
        assert_eq!(Err::<(), _>("timed out").health(), Err("timed out".into()));
    }
}
