//! How many instances and calls an action concerns.

use std::fmt;

use serde::Serialize;

use crate::figures::{Rates, Row};
use crate::fleet::Instances;

/// The instances and calls that an action concerns.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct BlastRadius {
    /// The number of instances that have reported the breaker; if none has, of all that are alive.
    pub(crate) instances: usize,
    /// Calls that are made, and calls that are rejected.
    pub(crate) calls_per_second: f64,
}

impl BlastRadius {
    pub(crate) fn of(row: &Row, instances: &Instances) -> BlastRadius {
        let silent = |id: &str| instances.list.iter().any(|known| known.degraded && *known.id == *id);
        let reported = instances.settings.of(&row.name).iter();
        let reported = reported.filter(|settings| !silent(&settings.instance)).count();
        let Rates { calls, rejected, .. } = row.per_second;
        BlastRadius {
            instances: if reported > 0 { reported } else { instances.alive },
            calls_per_second: calls + rejected.unwrap_or(0.0),
        }
    }
}

impl fmt::Display for BlastRadius {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instances = if self.instances == 1 { "instance" } else { "instances" };
        let calls = match self.calls_per_second {
            0.0 => "no calls at the moment".to_owned(),
            few if few < 1.0 => "less than 1 call a second".to_owned(),
            calls if calls < 1.5 => "1 call a second".to_owned(),
            calls => format!("{calls:.0} calls a second"),
        };
        write!(f, "{} {instances}, {calls}", self.instances)
    }
}
