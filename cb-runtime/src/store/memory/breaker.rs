//! A breaker in the memory store: the reference for `exchange.lua`, step by step.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::When;
use super::count_window::StoredCountWindow;
use super::failing::Failing;
use super::notices::Notices;
use super::role::StoredLeader;
use super::settings::StoredSettings;
use crate::clock::micros;
use crate::snapshot::State;
use crate::store::{
    CountWindowRequest, CountWindowView, Counts, Detail, Entry, FleetRow, IDLE, LeaseId, LeaseRequest,
    MAX_COUNT, MAX_SETTINGS, MAX_SPAN_US, MAX_STREAK, NOTICE, NOTICE_PAUSE, Proposal, Record, Reported,
    Streak, WindowRequest, WindowView, cut,
};
use crate::text;

/// All instants are the store's, in microseconds.
#[derive(Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct StoredBreaker {
    epoch: u64,
    state: Option<State>,
    reason: String,
    originator: String,
    actor: String,
    until: Option<u64>,
    since: Option<u64>,
    reset_timeout_us: u64,
    attempt: u32,
    counts: Counts,
    success_at: Option<u64>,
    /// (instant, count), oldest first.
    failures: Vec<(u64, u64)>,
    /// The time of each failing node's latest failure.
    failing: Failing,
    /// By (length, width).
    windows: BTreeMap<(u64, u64), StoredWindow>,
    /// By their length in calls.
    lasts: BTreeMap<u32, StoredCountWindow>,
    /// Their expiry times.
    leases: BTreeMap<(Arc<str>, LeaseId), u64>,
    role: StoredLeader,
    opened_at: Option<u64>,
    last_failure_at: Option<u64>,
    settings: StoredSettings,
    /// When all instances were last asked to report it.
    noticed_at: Option<u64>,
    /// There was a streak of failures when the last exchange ended.
    streak_seen: bool,
    kept: bool,
    touched_at: u64,
    /// When the state began, or a lease, a leader or an outcome used it last.
    used_at: u64,
}

#[derive(Default)]
#[cfg_attr(test, derive(Clone))]
struct StoredWindow {
    buckets: BTreeMap<u64, Counts>,
    merged_at: u64,
}

impl StoredBreaker {
    pub(super) fn state(&self) -> State {
        self.state.unwrap_or(State::Closed)
    }

    pub(super) fn row(&self, name: Arc<str>, now: u64) -> FleetRow {
        FleetRow { name, view: Ok((self.record(now), self.counts(), self.streak())) }
    }

