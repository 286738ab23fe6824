//! Exchanges and reports: what is sent, and what is done with the answers.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use super::pace::CALM;
use super::{Coordinator, MAX_REPORTED};
use crate::breaker::Core;
use crate::breaker::machine::Cadence;
use crate::clock::{Moment, micros};
use crate::error::Error;
use crate::snapshot::State;
use crate::store::{Batch, Counts, Entry, MAX_ENTRIES, Position, Report, Reported, WindowRequest};

/// One request, by the breakers in it.
pub(super) enum Sent {
    Batch(Vec<Arc<Core>>),
    Report(Vec<Arc<Core>>),
}

impl Coordinator {
    /// One exchange for these breakers, in as many batches as it takes. Urgent ones come first.
    pub(super) async fn exchange(&mut self, cores: Vec<Arc<Core>>) {
        let mut rest = urgent_first(cores);
        loop {
            let batch = rest.drain(..rest.len().min(MAX_ENTRIES)).collect();
            if !self.exchange_batch(batch).await || rest.is_empty() || !self.exchange_urgent().await {
                return;
            }
        }
    }

    /// Between two requests of many: exchanges breakers that have become urgent meanwhile, as many as one
    /// batch has room for. A trip does not wait behind thousands of new breakers, and thousands of trips and
    /// probes do not keep all other requests from being made. Returns whether the store has answered.
    async fn exchange_urgent(&mut self) -> bool {
        if !self.context.take_urgent() {
            return true;
        }
        self.review(self.context.clock.now(), Cadence::Noticed);
        let urgent = self.tense.extract_if(.., |core| core.is_urgent());
        let late: Vec<_> = urgent.take(MAX_ENTRIES).collect();
        if self.tense.iter().any(|core| core.is_urgent()) {
            self.context.wake();
        }
        late.is_empty() || self.exchange_batch(urgent_first(late)).await
    }

    /// Returns whether the store has answered.
    async fn exchange_batch(&mut self, batch: Vec<Arc<Core>>) -> bool {
        self.seq += 1;
        let result = self.send(Sent::Batch(batch), false).await;
        if let Err(error) = &result {
            self.lost(error);
        }
        result.is_ok()
    }

    /// Reports what quiet breakers have counted. Without counts, an instance asks from time to time whether
    /// the store still has its data.
    pub(super) async fn report(&mut self, due: Cadence) {
        let is_heartbeat = self.context.clock.now() >= self.pace.heartbeat_at();
        if !self.context.store_up() || self.resync || self.quiet.is_empty() && !is_heartbeat {
            return;
        }
        // After an empty report, the first counts are reported at once.
        let mut rest = std::mem::take(&mut self.quiet);
        let has_counts = !rest.is_empty();
        loop {
            let some = rest.drain(..rest.len().min(MAX_REPORTED)).collect();
            self.seq += 1;
            if let Err(error) = self.send(Sent::Report(some), false).await {
                return self.lost(&error);
            }
            if rest.is_empty() {
                break;
            }
            if !self.exchange_urgent().await {
                return;
            }
        }
        let now = self.context.clock.now();
        if due == Cadence::Usual {
            self.pace.settle(self.stream.number(), now, || self.breakers.are_closed());
            if has_counts {
                self.pace.reported(now);
            }
        }
        self.pace.report_answered(now);
    }

    /// One request under the current number.
    pub(super) async fn send(&mut self, sent: Sent, retry: bool) -> Result<(), Error> {
        self.context.sign_of_life();
        let result = match &sent {
            Sent::Batch(cores) => self.send_batch(&once_each(cores), retry).await,
            Sent::Report(cores) => self.send_report(&once_each(cores), retry).await,
        };
        self.unknown = result.is_err().then_some(sent);
        result
    }

    async fn send_batch(&mut self, cores: &[&Arc<Core>], retry: bool) -> Result<(), Error> {
        // A state that begins at one moment by the breaker would otherwise end later by the store.
        let _still = if self.context.has_shared_store() { None } else { self.context.clock.hold() };
        let sent_at = self.context.clock.now();
        let before = self.stream.position();
        let batch = Batch {
            instance: self.context.instance.clone(),
            node: self.context.node.clone(),
            seq: self.seq,
            as_of_us: self.skew.estimate(sent_at),
            entries: cores.iter().map(|core| core.encode(retry)).collect(),
        };
        if !batch.entries.iter().all(only_confirms) {
            self.pace.disturbed(sent_at);
        }
        let limit = self.context.timeouts.exchange(batch.entries.len());
        let answer = self.wait_within(limit, "exchanging counts", self.store.exchange(batch)).await?;
        self.measure(answer.now_us, sent_at);
        self.end_doubts_after_loss(&answer.position);
        for (core, view) in cores.iter().zip(&answer.views) {
            match view {
                Ok(view) => core.receive(view, answer.now_us),
                Err(problem) => {
                    core.receive_error(problem);
                    self.stream.report_damage(&self.context, problem);
                }
            }
        }
        self.note_answer(&answer.warnings, &answer.position, &before);
        for core in cores {
            self.review_one((*core).clone(), Cadence::Noticed);
        }
        Ok(())
    }

