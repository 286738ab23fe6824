//! The fleet's breakers, as the store has them.

mod reading;

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Registry;
use crate::breaker::Figures;
use crate::coordinator::Command;
use crate::deadline::{ANSWER, within};
use crate::error::{Error, ErrorKind};
use crate::snapshot::{FleetBreaker, FleetPage, FleetQuery, State, StateCounts, WindowSnapshot};
use crate::store::{Counts, Detail, FleetRow, Record};
use reading::Reading;
pub(super) use reading::Readings;

impl Registry {
    /// Every breaker of the fleet as the store has it, by name, after this instance has sent the store all
    /// that it has counted. Breakers that an instance has registered and none has called are closed; other
    /// instances tell of theirs within seconds.
    ///
    /// Of a fleet with thousands of breakers, [`fleet_page`](Self::fleet_page) reads a part.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn fleet(&self) -> Result<Vec<FleetBreaker>, Error> {
        let (sender, flushed) = oneshot::channel();
        let gone = || Error::new(ErrorKind::ShutDown);
        self.shared.requests.send(Command::Flush(sender)).map_err(|_| gone())?;
        let Some(flushed) = within(ANSWER, flushed).await else {
            let problem = format!("the coordinator has not answered within {ANSWER:?}");
            return Err(Error::store("reading the fleet", problem));
        };
        flushed.map_err(|_| gone())?;
        let reading = self.read_fleet().await?;
        let mut fleet = self.breakers_of(&reading, reading.entries()).await?;
        fleet.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(fleet)
    }

    /// A part of the fleet's breakers: those that are not closed first, open ones at the top, and in each
    /// state by name.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), cb_runtime::Error> {
    /// use cb_runtime::{FleetQuery, Registry, State};
    ///
    /// let registry = Registry::builder().build()?;
    /// for name in ["orders", "user-profile", "user-service"] {
    ///     registry.control(name).disable("example").await?;
    /// }
    /// registry.control("user-service").force_open("example").await?;
    ///
    /// let query = FleetQuery::default().search("user").limit(1);
    /// let first = registry.fleet_page(&query).await?;
    /// assert_eq!((&*first.breakers[0].name, first.total), ("user-service", 2));
    /// let rest = registry.fleet_page(&query.after(first.next.unwrap())).await?;
    /// assert_eq!((&*rest.breakers[0].name, rest.next), ("user-profile", None));
    /// assert_eq!(rest.by_state[State::ForcedOpen], 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Names are read for the first page, and kept for the pages that follow within half a minute. So walking
    /// through ten thousand breakers reads each of them once, and breakers that come or go meanwhile are not
    /// noticed. Readers that ask at the same time share one reading.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn fleet_page(&self, query: &FleetQuery) -> Result<FleetPage, Error> {
        let reading = match query.place() {
            Some(_) => self.continued_reading().await?,
            None => self.read_fleet().await?,
        };
        let mut by_state = StateCounts::default();
        let matching = reading.entries().iter().filter(|entry| query.matches(&entry.name));
        let matching = matching.inspect(|entry| by_state.add(entry.state));
        let mut entries: Vec<_> = matching.collect();
        entries.retain(|entry| query.wants(entry.state));
        let total = entries.len();
        let begun = query.place().map_or(0, |(rank, name)| {
            entries.partition_point(|entry| entry.compare(rank, name) != Ordering::Greater)
        });
        let end = begun.saturating_add(query.size()).min(total);
        let page = &entries[begun..end];
        let next = page.last().filter(|_| end < total).map(|entry| entry.cursor());
        let mut breakers = self.breakers_of(&reading, page.iter().copied()).await?;
        breakers.sort_by(|a, b| (rank(a.state), &a.name).cmp(&(rank(b.state), &b.name)));
        if next.is_none() {
            self.forget_reading();
        }
        Ok(FleetPage { breakers, next, total, by_state })
    }

    /// These breakers with all their details. One that cannot be read is reported and left out.
    async fn breakers_of(
        &self,
        reading: &Reading,
        entries: impl IntoIterator<Item = &reading::ListedBreaker>,
    ) -> Result<Vec<FleetBreaker>, Error> {
        let mut rows = Vec::new();
        let mut unread = Vec::new();
        for entry in entries {
            match &entry.row {
                Some((row, detail)) => rows.push((reading.aged(row), detail.clone())),
                None => unread.push(entry.name.clone()),
            }
        }
        rows.extend(self.read_rows(unread).await?);
        let now_us = self.context.store_now();
        let mut breakers = Vec::with_capacity(rows.len());
        for (FleetRow { name, view }, detail) in rows {
            match view {
                Ok(view) => {
                    let figures = reading.figures(&name);
                    breakers.push(self.breaker_of(name, view, detail, figures, now_us));
                }
                Err(problem) => self.report_unreadable(&name, problem),
            }
        }
        Ok(breakers)
    }

    fn breaker_of(
        &self,
        name: Arc<str>,
        (record, counts, streak): (Record, Counts, u64),
        detail: Detail,
        (figures, isolated): (Figures, Vec<String>),
        now_us: u64,
    ) -> FleetBreaker {
        let wall = |at_us: u64| self.context.wall_of_store(at_us);
        let would_have_opened_us = Some(figures.would_have_opened_us).filter(|at_us| *at_us > 0);
        FleetBreaker {
            name: name.to_string(),
            state: record.state,
            epoch: record.epoch,
            since: (record.epoch > 0).then(|| wall(now_us.saturating_sub(record.since_us))),
            opened_at: detail.opened_at_us.map(wall),
            last_failure_at: detail.last_failure_at_us.map(wall),
            reason: record.reason,
            actor: record.actor,
            originator: record.originator,
            retry_after: record.remaining_us.map(Duration::from_micros),
            failures: counts.failures,
            successes: counts.successes,
            slow: counts.slow,
            consecutive_failures: streak,
            window: figures.window.map(WindowSnapshot::from),
            outcomes: figures.outcomes,
            would_have_opened: figures.would_have_opened,
            would_have_opened_at: would_have_opened_us.map(crate::clock::wall),
            isolated,
            openings: record.attempt,
            probes: detail.probes,
            leader: detail.leader,
        }
    }
}

/// The worst first.
fn rank(state: State) -> u8 {
    match state {
        State::Open => 0,
        State::HalfOpen => 1,
        State::ForcedOpen => 2,
        State::MetricsOnly => 3,
        State::Disabled => 4,
        State::Closed => 5,
    }
}