    pub(super) fn detail(&self, now: u64) -> Detail {
        let leases = self.leases.values().filter(|until| **until > now).count();
        Detail {
            opened_at_us: self.opened_at,
            last_failure_at_us: self.last_failure_at,
            probes: u32::try_from(leases).unwrap_or(u32::MAX),
            leader: self.role.holder(now).map(ToString::to_string),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) fn streak(&self) -> u64 {
        self.failures.iter().fold(0, |sum: u64, &(_, count)| sum.saturating_add(count)).min(MAX_COUNT)
    }

    /// It has been written to, so it must not be dropped.
    pub(super) fn is_kept(&self) -> bool {
        self.kept
    }

    pub(super) fn touch(&mut self, now: u64) {
        self.touched_at = now;
    }

    /// A closed state that no batch has named for [`IDLE`].
    pub(super) fn is_idle(&self, now: u64) -> bool {
        self.state() == State::Closed && now.saturating_sub(self.touched_at) >= micros(IDLE)
    }

    /// A state, other than closed, that was due or used last [`IDLE`] ago. A manual override without an
    /// expiry is durable.
    pub(super) fn has_lapsed(&self, now: u64) -> bool {
        let is_durable = self.state().is_manual() && self.until.is_none();
        let last = self.used_at.max(self.since.unwrap_or(0)).max(self.until.unwrap_or(0));
        self.state() != State::Closed && !is_durable && now >= last.saturating_add(micros(IDLE))
    }

    /// Notes that the state is used, if an entry uses it.
    fn note_use(&mut self, entry: &Entry, has_merged: bool, now: u64) {
        let leases = &entry.leases;
        let leads = entry.role.is_some_and(|role| role.want);
        if has_merged || leads || !leases.want.is_empty() || !leases.renew.is_empty() {
            self.used_at = now;
        }
    }

    pub(super) fn record(&self, now: u64) -> Record {
        let remaining = self.until.map(|until| until.saturating_sub(now));
        Record {
            epoch: self.epoch,
            state: self.state(),
            reason: self.reason.clone(),
            originator: self.originator.clone(),
            actor: self.actor.clone(),
            remaining_us: self.state().remaining(remaining, self.reset_timeout_us),
            since_us: self.since.map_or(0, |since| now.saturating_sub(since)),
            reset_timeout_us: self.reset_timeout_us,
            attempt: self.attempt,
        }
    }

    /// Returns whether there was something to write back.
    pub(super) fn write_back(&mut self, known: &Record, now: u64) -> bool {
        let lost = known.epoch > self.epoch;
        let age = self.since.map_or(0, |since| now.saturating_sub(since));
        if lost && known.state == State::Closed && self.state() != State::Closed && age < known.since_us {
            // A closed state that is older than one that has begun since must not end that one: its epoch
            // goes on from there.
            let stands = Record { epoch: known.epoch + 1, ..self.record(now) };
            self.begin(&stands, now);
        } else if lost {
            self.begin(known, now);
        } else if self.is_ahead(now) && (known.epoch, known.state) == (self.epoch, self.state()) {
            // The clock was set back after this state began. The instance has measured its age on its own
            // clock.
            let remaining = known.state.remaining(known.remaining_us, self.reset_timeout_us);
            self.since = Some(now.saturating_sub(known.since_us));
            self.until = remaining.map(|span| now.saturating_add(span));
        }
        lost
    }

    /// It begins in the future, or is open beyond its reset timeout: a state that is written back may begin
    /// in the past and end ahead.
    fn is_ahead(&self, now: u64) -> bool {
        let (span, is_open) = (self.reset_timeout_us, self.state() == State::Open);
        let ends_late = self.until.is_some_and(|until| until > now.saturating_add(span));
        self.since.is_some_and(|since| since > now) || is_open && span > 0 && ends_late
    }

    /// Begins a state, without counts. The leader and the settings do not belong to an epoch and stay.
    fn begin(&mut self, record: &Record, now: u64) {
        let reset_timeout_us = record.reset_timeout_us.min(MAX_SPAN_US);
        let remaining = record.state.remaining(record.remaining_us, reset_timeout_us);
        *self = StoredBreaker {
            epoch: record.epoch,
            state: Some(record.state),
            reason: cut(&record.reason).to_owned(),
            originator: record.originator.clone(),
            actor: cut(&record.actor).to_owned(),
            until: remaining.map(|span| now.saturating_add(span)),
            since: Some(now.saturating_sub(record.since_us)),
            reset_timeout_us,
            attempt: record.attempt,
            role: std::mem::take(&mut self.role),
            settings: std::mem::take(&mut self.settings),
            opened_at: match record.state {
                State::Open => Some(now.saturating_sub(record.since_us)),
                _ => self.opened_at,
            },
            last_failure_at: self.last_failure_at,
            noticed_at: self.noticed_at,
            kept: true,
            touched_at: now,
            used_at: now,
            ..StoredBreaker::default()
        };
    }

    pub(super) fn merge(&mut self, instance: &Arc<str>, entry: &Entry, when: When) {
        let has_merged = !when.retry && self.has_merged(instance, entry, when);
        self.note_use(entry, has_merged, when.now);
    }

    fn has_merged(&mut self, instance: &Arc<str>, entry: &Entry, when: When) -> bool {
        let timely = match entry.known() {
            Some(known) => known.epoch == self.epoch,
            None => matches!(self.state(), State::Closed | State::MetricsOnly),
        };
        if !timely || !entry.has_something_to_merge() {
            return false;
        }
        self.kept = true;
        self.counts.add(&entry.delta.counts);
        let failed_at = entry.delta.failure_age_us().map(|age| when.base.saturating_sub(age));
        self.last_failure_at = self.last_failure_at.max(failed_at);
        if let Some(age) = entry.delta.failure_age_us().filter(|_| entry.failing) {
            self.failing.note(instance, when.base.saturating_sub(age));
        }
        let has_failures = entry.delta.streak.failures.iter().any(|&(_, count)| count > 0);
        let pairs = if has_failures { entry.streak_pairs() } else { MAX_STREAK };
        self.merge_run(&entry.delta.streak, pairs, when.base);
        if let Some(ask) = entry.window {
            self.merge_buckets(ask, &entry.delta.buckets, when);
        }
        if let Some(ask) = entry.last
            && entry.delta.calls.iter().any(|&(_, count)| count > 0)
        {
            let last = self.lasts.entry(ask.calls).or_default();
            let failed_at = last.append(&entry.delta.calls, u64::from(ask.calls));
            if let Some(place) = failed_at.filter(|_| entry.failing) {
                last.failing.note(instance, place);
            }
        }
        true
    }

    /// Counts that were reported. Returns whether the instance should exchange this breaker instead.
    pub(super) fn report(&mut self, entry: &Reported, when: When) -> bool {
        if self.state() != State::Closed || self.epoch != entry.epoch {
            return true;
        }
        if !when.retry {
            self.kept = true;
            self.counts.add(&entry.counts);
            let failed_at = entry.failure_age_us.map(|age| when.base.saturating_sub(age));
            self.last_failure_at = self.last_failure_at.max(failed_at);
            let streak = Streak { success_age_us: entry.success_age_us, failures: Vec::new() };
            self.merge_run(&streak, MAX_STREAK, when.base);
            if let Some(ask) = entry.window {
                self.merge_buckets(ask, &entry.buckets, when);
            }
        }
        self.streak_seen && entry.by_streak
    }

    /// Requests a notice of this breaker, unless there was one recently.
    pub(super) fn request_notice(&mut self, name: &Arc<str>, notices: &mut Notices, now: u64) {
        // One that waits to be given lies ahead.
        let recent =
            |at: u64| at <= now + micros(NOTICE_PAUSE) && now.saturating_sub(at) < micros(NOTICE) / 2;
        if self.state() == State::Closed && !self.noticed_at.is_some_and(recent) {
            self.kept = true;
            self.noticed_at = Some(notices.request(name, now));
        }
    }

    pub(super) fn notice_age_us(&self, now: u64) -> Option<u64> {
        now.checked_sub(self.noticed_at?)
    }

    /// At the end of an exchange: notes whether there is a streak, which the answers to reports then show.
    pub(super) fn note_streak(&mut self) {
        self.streak_seen = self.state() == State::Closed && !self.failures.is_empty();
    }

    pub(super) fn success_age_us(&self, now: u64) -> Option<u64> {
        self.success_at.map(|at| now.saturating_sub(at))
    }

    /// Removes a node from the failing ones, because its instance shuts down.
    pub(super) fn forget_failing(&mut self, node: &str, entry: &Entry) {
        if entry.failing {
            self.failing.forget(node);
        }
        if let Some(last) = entry.last.and_then(|ask| self.lasts.get_mut(&ask.calls)) {
            last.failing.forget(node);
        }
    }

    pub(super) fn failing(&self, instance: &str, now: u64) -> Vec<u64> {
        self.failing.of_others(instance).map(|at| now.saturating_sub(at)).collect()
    }

    /// With the failing ones of others than `instance`, if there is one.
    pub(super) fn last(
        &mut self,
        ask: CountWindowRequest,
        instance: Option<&str>,
        now: u64,
    ) -> CountWindowView {
        if let Some(asked) = self.lasts.get_mut(&ask.calls) {
            asked.asked_at = now;
        }
        // Windows that no instance requests any more.
        self.lasts.retain(|_, last| now.saturating_sub(last.asked_at) < micros(IDLE));
        match self.lasts.get(&ask.calls) {
            Some(last) => last.view(ask, instance),
            None => CountWindowView { place: 0, outcomes: Vec::new(), failing: Vec::new() },
        }
    }

    fn merge_run(&mut self, streak: &Streak, pairs: usize, base: u64) {
        let success_at = streak.success_age_us.map(|age| base.saturating_sub(age));
        self.success_at = self.success_at.max(success_at);
        let more = streak.failures.iter().filter(|&&(_, count)| count > 0);
        self.failures.extend(more.map(|&(age, count)| (base.saturating_sub(age), count)));
        self.failures.retain(|&(at, _)| Some(at) >= self.success_at);
        self.failures.sort_by_key(|&(at, _)| at);
        self.failures.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                earlier.1 = earlier.1.saturating_add(later.1).min(MAX_COUNT);
            }
            same
        });
        let beyond = self.failures.len().saturating_sub(pairs);
        let older: u64 = self.failures.drain(..beyond).map(|(_, count)| count).sum();
        if let Some(oldest) = self.failures.first_mut() {
            oldest.1 = oldest.1.saturating_add(older).min(MAX_COUNT);
        }
    }

    fn merge_buckets(&mut self, ask: WindowRequest, buckets: &[(u64, Counts)], when: When) {
        let first = first_bucket(ask, when.now);
        // Longer than its length: what is in it is of no use any more.
        self.windows.retain(|&(length, _), window| when.now - window.merged_at <= length + micros(MARGIN));
        for (age, counts) in buckets {
            let bucket = when.base.saturating_sub(*age) / ask.width_us;
            if bucket < first || counts.is_nothing() {
                continue;
            }
            let window = self.windows.entry((ask.length_us, ask.width_us)).or_default();
            window.merged_at = when.now;
            window.buckets.retain(|&bucket, _| bucket >= first);
            window.buckets.entry(bucket).or_default().add(counts);
        }
    }

    pub(super) fn window(&self, ask: WindowRequest, now: u64) -> WindowView {
        let first = first_bucket(ask, now).max(ask.since);
        match self.windows.get(&(ask.length_us, ask.width_us)) {
            None => WindowView::default(),
            Some(window) => WindowView {
                buckets: window.buckets.range(first..).map(|(&bucket, &counts)| (bucket, counts)).collect(),
            },
        }
    }

    /// Removes lapsed leases, and releases and renews this instance's.
    pub(super) fn settle_leases(&mut self, instance: &Arc<str>, ask: &LeaseRequest, now: u64) {
        self.leases.retain(|_, until| *until > now);
        if ask.is_nothing() {
            return;
        }
        // A lease that ends so far ahead was taken before the clock was set back: it ends after one more
        // term.
        let term = ask.term_us.min(MAX_SPAN_US);
        let far = now.saturating_add(2 * term);
        for until in self.leases.values_mut().filter(|until| term > 0 && **until > far) {
            *until = now + term;
        }
        for &id in &ask.release {
            self.leases.remove(&(instance.clone(), id));
        }
        for &id in &ask.renew {
            if let Some(until) = self.leases.get_mut(&(instance.clone(), id)) {
                *until = now + ask.term_us.min(MAX_SPAN_US);
            }
        }
    }

    /// The granted ids; and if some were denied, the time until the first held lease expires.
    pub(super) fn hand_out(
        &mut self,
        instance: &Arc<str>,
        ask: &LeaseRequest,
        now: u64,
    ) -> (Vec<LeaseId>, Option<u64>) {
        if self.state() != State::HalfOpen {
            return (Vec::new(), None);
        }
        let mut granted = Vec::new();
        for &id in &ask.want {
            let lease = (instance.clone(), id);
            if self.leases.contains_key(&lease) || self.leases.len() < ask.limit as usize {
                self.leases.insert(lease, now + ask.term_us.min(MAX_SPAN_US));
                granted.push(id);
            }
        }
        let denied = granted.len() < ask.want.len();
        let first = self.leases.values().min().filter(|_| denied);
        let wait = first.map(|until| until.saturating_sub(now));
        (granted, wait)
    }

    pub(super) fn take_role(&mut self, instance: &Arc<str>, term_us: u64, now: u64) {
        self.kept |= self.role.take(instance, term_us, now);
    }

    pub(super) fn role(&mut self) -> &mut StoredLeader {
        &mut self.role
    }

    /// Keeps the reported settings, if the breaker is kept. Returns others that were reported before.
    pub(super) fn settle_settings(&mut self, said: &str, now: u64) -> Option<String> {
        if said.is_empty() || !self.kept {
            return None;
        }
        self.settings.say(text::cut(said, MAX_SETTINGS), now)
    }

    pub(super) fn propose(
        &mut self,
        proposal: &Proposal,
        known_epoch: Option<u64>,
        instance: &str,
        now: u64,
    ) -> bool {
        if proposal.token.is_some_and(|token| !self.role.is_held(instance, token, now)) {
            return false;
        }
        let current = self.record(now);
        let to = &proposal.to;
        let reset_timeout_us = to.reset_timeout_us.min(MAX_SPAN_US);
        let reason = cut(&to.reason);
        let remaining_us = to.state.remaining(to.remaining_us, reset_timeout_us);
        let wins = if proposal.force {
            let nothing_counted = self.counts.is_nothing() && self.failures.is_empty();
            let changes_nothing = current.state == to.state
                && current.reason == reason
                && current.remaining_us.is_none()
                && remaining_us.is_none()
                && (current.state != State::Closed || nothing_counted);
            !changes_nothing
        } else {
            let bound =
                current.state.is_manual() || (current.state == State::Open && to.state == State::HalfOpen);
            let over = current.remaining_us == Some(0);
            known_epoch == Some(self.epoch) && (!bound || over)
        };
        if wins {
            let next = Record {
                epoch: self.epoch + 1,
                state: to.state,
                reason: reason.to_owned(),
                originator: instance.to_owned(),
                actor: cut(&to.actor).to_owned(),
                remaining_us,
                since_us: 0,
                reset_timeout_us,
                attempt: to.attempt,
            };
            self.begin(&next, now);
        }
        wins
    }
}

