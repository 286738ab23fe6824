//! The state machine of a breaker, without clock, atomics, randomness or I/O.
//!
//! The machine distinguishes three things. The *confirmed* record: the state and epoch of the store. The
//! *fleet's* counts at the last exchange. And this instance's own part since: outcomes that are not reported
//! yet, and a local state, which is proposed to the store or valid for this instance only. When the store is
//! reachable again after a loss, counts are merged and the store's state is adopted.
//!
//! Every method takes the time as a [`Now`]. What the shell around the machine has to do is collected in
//! [`Effects`].

mod adoption;
mod agenda;
mod answer;
mod entry;
pub(crate) mod health;
mod lapse;
mod notice;
mod outcomes;
pub(crate) mod policy;
pub(crate) mod probes;
pub(crate) mod state;
pub(crate) mod stats;
#[cfg(test)]
mod tests;
mod transitions;

use std::collections::VecDeque;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::time::Duration;

use crate::clock::Moment;
use crate::config::Settings;
use crate::snapshot::State;
use crate::store::{Counts, Delta, LeaseId, Proposal, Record};
pub(crate) use agenda::{Agenda, Cadence, PACE, Want};
use entry::InFlight;
use health::HealthChecks;
use notice::Notice;
pub(crate) use outcomes::CallResult;
use policy::TripInput;
pub(crate) use probes::ProbeAdmission;
use probes::Probes;
use state::{DatedRecord, LocalChange, LocalState, Scope};
use stats::CallStats;

/// The circumstances of a decision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) at: Moment,
    /// The store's clock minus this instance's, in µs (wrapping).
    pub(crate) skew: u64,
    /// The store answers, and this breaker's keys in it can be used.
    pub(crate) store_up: bool,
    /// The longest of the store's latest answer times.
    pub(crate) answer_time: Duration,
    /// Other processes share the store.
    pub(crate) is_shared: bool,
    /// A random number in [0, 1), for jitter.
    pub(crate) random: f64,
}

impl Now {
    /// What the store's clock shows.
    fn store_time(self) -> u64 {
        self.at.0.wrapping_add(self.skew)
    }
}

/// What the shell does once it has released the breaker's lock.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) local_changes: Vec<LocalChange>,
    /// Metrics-only: why the breaker would have opened now.
    pub(crate) would_open: Option<String>,
    /// Probes that the store has granted.
    pub(crate) granted: Vec<LeaseId>,
    /// The override that the store has accepted.
    pub(crate) applied: Option<OverrideId>,
    pub(crate) wake: Option<Wake>,
}

/// Failures that a closed breaker has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Headroom {
    /// This many more failures certainly do not trip it, if nothing but calls happens to it.
    pub(crate) failures: u64,
    pub(crate) until: Moment,
}

/// How soon the coordinator is to exchange this breaker with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wake {
    Paced,
    AtOnce,
}

pub(crate) type OverrideId = u64;

/// A manual override on its way to the store.
#[derive(Clone, Debug)]
struct Override {
    id: OverrideId,
    proposal: Proposal,
    /// Applies only if the state is a manual override when the store is asked.
    release: bool,
}

