//! The background exchange with the store: one task per registry on the process's coordinator thread,
//! and one beside it that follows the event stream.
//!
//! A turn of the coordinator looks at the breakers on which something has happened, or is due: tense ones go
//! into an exchange, quiet ones into the next report. Breakers on which nothing happens cost nothing. Batches
//! and reports are strictly one after the other, because their numbers are what makes a retry after an
//! unknown outcome count only once.

mod health;
mod pace;
mod schedule;
mod skew;
pub(crate) mod stream;
#[cfg(test)]
mod tests;
pub(crate) mod thread;

use std::collections::BTreeSet;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::breaker::Core;
use crate::breaker::context::RegistryContext;
use crate::breaker::machine::{PACE, Soon, Want};
use crate::breakers::BreakerMap;
use crate::clock::Moment;
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::store::{Batch, Entry, EventsAt, IDLE, Load, MAX_ENTRIES, Position, Record, Report, Store};
use pace::{Pace, vary};
use schedule::Schedule;
use skew::Skew;
use stream::{Continuity, Stream};

/// How often keyed breakers are looked for that nobody needs, if there were none the last time.
const SWEEP: Duration = Duration::from_secs(1);
/// A report is one piece of work for the store, at 3 to 5 µs an entry.
const MAX_REPORTED: usize = 250;
/// How soon a lost store is tried again, at first and at last.
const RETRY: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(400));

/// What others ask of the coordinator.
pub(crate) enum Command {
    /// Tell the store all there is.
    Tell(oneshot::Sender<()>),
    /// The stream has a gap, or cannot be read: learn the states anew.
    Resync,
    /// The store has lost the state of a breaker that is not registered here.
    WriteBack(Arc<str>),
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
    /// What was sent and has not been answered: its fate is unknown.
    unknown: Option<Sent>,
    pace: Pace,
    schedule: Schedule,
    /// Tense breakers, until the next exchange is due.
    tense: Vec<Arc<Core>>,
    /// Quiet breakers for this turn's report.
    quiet: Vec<Arc<Core>>,
    /// Breakers with health checks.
    checked: Vec<Weak<Core>>,
    looked_at: Moment,
    swept_at: Moment,
    checked_at: Moment,
    retry_at: Moment,
    retry_after: Duration,
    resync: bool,
    /// What the next resync has to make good.
    continuity: Continuity,
    /// Breakers that are not registered here, whose states the store has lost.
    missing: BTreeSet<Arc<str>>,
    /// When the store answered last.
    answered_at: Moment,
    ever_up: bool,
}

/// One request, by the breakers in it.
enum Sent {
    Batch(Vec<Arc<Core>>),
    Report(Vec<Arc<Core>>),
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
    let pace = Pace::new(context.clock.now());
    let coordinator = Coordinator::new(context, breakers, store, stream, requests, pace);
    runtime.spawn(async move {
        let follower = tokio::spawn(follower);
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
    ) -> Self {
        let now = context.clock.now();
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
            checked: Vec::new(),
            looked_at: now,
            swept_at: now,
            checked_at: now,
            retry_at: now,
            retry_after: RETRY.0,
            resync: false,
            continuity: Continuity::default(),
            missing: BTreeSet::new(),
            answered_at: now,
            ever_up: false,
        }
    }

    /// When the next turn is due if nothing happens before.
    fn next_turn(&self) -> Moment {
        let up = self.context.store_up();
        let mut next = if up { self.pace.ask_at() } else { self.retry_at };
        let mut by = |at: Moment| next = next.min(at);
        by(self.swept_at.after(self.sweep_interval()));
        if !self.checked.is_empty() {
            by(self.checked_at.after(PACE));
        }
        if !self.tense.is_empty() {
            by(self.pace.exchange_at());
        }
        if self.context.has_counted() {
            by(self.pace.report_at().max(self.look_at()));
        }
        let look_at = self.look_at();
        if self.context.has_dirty() {
            by(look_at);
        }
        if let Some(at) = self.schedule.next() {
            by(at.max(look_at));
        }
        next
    }

    /// Without keyed breakers there is little to evict.
    fn sweep_interval(&self) -> Duration {
        if self.breakers.has_keyed() { PACE } else { SWEEP }
    }

