//! The background exchange with the store: one task per registry on the process's coordinator thread,
//! and one beside it that follows the event stream.
//!
//! A turn of the coordinator: bring every breaker's books up to date, collect what they have to say
//! into one batch, exchange it, hand the answers back. Batches are strictly one after the other, because
//! their numbers are what makes a retry after an unknown outcome count only once.

mod health;
mod skew;
pub(crate) mod stream;
#[cfg(test)]
mod tests;
pub(crate) mod thread;

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::breaker::Core;
use crate::breaker::context::RegistryContext;
use crate::breaker::machine::PACE;
use crate::breakers::BreakerMap;
use crate::clock::Moment;
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::store::{Answer, Batch, FleetRow, Load, MAX_ENTRIES, Position, Report, Store};
use skew::Skew;
use stream::Stream;

/// An instance that has nothing to tell asks this often whether the store still holds what it held: one that has lost
/// its data is given back what this instance knows within a second.
const HEARTBEAT: Duration = Duration::from_millis(700);
/// A store that has not answered by then is away. Callers that want to make a probe wait as long.
const PATIENCE: Duration = Duration::from_millis(400);
/// The same where nobody waits, and where a connection may have to be made first.
const LONG_PATIENCE: Duration = Duration::from_secs(1);
/// How soon a lost store is tried again, at first and at last.
const RETRY: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(400));

/// What others ask of the coordinator.
pub(crate) enum Command {
    /// Tell the store all there is, then read the fleet's overview.
    Fleet(oneshot::Sender<Result<Vec<FleetRow>, Error>>),
    /// The stream has a gap, or cannot be read: learn the states anew.
    Resync,
    /// Tell the store all there is, give back what is held, and stop.
    Shutdown(oneshot::Sender<()>),
}

pub(crate) struct Coordinator {
    context: Arc<RegistryContext>,
    breakers: Arc<BreakerMap>,
    store: Arc<dyn Store>,
    stream: Arc<Stream>,
    requests: mpsc::UnboundedReceiver<Command>,
    skew: Skew,
    seq: u64,
    /// The breakers of the batch whose fate is unknown.
    unknown: Option<Vec<Arc<Core>>>,
    exchanged_at: Moment,
    reviewed_at: Moment,
    checked_at: Moment,
    retry_at: Moment,
    retry_after: Duration,
    resync: bool,
    ever_up: bool,
}

/// Starts the tasks. `ready` hears once the store has been asked for the first time, with or without success.
pub(crate) fn start(
    context: Arc<RegistryContext>,
    breakers: Arc<BreakerMap>,
    store: Arc<dyn Store>,
    ready: SyncSender<()>,
) -> std::io::Result<mpsc::UnboundedSender<Command>> {
    let runtime = thread::runtime()?;
    let (sender, requests) = mpsc::unbounded_channel();
    let stream = Arc::new(Stream::default());
    let follower =
        stream::follow(context.clone(), breakers.clone(), store.clone(), stream.clone(), sender.downgrade());
    let now = context.clock.now();
    let coordinator = Coordinator {
        context,
        breakers,
        store,
        stream,
        requests,
        skew: Skew::default(),
        seq: 0,
        unknown: None,
        exchanged_at: now,
        reviewed_at: now,
        checked_at: now,
        retry_at: now,
        retry_after: RETRY.0,
        resync: false,
        ever_up: false,
    };
    runtime.spawn(async move {
        let follower = tokio::spawn(follower);
        coordinator.run(ready).await;
        follower.abort();
    });
    Ok(sender)
}