/// The time for which a window is kept in addition to its length, as in Redis.
const MARGIN: Duration = Duration::from_secs(600);

/// The oldest bucket that is in the window now.
fn first_bucket(ask: WindowRequest, now: u64) -> u64 {
    let buckets = ask.length_us.div_ceil(ask.width_us);
    (now / ask.width_us + 1).saturating_sub(buckets)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::StoredBreaker;
    use crate::store::{MAX_STREAK, Streak};

    proptest! {
        /// A streak with as many pairs as the limit reaches the limit exactly when the whole streak does, in
        /// any order of failures and successes.
        #[test]
        fn bounded_streak_decides_like_the_whole_one(
            limit in 1..6_usize,
            steps in prop::collection::vec((prop::option::of(0..60_u64), prop::collection::vec(0..60_u64, 0..4)), 1..20),
        ) {
            let (mut whole, mut bounded) = (StoredBreaker::default(), StoredBreaker::default());
            for (success_age_us, mut ages) in steps {
                ages.sort_unstable_by(|one, other| other.cmp(one));
                ages.retain(|age| success_age_us.is_none_or(|success| *age <= success));
                let streak = Streak { success_age_us, failures: ages.iter().map(|age| (*age, 1)).collect() };
                whole.merge_run(&streak, MAX_STREAK, 100);
                bounded.merge_run(&streak, limit, 100);
                let reached = |breaker: &StoredBreaker| breaker.streak() >= limit as u64;
                prop_assert_eq!(reached(&bounded), reached(&whole));
            }
        }
    }
}