    /// Breakers are looked at once in a pace, if none of them is urgent.
    fn look_at(&self) -> Moment {
        self.looked_at.after(PACE)
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
                    Some(Command::Tell(told)) => {
                        if !self.context.store_up() {
                            self.connect().await;
                        }
                        self.tell_all().await;
                        let _ = told.send(());
                    }
                    Some(Command::Resync) => self.resync = true,
                    Some(Command::WriteBack(name)) => drop(self.missing.insert(name)),
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
        self.checked.retain(|core| core.strong_count() > 0);
        for core in self.checked.iter().filter_map(Weak::upgrade) {
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
        if now >= self.swept_at.after(self.sweep_interval()) {
            self.swept_at = now;
            self.breakers.sweep(now);
        }
        if !self.context.store_up() {
            if now >= self.look_at() {
                self.look(now, true);
                // Everything is looked at again when the store is back.
                self.tense.clear();
                self.quiet.clear();
            }
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
        let looks = urgent || now >= self.look_at();
        // Only with what a look finds: a question between two looks must not pass for the report.
        let report_is_due = looks && now >= self.pace.report_at();
        if looks {
            self.look(now, report_is_due);
        }
        if now >= self.pace.exchange_at() {
            let due = std::mem::take(&mut self.tense);
            if !due.is_empty() {
                self.exchange(due).await;
                self.pace.exchanged(self.context.clock.now());
            }
        } else {
            // Transitions, leases and overrides are not paced.
            let urgent: Vec<_> = self.tense.extract_if(.., |core| core.is_urgent()).collect();
            if !urgent.is_empty() {
                self.exchange(urgent).await;
            }
        }
        self.report(report_is_due).await;
        let missing = std::mem::take(&mut self.missing);
        if self.context.store_up()
            && !missing.is_empty()
            && let Err(error) = self.write_back(|name| missing.contains(name)).await
        {
            self.lost(&error);
        }
    }

    /// Looks at the breakers on which something has happened, or is due; with `all`, at those that have only
    /// counted successes, too.
    fn look(&mut self, now: Moment, all: bool) {
        self.looked_at = now;
        let failures = all || now >= self.pace.failures_at();
        let mut cores = self.context.take_dirty();
        cores.extend(self.schedule.take(now));
        if all {
            cores.extend(self.context.take_counted());
        }
        for core in cores {
            self.look_at_one(core, all, failures);
        }
    }

    /// `all`: quiet breakers are reported, and not later. `failures`: those with failures are.
    fn look_at_one(&mut self, core: Arc<Core>, all: bool, failures: bool) {
        let agenda = core.review();
        if let Some(at) = agenda.again {
            self.schedule.add(&core, at);
        }
        let is_listed = |other: &Weak<Core>| std::ptr::eq(other.as_ptr(), Arc::as_ptr(&core));
        if core.is_checked() && !self.checked.iter().any(is_listed) {
            self.checked.push(Arc::downgrade(&core));
        }
        match agenda.want {
            Want::Nothing => {}
            Want::Exchange => self.tense.push(core),
            Want::Report { soon: Soon::AtThisPace } => self.quiet.push(core),
            Want::Report { soon: Soon::Failures } if failures => {
                self.pace.failures_reported(self.looked_at);
                self.quiet.push(core);
            }
            Want::Report { .. } if all => self.quiet.push(core),
            Want::Report { soon } => {
                if soon == Soon::Failures {
                    self.schedule.add(&core, self.pace.failures_at());
                }
                core.mark_counted();
            }
        }
    }

    /// One exchange for these breakers, in as many batches as it takes. Those with something urgent come
    /// first, even if they come by it while the others are being told: thousands of newcomers must not keep a
    /// trip waiting.
    async fn exchange(&mut self, cores: Vec<Arc<Core>>) {
        let mut rest = urgent_first(cores);
        loop {
            let batch = rest.drain(..rest.len().min(MAX_ENTRIES)).collect();
            self.seq += 1;
            if let Err(error) = self.send(Sent::Batch(batch), false).await {
                return self.lost(&error);
            }
            if rest.is_empty() {
                return;
            }
            if self.context.take_urgent() {
                self.look(self.context.clock.now(), false);
                let mut late = std::mem::take(&mut self.tense);
                late.append(&mut rest);
                rest = urgent_first(late);
            }
        }
    }

    /// Reports what quiet breakers have counted. An instance that has nothing to tell asks now and then
    /// whether the store still holds what it held. `all`: all quiet breakers are reported, not only those
    /// with failures.
    async fn report(&mut self, all: bool) {
        let asks = self.context.clock.now() >= self.pace.ask_at();
        if !self.context.store_up() || self.resync || self.quiet.is_empty() && !asks {
            return;
        }
        loop {
            let some = self.quiet.drain(..self.quiet.len().min(MAX_REPORTED)).collect();
            self.seq += 1;
            if let Err(error) = self.send(Sent::Report(some), false).await {
                return self.lost(&error);
            }
            if self.quiet.is_empty() {
                break;
            }
        }
        self.pace.asked(self.context.clock.now());
        if all {
            self.pace.reported(self.context.clock.now());
        }
    }

    /// One request under the current number.
    async fn send(&mut self, sent: Sent, retry: bool) -> Result<(), Error> {
        self.context.sign_of_life();
        let result = match &sent {
            Sent::Batch(cores) => self.send_batch(&once_each(cores), retry).await,
            Sent::Report(cores) => self.send_report(&once_each(cores), retry).await,
        };
        self.unknown = result.is_err().then_some(sent);
        result
    }

    async fn send_batch(&mut self, cores: &[&Arc<Core>], retry: bool) -> Result<(), Error> {
        let sent_at = self.context.clock.now();
        let before = self.stream.position();
        let batch = Batch {
            instance: self.context.instance.clone(),
            node: self.context.node.clone(),
            seq: self.seq,
            as_of_us: self.skew.estimate(sent_at),
            entries: cores.iter().map(|core| core.encode(retry)).collect(),
        };
        let answer =
            patiently("exchanging counts", self.context.timeouts.response(), self.store.exchange(batch))
                .await?;
        self.measure(answer.now_us, sent_at);
        for (core, view) in cores.iter().zip(&answer.views) {
            match view {
                Ok(view) => core.receive(view, answer.now_us),
                Err(problem) => {
                    core.receive_error(problem);
                    self.stream.trouble(&self.context, problem);
                }
            }
        }
        self.heard(&answer.warnings, &answer.position, &before);
        for core in cores {
            self.look_at_one((*core).clone(), false, false);
        }
        Ok(())
    }

    async fn send_report(&mut self, cores: &[&Arc<Core>], retry: bool) -> Result<(), Error> {
        let sent_at = self.context.clock.now();
        let before = self.stream.position();
        let (mut told, mut entries) = (Vec::new(), Vec::new());
        for core in cores {
            if let Some(entry) = core.encode_report(retry) {
                told.push(*core);
                entries.push(entry);
            }
        }
        let report = Report {
            instance: self.context.instance.clone(),
            seq: self.seq,
            as_of_us: self.skew.estimate(sent_at),
            entries,
        };
        let answer =
            patiently("reporting counts", self.context.timeouts.response(), self.store.report(report))
                .await?;
        self.measure(answer.now_us, sent_at);
        for core in &told {
            core.receive_report();
        }
        for core in answer.exchange.iter().filter_map(|at| told.get(*at)) {
            core.exchange_next();
        }
        for name in answer.suspects {
            match self.breakers.get(&name) {
                Some(core) => core.exchange_next(),
                None => drop(self.missing.insert(name)),
            }
        }
        self.heard(&answer.warnings, &answer.position, &before);
        Ok(())
    }

    /// What every answer carries. Another incarnation, or a stream that has gone back: the store has lost
    /// data.
    fn heard(&mut self, warnings: &[String], position: &Position, before: &Position) {
        for problem in warnings {
            self.stream.trouble(&self.context, problem);
        }
        let now = self.context.clock.now();
        if self.stream.misses_events(position, now) || self.stream.is_another(position, before) {
            self.resync = true;
            self.context.wake();
        }
    }

    fn measure(&mut self, store_now: u64, sent_at: Moment) {
        let now = self.context.clock.now();
        self.answered_at = now;
        self.pace.answered(sent_at, now);
        let skew = self.skew.measure(store_now, sent_at, now);
        self.context.set_skew(skew);
    }

    /// Learns where the fleet is, tells the batch whose fate is unknown once more, then everything else.
    async fn connect(&mut self) {
        self.context.sign_of_life();
        if let Some(position) = self.stream.overdue_after() {
            let next = self.store.history(EventsAt::After(position.id), 1);
            if let Ok(events) =
                patiently("reading the event stream", self.context.timeouts.background(), next).await
            {
                self.stream.settle_overdue(events.is_empty());
            }
        }
        let sent_at = self.context.clock.now();
        let before = self.stream.position();
        let result = match patiently(
            "reading the fleet's states",
            self.context.timeouts.background(),
            self.store.load(),
        )
        .await
        {
            Ok(load) => self.loaded(&load, &before, sent_at).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => {
                self.continuity = Continuity::Unbroken;
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

    /// What has happened to the stream between these positions. Without a gap, the events themselves will
    /// tell what has ended.
    async fn continuity(&self, before: &Position, now: &Position) -> Result<Continuity, Error> {
        let is_same = before.incarnation == now.incarnation && before.number == now.number;
        let known = if is_same && before.id == now.id {
            Continuity::Unbroken
        } else if is_same {
            Continuity::Lost
        } else if before.followed_by(now) != Continuity::Gap {
            before.followed_by(now)
        } else {
            let next = self.store.history(EventsAt::After(before.id.clone()), 1);
            let next =
                patiently("reading the event stream", self.context.timeouts.background(), next).await?;
            next.first().map_or(Continuity::Gap, |event| before.followed_by(&event.position))
        };
        // A closed breaker's keys may have expired since.
        let is_long_ago = self.context.clock.now().since(self.answered_at) > IDLE / 2;
        Ok(if is_long_ago { known.max(Continuity::Gap) } else { known })
    }

    async fn loaded(&mut self, load: &Load, before: &Position, sent_at: Moment) -> Result<(), Error> {
        let found = self.continuity(before, &load.position).await?;
        self.continuity = self.continuity.max(found).max(self.stream.take_continuity());
        self.measure(load.now_us, sent_at);
        self.stream.place(&load.position, before);
        for problem in &load.warnings {
            self.stream.trouble(&self.context, problem);
        }
        if self.continuity == Continuity::Gap {
            self.breakers.doubt(&load.held, sent_at);
        }
        for (name, record) in &load.held {
            match record {
                Ok(record) if self.continuity == Continuity::Lost => {
                    self.breakers.learn(name, record, self.context.clock.now());
                }
                Ok(record) => self.breakers.adopt(name, record, self.context.clock.now()),
                Err(problem) => {
                    self.missing.insert(name.clone());
                    self.context.events.error(Error::new(ErrorKind::Data {
                        what: format!("breaker \"{name}\""),
                        problem: problem.clone(),
                    }));
                }
            }
        }
        if let Some(unknown) = self.unknown.take() {
            self.send(unknown, true).await?;
        }
        if self.continuity == Continuity::Lost {
            self.write_back(|_| true).await?;
        }
        let mut all = self.breakers.all();
        all.retain(|core| match core.review().want {
            Want::Exchange => true,
            _ if core.has_history() => true,
            Want::Report { .. } => {
                core.mark_counted();
                false
            }
            Want::Nothing => false,
        });
        while !all.is_empty() {
            let batch = all.drain(..all.len().min(MAX_ENTRIES)).collect();
            self.seq += 1;
            self.send(Sent::Batch(batch), false).await?;
        }
        Ok(())
    }

    /// The store has lost data. Breakers that are registered here are written back by their exchanges; this
    /// is about states that the fleet has others in.
    async fn write_back(&mut self, wants: impl Fn(&str) -> bool) -> Result<(), Error> {
        for held in self.breakers.held(self.context.clock.now(), wants).chunks(MAX_ENTRIES) {
            let sent_at = self.context.clock.now();
            self.seq += 1;
            let entry = |(name, record): &(Arc<str>, Record)| Entry {
                name: name.clone(),
                known: Some(record.clone()),
                ..Entry::default()
            };
            let batch = Batch {
                instance: self.context.instance.clone(),
                seq: self.seq,
                as_of_us: self.skew.estimate(sent_at),
                entries: held.iter().map(entry).collect(),
                ..Batch::default()
            };
            let answer = patiently(
                "writing states back",
                self.context.timeouts.response(),
                self.store.exchange(batch),
            )
            .await?;
            self.measure(answer.now_us, sent_at);
            for ((name, _), view) in held.iter().zip(answer.views) {
                if let Ok(view) = view {
                    self.breakers.adopt(name, &view.record, self.context.clock.now());
                }
            }
        }
        Ok(())
    }

    /// The store has not answered: from now on this instance is on its own.
    fn lost(&mut self, error: &Error) {
        self.retry_at = self.context.clock.now().after(vary(self.retry_after));
        // All breakers are looked at when the store is back.
        self.tense.clear();
        self.quiet.clear();
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

    /// Twice, because what was decided before the first contact can be proposed only after it.
    async fn tell_all(&mut self) {
        for _ in 0..2 {
            if !self.context.store_up() {
                return;
            }
            self.tense.clear();
            self.quiet.clear();
            for core in self.breakers.all() {
                self.look_at_one(core, true, true);
            }
            if self.tense.is_empty() && self.quiet.is_empty() {
                return;
            }
            let tense = std::mem::take(&mut self.tense);
            if !tense.is_empty() {
                self.exchange(tense).await;
            }
            self.report(true).await;
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

/// A breaker that is listed twice has one entry: what it tells is one thing under way.
fn once_each(cores: &[Arc<Core>]) -> Vec<&Arc<Core>> {
    let mut cores: Vec<_> = cores.iter().collect();
    // By name, so that what a seed decides does not depend on addresses.
    cores.sort_unstable_by(|a, b| (a.name(), Arc::as_ptr(a)).cmp(&(b.name(), Arc::as_ptr(b))));
    cores.dedup_by(|a, b| Arc::ptr_eq(a, b));
    cores
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