#[expect(clippy::struct_excessive_bools, reason = "independent facts, not one state")]
pub(crate) struct StateMachine {
    settings: Settings,
    instance: String,
    /// A hash of the instance's name, so that instances confirm at different moments.
    phase: u64,
    /// Grows with each change of the state that calls see.
    generation: u64,
    /// The record that the store has confirmed last; `None` before the first answer.
    confirmed: Option<DatedRecord>,
    /// The confirmed state may have ended unnoticed: the next entry requests the store's state and claims no
    /// known record.
    doubted: bool,
    /// The registry shuts down.
    leaves: bool,
    /// No function and no `get_or_create` has asked for the breaker, and no outcome of a call has been
    /// counted: this instance looks at it or steers it. Its settings are not those that a function gives it,
    /// so it neither judges by them nor declares them to the fleet.
    only_observes: bool,
    /// The record in place of `confirmed` while that is `None`.
    initial: DatedRecord,
    local: Option<LocalState>,
    stats: CallStats,
    /// The probes of a local half-open state.
    local_probes: Counts,
    in_flight: Option<InFlight>,
    overrides: VecDeque<Override>,
    last_override: OverrideId,
    /// The number of the counters' successes that have been absorbed, and until when.
    absorbed: u64,
    absorbed_at: Moment,
    last_failure: Option<Moment>,
    probes: Probes,
    health: HealthChecks,
    exchanged_at: Option<Moment>,
    /// When an entry of this instance last used the confirmed state: by a lease, a leader, or an outcome.
    used_at: Moment,
    /// When it got these settings.
    configured_at: Moment,
    /// The time of the fleet's counts.
    received_at: Option<Moment>,
    /// The store has answered since it was lost last. A breaker's answer comes before the store counts as
    /// restored.
    answered: bool,
    notice: Notice,
    /// By how many failures the latest judgement missed a trip; see [`Headroom`].
    headroom: u64,
    /// A report is not enough: the store or this instance needs an exchange.
    exchange_next: bool,
    /// The highest epoch whose event was sent to subscribers.
    announced: u64,
    /// Metrics-only, and the rules would have opened the circuit.
    would_open: bool,
    /// The end of an opening that a call has requested (`open_for`) while metrics-only.
    would_open_until: Moment,
    effects: Effects,
}

impl StateMachine {
    pub(crate) fn new(settings: Settings, instance: String, known: Option<DatedRecord>, now: Moment) -> Self {
        StateMachine {
            stats: CallStats::new(&settings),
            settings,
            phase: BuildHasherDefault::<DefaultHasher>::default().hash_one(&instance),
            instance,
            generation: 0,
            confirmed: known,
            doubted: false,
            leaves: false,
            only_observes: false,
            initial: DatedRecord::new(Record::closed(), now),
            local: None,
            local_probes: Counts::default(),
            in_flight: None,
            overrides: VecDeque::new(),
            last_override: 0,
            absorbed: 0,
            absorbed_at: now,
            last_failure: None,
            probes: Probes::default(),
            health: HealthChecks::default(),
            exchanged_at: None,
            used_at: Moment::default(),
            configured_at: now,
            received_at: None,
            answered: false,
            notice: Notice::default(),
            headroom: 0,
            exchange_next: false,
            announced: 0,
            would_open: false,
            would_open_until: Moment::default(),
            effects: Effects::default(),
        }
    }

    /// Applies other settings. State and counts stay.
    pub(crate) fn configure(&mut self, settings: Settings, now: Now) {
        let sent = self.in_flight.as_mut().map(|in_flight| &mut in_flight.sent);
        self.stats.configure(&self.settings, &settings, sent, now);
        self.settings = settings;
        self.configured_at = now.at;
        // A report carries no settings.
        self.exchange_next = true;
        self.with_health(now, HealthChecks::configured);
    }

    pub(crate) fn only_observes(&self) -> bool {
        self.only_observes
    }

    pub(crate) fn observe(&mut self) {
        self.only_observes = true;
    }

    /// The breaker is registered. Returns whether it was only observed before.
    pub(crate) fn register(&mut self) -> bool {
        std::mem::take(&mut self.only_observes)
    }

    pub(crate) fn take_wake(&mut self) -> Option<Wake> {
        self.effects.wake.take()
    }

    /// Whether there is more for the shell to do than to wake the coordinator.
    pub(crate) fn has_effects(&self) -> bool {
        let Effects { local_changes, would_open, granted, applied, wake: _ } = &self.effects;
        !local_changes.is_empty() || would_open.is_some() || !granted.is_empty() || applied.is_some()
    }

    pub(crate) fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    fn wake(&mut self, wake: Wake) {
        self.effects.wake = self.effects.wake.max(Some(wake));
    }

    // ---- its state and its counts

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn record(&self) -> &DatedRecord {
        match (&self.local, &self.confirmed) {
            (Some(local), _) => &local.record,
            (None, Some(confirmed)) => confirmed,
            (None, None) => &self.initial,
        }
    }

    pub(crate) fn state(&self) -> State {
        self.record().state()
    }

    /// The epoch of the confirmed record.
    pub(crate) fn epoch(&self) -> u64 {
        self.confirmed.as_ref().map_or(0, |confirmed| confirmed.record.epoch)
    }