    async fn send_report(&mut self, cores: &[&Arc<Core>], retry: bool) -> Result<(), Error> {
        let sent_at = self.context.clock.now();
        let before = self.stream.position();
        let (mut reported, mut entries) = (Vec::new(), Vec::new());
        for core in cores {
            if let Some(entry) = core.encode_report(retry, sent_at) {
                reported.push(*core);
                entries.push(entry);
            }
        }
        if !entries.iter().all(can_be_late) {
            self.pace.disturbed(sent_at);
        }
        let report = Report {
            instance: self.context.instance.clone(),
            seq: self.seq,
            as_of_us: self.skew.estimate(sent_at),
            entries,
        };
        let limit = self.context.timeouts.report(report.entries.len());
        let answer = self.wait_within(limit, "reporting counts", self.store.report(report)).await?;
        self.measure(answer.now_us, sent_at);
        self.end_doubts_after_loss(&answer.position);
        for core in &reported {
            core.receive_report();
        }
        for core in answer.exchange.iter().filter_map(|at| reported.get(*at)) {
            core.exchange_next();
        }
        for name in answer.suspects {
            match self.breakers.get(&name) {
                Some(core) => core.exchange_next(),
                None => drop(self.missing.insert(name)),
            }
        }
        self.note_answer(&answer.warnings, &answer.position, &before);
        Ok(())
    }

    /// A state that is doubted, because it may have ended, may be what the store has lost.
    fn end_doubts_after_loss(&self, answered: &Position) {
        if self.stream.has_lost_since(answered) {
            self.breakers.end_doubts();
        }
    }

    /// Handles what every answer contains. Another incarnation, or a stream that has gone back, shows that
    /// the store has lost data.
    fn note_answer(&mut self, warnings: &[String], position: &Position, before: &Position) {
        for problem in warnings {
            self.stream.report_damage(&self.context, problem);
        }
        let now = self.context.clock.now();
        let goes_back = self.stream.note_answered(position);
        if self.stream.note_missing(position, now) || self.stream.is_another(position, before) || goes_back {
            self.resync = true;
            self.context.wake();
        }
    }

    /// Waits for the answer to a request without entries.
    pub(super) async fn wait_for<T>(
        &self,
        doing: &'static str,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.wait_within(self.context.timeouts.loss(), doing, answer).await
    }

    /// Waits for an answer. The store's own `limit` ends a hanging connection; three times this one ends a
    /// hanging answer, which may take several requests. No caller waits longer than the response timeout.
    pub(super) async fn wait_within<T>(
        &self,
        limit: Duration,
        doing: &'static str,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let timeouts = &self.context.timeouts;
        let limit = limit * 3;
        let (mut answer, mut left) = (pin!(answer), limit);
        loop {
            let span = left.min(timeouts.response());
            if let Ok(result) = tokio::time::timeout(span, answer.as_mut()).await {
                return result;
            }
            left -= span;
            if left.is_zero() {
                return Err(Error::store(doing, format!("no answer within {limit:?}")));
            }
            self.context.sign_of_life();
            for core in self.breakers.all() {
                core.stop_waiting();
            }
        }
    }

    pub(super) fn measure(&mut self, store_now: u64, sent_at: Moment) {
        self.measure_at(self.context.clock.now(), store_now, sent_at);
    }

    /// The answer came at `now`.
    pub(super) fn measure_at(&mut self, now: Moment, store_now: u64, sent_at: Moment) {
        self.answered_at = now;
        self.answered_wall_us = self.context.clock.wall_us();
        self.pace.answered(sent_at, now);
        self.context.timeouts.answered(now.since(sent_at));
        let skew = self.skew.measure(store_now, sent_at, now);
        self.context.set_skew(skew);
    }
}

/// Whether the next report of this breaker can be late: it has only succeeded, its window is long, and the
/// times of its successes end no streak.
fn can_be_late(entry: &Reported) -> bool {
    let is_long = |window: WindowRequest| window.length_us >= micros(10 * CALM);
    has_only_succeeded(&entry.counts) && !entry.by_streak && entry.window.is_none_or(is_long)
}

/// Whether the entry of a closed breaker has nothing but successes.
fn only_confirms(entry: &Entry) -> bool {
    entry.known.as_ref().is_some_and(|known| known.state == State::Closed)
        && has_only_succeeded(&entry.delta.counts)
        && entry.proposal.is_none()
        && entry.role.is_none()
        && !entry.notice
}

fn has_only_succeeded(counts: &Counts) -> bool {
    counts.failures == 0 && counts.slow == 0
}

/// A breaker that is listed twice has one entry, because it has one entry in flight at a time.
fn once_each(cores: &[Arc<Core>]) -> Vec<&Arc<Core>> {
    let mut cores: Vec<_> = cores.iter().collect();
    // By name, so that a simulation does not depend on addresses.
    cores.sort_unstable_by(|a, b| (a.name(), Arc::as_ptr(a)).cmp(&(b.name(), Arc::as_ptr(b))));
    cores.dedup_by(|a, b| Arc::ptr_eq(a, b));
    cores
}

/// Each once: over a slow store, a breaker is reviewed several times before the next exchange.
fn urgent_first(mut cores: Vec<Arc<Core>>) -> Vec<Arc<Core>> {
    let mut listed = HashSet::with_capacity(cores.len());
    cores.retain(|core| listed.insert(Arc::as_ptr(core)));
    cores.sort_by_cached_key(|core| !core.take_urgent());
    cores
}
