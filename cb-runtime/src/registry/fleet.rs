//! The fleet's breakers, as the store has them.

use std::time::Duration;

use tokio::sync::oneshot;

use super::Registry;
use crate::coordinator::Command;
use crate::error::{Error, ErrorKind};
use crate::snapshot::FleetBreaker;
use crate::store::FleetRow;

impl Registry {
    /// Every breaker of the fleet as the store has it, by name, after this instance has sent the store all that it has counted.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn fleet(&self) -> Result<Vec<FleetBreaker>, Error> {
        let (answer, answered) = oneshot::channel();
        let gone = || Error::new(ErrorKind::ShutDown);
        self.shared.requests.send(Command::Fleet(answer)).map_err(|_| gone())?;
        let rows = answered.await.map_err(|_| gone())??;
        let mut fleet: Vec<_> = rows.into_iter().filter_map(|row| self.readable(row)).collect();
        fleet.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(fleet)
    }

    /// A breaker that cannot be read is reported and left out.
    fn readable(&self, row: FleetRow) -> Option<FleetBreaker> {
        match row.view {
            Ok((record, counts, streak)) => Some(FleetBreaker {
                name: row.name.to_string(),
                state: record.state,
                epoch: record.epoch,
                reason: record.reason,
                actor: record.actor,
                originator: record.originator,
                retry_after: record.remaining_us.map(Duration::from_micros),
                failures: counts.failures,
                successes: counts.successes,
                consecutive_failures: streak,
            }),
            Err(problem) => {
                self.report(Error::new(ErrorKind::Data {
                    what: format!("breaker \"{}\"", row.name),
                    problem,
                }));
                None
            }
        }
    }
}