    /// Whether the confirmed record contradicts an event with this one.
    pub(crate) fn contradicts(&self, event: &Record) -> bool {
        self.confirmed.as_ref().is_some_and(|known| known.record.contradicts(event))
    }

    fn confirmed_state(&self) -> State {
        self.confirmed.as_ref().map_or(State::Closed, DatedRecord::state)
    }

    pub(crate) fn is_local(&self) -> bool {
        self.local.is_some()
    }

    /// The record from which the breaker can be recreated after it was dropped: only if it is fully synced
    /// and no health check has to close it. Under a quorum, this instance's own counts are then lost, as for
    /// a new instance.
    pub(crate) fn synced_record(&self, now: Moment) -> Option<Record> {
        let is_closed = self.state() == State::Closed;
        // While it is closed, an instance that calls it goes on with idle checks.
        let is_checked = !is_closed && self.settings.health.is_some();
        let is_synced = self.ramp(now).is_none()
            && !self.doubted
            && self.local.is_none()
            && self.in_flight.is_none()
            && self.overrides.is_empty()
            && !self.stats.has_news()
            && !self.probes.want_exchange()
            && !is_checked;
        let known = self.confirmed.as_ref().or_else(|| is_closed.then_some(&self.initial));
        known.filter(|_| is_synced).map(|known| known.at(now))
    }

    /// Totals of the epoch: the fleet's, and this instance's since. In a local half-open state: its probes.
    pub(crate) fn counts(&self) -> Counts {
        if self.probes_are_local() { self.local_probes } else { self.stats.totals(self.sent()) }
    }

    /// The counts that trip rules evaluate.
    pub(crate) fn trip_input(&self, now: Now) -> TripInput {
        self.stats.trip_input(self.sent(), now, self.settings.strategy.is_some())
    }

    /// The input from this instance's outcomes alone, if they are kept.
    fn own_trip_input(&self, now: Now) -> Option<TripInput> {
        self.stats.own_trip_input(now, self.settings.strategy.is_some())
    }

    /// The outcomes in the entry in flight.
    fn sent(&self) -> Option<&Delta<Moment>> {
        self.in_flight.as_ref().map(|in_flight| &in_flight.sent.delta)
    }

    fn probes_are_local(&self) -> bool {
        self.is_alone() && self.state() == State::HalfOpen
    }

    /// In a state of this instance only: the store is unreachable, or the other instances see no failures.
    fn is_alone(&self) -> bool {
        self.local.as_ref().is_some_and(|local| local.scope != Scope::Pending)
    }

    /// In a state of this instance only, although the store is reachable.
    pub(crate) fn is_isolated(&self) -> bool {
        self.local.as_ref().is_some_and(|local| local.scope == Scope::Isolated)
    }

    /// Probes need leases, because half-open is the fleet's state.
    fn is_leased(&self, now: Now) -> bool {
        now.store_up && !self.is_alone()
    }

    /// Closed, and ramping up after a recovery: the beginning and the duration of the ramp-up.
    pub(crate) fn ramp(&self, now: Moment) -> Option<(Moment, Duration)> {
        let record = self.record();
        let ramp_up = self.settings.ramp_up?;
        let ramping = record.state() == State::Closed && record.record.attempt > 0;
        (ramping && now < record.since().after(ramp_up)).then_some((record.since(), ramp_up))
    }

    // ---- requests

    /// Puts an override into the next exchange; with `release`, only if there is a manual override to end.
    pub(crate) fn override_state(&mut self, proposal: Proposal, release: bool) -> OverrideId {
        self.last_override += 1;
        let id = self.last_override;
        self.overrides.push_back(Override { id, proposal, release });
        self.wake(Wake::AtOnce);
        id
    }

    /// Whether a caller still waits for this probe.
    pub(crate) fn awaits_probe(&self, id: LeaseId) -> bool {
        let requested = self.in_flight.as_ref().is_some_and(|in_flight| in_flight.leases.contains(&id));
        requested || self.probes.awaits(id)
    }

    /// The registry shuts down: the next exchange returns held probes, and other instances make the health
    /// checks.
    pub(crate) fn step_down(&mut self) {
        self.probes.release_all();
        self.leaves = true;
        self.exchange_next |= self.stats.is_among_failing();
        self.health.shut_down();
    }
}
