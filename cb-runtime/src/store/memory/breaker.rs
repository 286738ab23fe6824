//! A breaker in the memory store: the reference for `redis/lua/exchange`, step by step.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::When;
use super::count_window::StoredCountWindow;
use super::failing::Failing;
use super::leases::StoredLeases;
use super::notices::Notices;
use super::role::StoredLeader;
use super::settings::StoredSettings;
use super::streak::StoredStreak;
use super::time_window::StoredTimeWindows;
use crate::clock::micros;
use crate::snapshot::State;
use crate::store::{
    CountWindowRequest, CountWindowView, Counts, Detail, Entry, FleetRow, IDLE, LeaseId, LeaseRequest,
    MAX_SETTINGS, MAX_SPAN_US, MAX_STREAK, NOTICE, NOTICE_PAUSE, Proposal, Record, Reported, Streak,
    WindowRequest, WindowView, cut,
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
    streak: StoredStreak,
    /// The time of each failing node's latest failure.
    failing: Failing,
    windows: StoredTimeWindows,
    /// By their length in calls.
    lasts: BTreeMap<u32, StoredCountWindow>,
    leases: StoredLeases,
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

impl StoredBreaker {
    pub(super) fn state(&self) -> State {
        self.state.unwrap_or(State::Closed)
    }

    pub(super) fn row(&self, name: Arc<str>, now: u64) -> FleetRow {
        FleetRow { name, view: Ok((self.record(now), self.counts(), self.streak())) }
    }

    pub(super) fn detail(&self, now: u64) -> Detail {
        Detail {
            opened_at_us: self.opened_at,
            last_failure_at_us: self.last_failure_at,
            probes: self.leases.held(now),
            leader: self.role.holder(now).map(ToString::to_string),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) fn streak(&self) -> u64 {
        self.streak.len()
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
        let outlasts_older =
            self.state().is_manual() || known.state == State::Closed && self.state() != State::Closed;
        if lost && outlasts_older && age < known.since_us {
            // No older state ends an override, and an older closed state ends no other state. The present one
            // goes on in the epoch after the lost one.
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

    /// It begins in the future, or ends later than its whole span from now: a state that is written back may
    /// begin in the past and end ahead.
    fn is_ahead(&self, now: u64) -> bool {
        let span = self.reset_timeout_us;
        let ends_late = self.until.is_some_and(|until| until > now.saturating_add(span));
        self.since.is_some_and(|since| since > now) || span > 0 && ends_late
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
        let has_merged = !when.retry && self.merge_counts(instance, entry, when);
        self.note_use(entry, has_merged, when.now);
    }

    /// Returns whether the entry had counts of this state.
    fn merge_counts(&mut self, instance: &Arc<str>, entry: &Entry, when: When) -> bool {
        let timely = match entry.known() {
            Some(known) => known.epoch == self.epoch,
            None => matches!(self.state(), State::Closed | State::MetricsOnly),
        };
        if !timely || !entry.has_something_to_merge() {
            return false;
        }
        self.kept = true;
        self.counts = self.counts.plus(entry.delta.counts);
        let failed_at = entry.delta.failure_age_us().map(|age| when.base.saturating_sub(age));
        self.last_failure_at = self.last_failure_at.max(failed_at);
        if let Some(age) = entry.delta.failure_age_us().filter(|_| entry.failing) {
            self.failing.note(instance, when.base.saturating_sub(age));
        }
        let has_failures = entry.delta.streak.failures.iter().any(|&(_, count)| count > 0);
        let pairs = if has_failures { entry.streak_pairs() } else { MAX_STREAK };
        self.streak.merge(&entry.delta.streak, pairs, when);
        if let Some(ask) = entry.window {
            self.windows.merge(ask, &entry.delta.buckets, when);
        }
        if let Some(ask) = entry.last
            && entry.delta.calls.len() > 0
        {
            let last = self.lasts.entry(ask.calls).or_insert_with(|| StoredCountWindow::new(ask.calls));
            let failed_at = last.append(&entry.delta.calls);
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
            self.counts = self.counts.plus(entry.counts);
            let failed_at = entry.failure_age_us.map(|age| when.base.saturating_sub(age));
            self.last_failure_at = self.last_failure_at.max(failed_at);
            let streak = Streak { success: entry.success_age_us, failures: Vec::new() };
            self.streak.merge(&streak, MAX_STREAK, when);
            if let Some(ask) = entry.window {
                self.windows.merge(ask, &entry.buckets, when);
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
        self.streak_seen = self.state() == State::Closed && self.streak.len() > 0;
    }

    pub(super) fn success_age_us(&self, now: u64) -> Option<u64> {
        self.streak.success_age_us(now)
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

    pub(super) fn window(&self, ask: WindowRequest, now: u64) -> WindowView {
        self.windows.view(ask, now)
    }

    /// Removes lapsed leases, and releases and renews this instance's.
    pub(super) fn settle_leases(&mut self, instance: &Arc<str>, ask: &LeaseRequest, now: u64) {
        self.leases.settle(instance, ask, now);
    }

    /// The granted ids; and if some were denied, the time until the first held lease expires.
    pub(super) fn hand_out(
        &mut self,
        instance: &Arc<str>,
        ask: &LeaseRequest,
        now: u64,
    ) -> (Vec<LeaseId>, Option<u64>) {
        match self.state() {
            State::HalfOpen => self.leases.hand_out(instance, ask, now),
            _ => (Vec::new(), None),
        }
    }

    pub(super) fn take_role(&mut self, instance: &Arc<str>, term_us: u64, now: u64) {
        self.kept |= self.role.take(instance, term_us, now);
    }

    pub(super) fn role(&mut self) -> &mut StoredLeader {
        &mut self.role
    }

    /// Keeps the reported settings, if the breaker is kept. Returns others that were reported before.
    pub(super) fn settle_settings(&mut self, summary: &str, now: u64) -> Option<String> {
        if summary.is_empty() || !self.kept {
            return None;
        }
        self.settings.report(text::cut(summary, MAX_SETTINGS), now)
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
            let nothing_counted = self.counts.is_nothing() && self.streak.len() == 0;
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
