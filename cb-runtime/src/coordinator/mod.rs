//! The background exchange with the store: one task per registry on the process's coordinator thread,
//! and one beside it that follows the event stream.
//!
//! A turn of the coordinator reviews the breakers on which something has happened, or is due: tense ones go
//! into an exchange, quiet ones into the next report. An idle breaker costs nothing. Batches and reports are
//! sent strictly one after the other: their sequence numbers let the store recognise a retry.

mod connection;
pub(crate) mod follower;
mod health;
mod outages;
mod pace;
mod requests;
mod review;
mod schedule;
mod skew;
pub(crate) mod stream;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::background;
use crate::breaker::Core;
use crate::breaker::context::RegistryContext;
use crate::breaker::health::Check;
use crate::breaker::machine::{Cadence, PACE};
use crate::breakers::BreakerMap;
use crate::clock::{Moment, micros};
use crate::error::{Error, ErrorKind};
use crate::store::Store;
use follower::Follower;
use outages::Outages;
use pace::Pace;
use requests::Sent;
use schedule::Schedule;
use skew::Skew;
use stream::{Continuity, Stream};

/// The interval of evictions while keyed breakers have room, and of looking for expired overrides of breakers
/// that are not registered here.
const SWEEP: Duration = Duration::from_secs(1);
/// The number of entries in a report, which Redis executes without serving other clients: 3 to 5 µs each.
const MAX_REPORTED: usize = 250;
/// The first and the longest delay before a lost store is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(400));

/// A request to the coordinator.
pub(crate) enum Command {
    /// Report everything now.
    Flush(oneshot::Sender<()>),
    /// Load all states anew, because the stream has a gap or cannot be read.
    Resync,
    /// Write the state of this breaker back, which the store has lost and which is not registered here.
    WriteBack(Arc<str>),
    /// Report everything, return all leases, and stop.
    Shutdown(oneshot::Sender<()>),
}

/// Runs a health check to its end, beside the coordinator.
type RunCheck = Box<dyn Fn(Arc<Core>, Check) + Send + Sync>;

pub(crate) struct Coordinator {
    context: Arc<RegistryContext>,
    breakers: Arc<BreakerMap>,
    store: Arc<dyn Store>,
    stream: Arc<Stream>,
    requests: mpsc::UnboundedReceiver<Command>,
    skew: Skew,
    seq: u64,
    /// A request that was not answered: its fate is unknown.
    unknown: Option<Sent>,
    pace: Pace,
    schedule: Schedule,
    /// Tense breakers, until the next exchange is due.
    tense: Vec<Arc<Core>>,
    /// Quiet breakers for this turn's report.
    quiet: Vec<Arc<Core>>,
    /// Breakers whose state has health checks.
    checked: BTreeMap<Arc<str>, Weak<Core>>,
    run_check: RunCheck,
    reviewed_at: Moment,
    swept_at: Moment,
    checked_at: Moment,
    retry_at: Moment,
    retry_after: Duration,
    resync: bool,
    /// What has happened to the stream, and the next load has to make up for.
    continuity: Continuity,
    /// Breakers that are not registered here, and whose states the store has lost, or whose overrides have
    /// expired.
    missing: BTreeSet<Arc<str>>,
    /// When the store answered last.
    answered_at: Moment,
    /// When that was by the wall clock.
    answered_wall_us: u64,
    outages: Outages,
}

/// Starts the tasks. `ready` receives a message after the first attempt to reach the store, successful or
/// not.
pub(crate) fn start(
    context: Arc<RegistryContext>,
    breakers: Arc<BreakerMap>,
    store: Arc<dyn Store>,
    ready: SyncSender<()>,
) -> std::io::Result<mpsc::UnboundedSender<Command>> {
    let runtime = background::runtime()?;
    let (sender, requests) = mpsc::unbounded_channel();
    let stream = Arc::new(Stream::default());
    let follower = Follower {
        context: context.clone(),
        breakers: breakers.clone(),
        store: store.clone(),
        stream: stream.clone(),
        requests: sender.downgrade(),
    };
    let pace = Pace::new(context.clock.now());
    let run_check = Box::new(|core, check| drop(tokio::spawn(health::run(core, check))));
    let coordinator = Coordinator::new(context, breakers, store, stream, requests, pace, run_check);
    runtime.spawn(async move {
        let follower = tokio::spawn(follower.run());
        coordinator.run(ready).await;
        follower.abort();
    });
    Ok(sender)
}

impl Coordinator {
    fn new(
        context: Arc<RegistryContext>,
        breakers: Arc<BreakerMap>,
        store: Arc<dyn Store>,
        stream: Arc<Stream>,
        requests: mpsc::UnboundedReceiver<Command>,
        pace: Pace,
        run_check: RunCheck,
    ) -> Self {
        let (now, answered_wall_us) = (context.clock.now(), context.clock.wall_us());
        Coordinator {
            context,
            breakers,
            store,
            stream,
            requests,
            skew: Skew::default(),
            seq: 0,
            unknown: None,
            pace,
            schedule: Schedule::default(),
            tense: Vec::new(),
            quiet: Vec::new(),
            checked: BTreeMap::new(),
            run_check,
            reviewed_at: now,
            swept_at: now,
            checked_at: now,
            retry_at: now,
            retry_after: RETRY.0,
            resync: false,
            continuity: Continuity::default(),
            missing: BTreeSet::new(),
            answered_at: now,
            answered_wall_us,
            outages: Outages::default(),
        }
    }