impl Coordinator {
    async fn run(mut self, ready: SyncSender<()>) {
        self.connect().await;
        let _ = ready.try_send(());
        loop {
            let next = if self.context.store_up() {
                self.reviewed_at.after(PACE)
            } else {
                self.retry_at.min(self.reviewed_at.after(PACE))
            };
            let context = self.context.clone();
            tokio::select! {
                biased;
                request = self.requests.recv() => match request {
                    Some(Command::Fleet(answer)) => {
                        let rows = self.fleet().await;
                        let _ = answer.send(rows);
                    }
                    Some(Command::Resync) => self.resync = true,
                    Some(Command::Shutdown(done)) => {
                        self.step_down();
                        self.tell_all().await;
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
        for core in self.breakers.all() {
            if let Some(check) = core.begin_check() {
                tokio::spawn(health::run(core, check));
            }
        }
    }

    /// Others may make this instance's health checks from now on.
    fn step_down(&self) {
        for core in self.breakers.all() {
            core.step_down();
        }
    }

    async fn turn(&mut self) {
        let now = self.context.clock.now();
        let urgent = self.context.take_urgent();
        if !self.context.store_up() {
            self.review(now);
            if urgent || now >= self.retry_at {
                self.connect().await;
            }
            return;
        }
        if self.resync {
            self.resync = false;
            self.connect().await;
            return;
        }
        if now >= self.reviewed_at.after(PACE) {
            let talkative = self.review(now);
            if !talkative.is_empty() {
                self.exchange(talkative).await;
            } else if now >= self.exchanged_at.after(HEARTBEAT) {
                self.ask_where_the_store_stands().await;
            }
        } else if urgent || now >= self.exchanged_at.after(PACE) {
            let dirty = self.context.take_dirty();
            if !dirty.is_empty() {
                self.exchange(dirty).await;
            }
        }
    }

    /// Brings all books up to date; returns the breakers that have something to say.
    fn review(&mut self, now: Moment) -> Vec<Arc<Core>> {
        self.reviewed_at = now;
        // All are looked at.
        self.context.take_dirty();
        self.breakers.sweep(now);
        let mut all = self.breakers.all();
        all.retain(|core| core.review());
        all
    }

    /// One exchange for these breakers, in as many batches as it takes. Those with something urgent come first, even
    /// if they come by it while the others are being told: thousands of newcomers must not keep a trip waiting.
    async fn exchange(&mut self, cores: Vec<Arc<Core>>) {
        let mut rest = urgent_first(cores);
        loop {
            let batch = if rest.len() > MAX_ENTRIES {
                rest.drain(..MAX_ENTRIES).collect()
            } else {
                std::mem::take(&mut rest)
            };
            self.seq += 1;
            if let Err(error) = self.send(batch, false).await {
                return self.lost(&error);
            }
            if rest.is_empty() {
                return;
            }
            if self.context.take_urgent() {
                let mut late = self.context.take_dirty();
                late.append(&mut rest);
                rest = urgent_first(late);
            }
        }
    }

    async fn ask_where_the_store_stands(&mut self) {
        self.seq += 1;
        let sent_at = self.context.clock.now();
        self.exchanged_at = sent_at;
        let before = self.stream.position();
        let report = Report { instance: self.context.instance.clone(), seq: self.seq, ..Report::default() };
        match patiently("reporting counts", PATIENCE, self.store.report(report)).await {
            Ok(answer) => {
                self.measure(answer.now_us, sent_at);
                self.heard(&answer.warnings, &answer.position, &before);
            }
            Err(error) => self.lost(&error),
        }
    }

    /// One batch under the current number.
    async fn send(&mut self, mut cores: Vec<Arc<Core>>, retry: bool) -> Result<(), Error> {
        // A breaker that was dirty twice has one entry: its evidence is one flight.
        cores.sort_unstable_by_key(Arc::as_ptr);
        cores.dedup_by(|a, b| Arc::ptr_eq(a, b));
        let sent_at = self.context.clock.now();
        let before = self.stream.position();
        let batch = Batch {
            instance: self.context.instance.clone(),
            seq: self.seq,
            as_of_us: self.skew.estimate(sent_at),
            entries: cores.iter().map(|core| core.encode(retry)).collect(),
        };
        self.exchanged_at = sent_at;
        match patiently("exchanging counts", PATIENCE, self.store.exchange(batch)).await {
            Ok(answer) => {
                self.unknown = None;
                self.answered(&cores, &answer, sent_at, &before);
                Ok(())
            }
            Err(error) => {
                self.unknown = Some(cores);
                Err(error)
            }
        }
    }

    fn answered(&mut self, cores: &[Arc<Core>], answer: &Answer, sent_at: Moment, before: &Position) {
        self.measure(answer.now_us, sent_at);
        for (core, view) in cores.iter().zip(&answer.views) {
            match view {
                Ok(view) => core.receive(view, answer.now_us),
                Err(problem) => core.receive_error(problem),
            }
        }
        self.heard(&answer.warnings, &answer.position, before);
    }

    /// What every answer carries. Another incarnation, or a stream that has gone back: the store has lost data.
    fn heard(&mut self, warnings: &[String], position: &Position, before: &Position) {
        for problem in warnings {
            self.stream.trouble(&self.context, problem);
        }
        if self.stream.is_another(position, before) {
            self.resync = true;
            self.context.wake();
        }
    }

    fn measure(&mut self, store_now: u64, sent_at: Moment) {
        let skew = self.skew.measure(store_now, sent_at, self.context.clock.now());
        self.context.set_skew(skew);
    }

    /// Learns where the fleet is, tells the batch whose fate is unknown once more, then everything else.
    async fn connect(&mut self) {
        let sent_at = self.context.clock.now();
        let result = match patiently("reading the fleet's states", LONG_PATIENCE, self.store.load()).await {
            Ok(load) => self.loaded(&load, sent_at).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => {
                self.retry_after = RETRY.0;
                if !self.context.store_up() {
                    self.context.set_store_up(true);
                    if self.ever_up || self.stream.was_lost() {
                        self.context.events.emit(Event::StoreRestored);
                    }
                    self.ever_up = true;
                    self.stream.resume();
                }
            }
            Err(error) => self.lost(&error),
        }
    }

    async fn loaded(&mut self, load: &Load, sent_at: Moment) -> Result<(), Error> {
        self.measure(load.now_us, sent_at);
        self.stream.place(&load.position);
        for problem in &load.warnings {
            self.stream.trouble(&self.context, problem);
        }
        for (name, record) in &load.held {
            match record {
                Ok(record) => self.breakers.adopt(name, record, self.context.clock.now()),
                Err(problem) => self.context.events.error(Error::new(ErrorKind::Data {
                    what: format!("breaker \"{name}\""),
                    problem: problem.clone(),
                })),
            }
        }
        if let Some(unknown) = self.unknown.take() {
            self.send(unknown, true).await?;
        }
        let mut all = self.breakers.all();
        all.retain(|core| core.review() || core.has_history());
        while !all.is_empty() {
            let batch = all.drain(..all.len().min(MAX_ENTRIES)).collect();
            self.seq += 1;
            self.send(batch, false).await?;
        }
        Ok(())
    }

    /// The store has not answered: from now on this instance is on its own.
    fn lost(&mut self, error: &Error) {
        self.retry_at = self.context.clock.now().after(self.retry_after);
        self.retry_after = (self.retry_after * 2).min(RETRY.1);
        let was_up = self.context.store_up();
        self.context.store_failed(error);
        self.stream.pause();
        for core in self.breakers.all() {
            core.store_lost(error);
        }
        if was_up || !self.stream.was_lost() {
            self.stream.set_lost();
            self.context.events.emit(Event::StoreLost(error.clone()));
        }
    }

    async fn fleet(&mut self) -> Result<Vec<FleetRow>, Error> {
        if !self.context.store_up() {
            self.connect().await;
        }
        self.tell_all().await;
        let rows = patiently("reading the fleet's overview", LONG_PATIENCE, self.store.fleet()).await;
        if let Err(error) = &rows {
            self.lost(error);
        }
        rows
    }

    /// Twice, because what was decided before the first contact can be proposed only after it.
    async fn tell_all(&mut self) {
        for _ in 0..2 {
            let now = self.context.clock.now();
            let talkative = if self.context.store_up() { self.review(now) } else { Vec::new() };
            if talkative.is_empty() {
                return;
            }
            self.exchange(talkative).await;
        }
    }

    /// Whoever waits for an answer, or would from now on, hears that there will be none.
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

fn urgent_first(mut cores: Vec<Arc<Core>>) -> Vec<Arc<Core>> {
    cores.sort_by_cached_key(|core| !core.take_urgent());
    cores
}

/// The store's own limits end a hanging connection; this one ends a hanging answer.
async fn patiently<T>(
    doing: &'static str,
    limit: Duration,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(limit, answer).await {
        Ok(result) => result,
        Err(_) => Err(Error::store(doing, format!("no answer within {limit:?}"))),
    }
}
