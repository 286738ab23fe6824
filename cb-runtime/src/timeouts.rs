//! How long an instance waits for its store.

use std::time::Duration;

use crate::error::Error;

/// See [`RegistryBuilder::response_timeout`](crate::RegistryBuilder::response_timeout).
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(400);
const SHORTEST: Duration = Duration::from_millis(20);
/// Leases last two seconds, and could not be renewed over a slower connection.
const LONGEST: Duration = Duration::from_secs(2);

/// All time limits of the store follow from one, because all of them depend on the round trip.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    response: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts { response: RESPONSE_TIMEOUT }
    }
}

impl Timeouts {
    pub(crate) fn new(response: Duration) -> Result<Self, Error> {
        if response < SHORTEST || response > LONGEST {
            let problem = format!("{response:?} is invalid; it must be from {SHORTEST:?} to {LONGEST:?}");
            return Err(Error::config("response_timeout", problem));
        }
        Ok(Timeouts { response })
    }

    /// For an answer that a caller may wait for. The store counts as lost after it.
    pub(crate) fn response(self) -> Duration {
        self.response
    }

    /// For an answer that no caller waits for, which leaves time for a new connection: 1 s by default.
    pub(crate) fn background(self) -> Duration {
        self.response * 5 / 2
    }

    /// For a connection attempt, and for an answer on a connection, which is dropped after it: 0.5 s by
    /// default. Also for the fleet's states, while a new registry is built.
    pub(crate) fn connection(self) -> Duration {
        self.response * 5 / 4
    }

    /// A coordinator without a heartbeat for this long is gone, and the store counts as lost: 2 s by default.
    pub(crate) fn silence(self) -> Duration {
        self.response * 5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_the_response_timeout() {
        let default = Timeouts::default();
        let millis = |span: Duration| span.as_millis();
        assert_eq!(millis(default.response()), 400);
        assert_eq!(millis(default.connection()), 500);
        assert_eq!(millis(default.background()), 1000);
        assert_eq!(millis(default.silence()), 2000);
        let longest = Timeouts::new(LONGEST).unwrap();
        assert_eq!(millis(longest.background()), 5000);
        for invalid in [Duration::ZERO, SHORTEST / 2, LONGEST * 2] {
            let error = Timeouts::new(invalid).unwrap_err();
            assert_eq!(error.field(), Some("response_timeout"), "{error}");
        }
    }
}