    async fn run(mut self, ready: SyncSender<()>) {
        self.connect().await;
        let _ = ready.try_send(());
        loop {
            self.context.sign_of_life();
            let next = self.next_turn();
            let context = self.context.clone();
            tokio::select! {
                biased;
                request = self.requests.recv() => match request {
                    Some(Command::Flush(done)) => {
                        if !self.context.store_up() {
                            self.connect().await;
                        }
                        self.flush().await;
                        let _ = done.send(());
                    }
                    Some(Command::Resync) => self.resync = true,
                    Some(Command::WriteBack(name)) => drop(self.missing.insert(name)),
                    Some(Command::Shutdown(done)) => {
                        self.step_down();
                        self.flush().await;
                        self.end();
                        let _ = done.send(());
                        return;
                    }
                    None => return self.end(),
                },
                () = context.notified() => {}
                () = context.clock.sleep_until(next) => {}
            }
            self.turn().await;
            self.begin_checks();
        }
    }

    fn begin_checks(&mut self) {
        let now = self.context.clock.now();
        if now < self.checked_at.after(PACE) {
            return;
        }
        self.checked_at = now;
        self.checked.retain(|_, core| core.upgrade().is_some_and(|core| core.has_checks()));
        for core in self.checked.values().filter_map(Weak::upgrade) {
            if let Some(check) = core.begin_check() {
                (self.run_check)(core, check);
            }
        }
    }

    /// Leaves health checks to other instances from now on.
    fn step_down(&self) {
        for core in self.breakers.all() {
            core.step_down();
        }
    }

    async fn turn(&mut self) {
        let now = self.context.clock.now();
        self.emit(|outages| outages.take_due(now));
        let urgent = self.context.take_urgent();
        if now >= self.swept_at.after(self.sweep_interval()) {
            self.sweep(now);
        }
        if !self.context.store_up() {
            if now >= self.review_at() {
                self.review(now, Cadence::Usual);
                // All breakers are reviewed when the store is back.
                self.tense.clear();
                self.quiet.clear();
            }
            if urgent || now >= self.retry_at {
                self.connect().await;
            }
            return;
        }
        // A process that was stopped learns what has ended before it claims to know a state.
        if self.resync || self.was_away() {
            self.resync = false;
            self.connect().await;
            return;
        }
        if self.pace.has_other_event(self.stream.latest_number()) {
            self.pace.disturbed(now);
        }
        let reviews = urgent || now >= self.review_at();
        // Without a review there is nothing to report, and reports stay due.
        let due = if reviews { self.pace.due(now) } else { Cadence::Noticed };
        if reviews {
            self.review(now, due);
        }
        self.exchange_due(now).await;
        self.report(due).await;
        let missing = std::mem::take(&mut self.missing);
        if self.context.store_up()
            && !missing.is_empty()
            && let Err(error) = self.write_back(|name| missing.contains(name)).await
        {
            self.lost(&error);
        }
    }

    fn sweep(&mut self, now: Moment) {
        // At most once a second, although keyed breakers without room are swept more often.
        if now.0 / micros(SWEEP) != self.swept_at.0 / micros(SWEEP) {
            self.missing.extend(self.breakers.expired(now));
        }
        self.swept_at = now;
        self.breakers.sweep(now);
    }

    /// Exchanges the tense breakers at the pace. Transitions, leases and overrides are not paced.
    async fn exchange_due(&mut self, now: Moment) {
        let is_paced = now >= self.pace.exchange_at();
        let due: Vec<_> = self.tense.extract_if(.., |core| is_paced || core.is_urgent()).collect();
        if !due.is_empty() {
            self.exchange(due).await;
            if is_paced {
                self.pace.exchanged(self.context.clock.now());
            }
        }
    }

    /// Exchanges or reports all breakers, twice: what was decided before the first contact can be proposed
    /// only after it.
    async fn flush(&mut self) {
        for _ in 0..2 {
            if !self.context.store_up() {
                return;
            }
            self.tense.clear();
            self.quiet.clear();
            for core in self.breakers.all() {
                self.review_one(core, Cadence::Usual);
            }
            if self.tense.is_empty() && self.quiet.is_empty() {
                return;
            }
            let tense = std::mem::take(&mut self.tense);
            if !tense.is_empty() {
                self.exchange(tense).await;
            }
            self.report(Cadence::Usual).await;
        }
    }

    /// Ends all current and future waits for an answer.
    fn end(&mut self) {
        self.step_down();
        self.context.end();
        let error = Error::new(ErrorKind::ShutDown);
        for core in self.breakers.all() {
            core.store_lost(&error);
        }
        self.context.events.close();
    }
}
