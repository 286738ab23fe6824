//! What a breaker knows and intends: the protocol's decision logic, without clock, atomics or I/O.
//!
//! A machine holds three things apart. What the **store has confirmed** (an epoch and its standing), what
//! the **fleet had counted** at the last exchange, and what **this instance** has seen and done since:
//! its evidence, and a standing of its own that is either on its way to the store or, while the store
//! is away, this instance's private affair. After a heal evidence is merged, state is adopted.

mod exchange;
pub(crate) mod health;
pub(crate) mod policy;
pub(crate) mod probes;
pub(crate) mod state;
pub(crate) mod stats;
mod transitions;

use std::time::Duration;

use crate::clock::Moment;
use crate::config::Settings;
use crate::snapshot::State;
use crate::store::{Counts, Record};
pub(crate) use exchange::PACE;
use policy::TripInput;
use probes::Probes;
use state::{LocalState, Scope, Standing};
use stats::CallStats;
pub(in crate::breaker) use transitions::asked_for;

pub(crate) struct StateMachine {
    settings: Settings,
    instance: String,
    /// What the store has said last; `None` = it has not been asked yet.
    confirmed: Option<(u64, Standing)>,
    /// Stands in for `confirmed` as long as there is none.
    initial: Standing,
    local: Option<LocalState>,
    stats: CallStats,
    /// Probes that have ended while this instance was on its own.
    alone: Counts,
    /// Whether the batch that is under way, or whose fate is unknown, had a proposal with it.
    told_proposal: bool,
    /// That batch asked for probes of a state that is half-open, or proposed to be.
    asked_half_open: bool,
    /// The counters's successes that are accounted for, and until when.
    folded: u64,
    folded_at: Moment,
    last_failure: Option<Moment>,
    pub(crate) probes: Probes,
    exchanged_at: Option<Moment>,
}

impl StateMachine {
    pub(crate) fn new(
        settings: Settings,
        instance: String,
        held: Option<(Record, Moment)>,
        now: Moment,
    ) -> Self {
        StateMachine {
            stats: CallStats::new(&settings),
            alone: Counts::default(),
            confirmed: held.map(|(record, as_of)| (record.epoch, Standing::from_record(&record, as_of))),
            initial: Standing::closed(now),
            settings,
            instance,
            local: None,
            told_proposal: false,
            asked_half_open: false,
            folded: 0,
            folded_at: now,
            last_failure: None,
            probes: Probes::default(),
            exchanged_at: None,
        }
    }

    /// Judges what has been counted by other settings from now on. `skew`: the store's clock minus this instance's, in µs.
    pub(crate) fn configure(&mut self, settings: Settings, now: Moment, skew: u64) {
        self.stats.configure(&self.settings, &settings, now, skew);
        self.settings = settings;
    }

    // ---- what it knows

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn standing(&self) -> &Standing {
        match (&self.local, &self.confirmed) {
            (Some(local), _) => &local.standing,
            (None, Some((_, standing))) => standing,
            (None, None) => &self.initial,
        }
    }

    pub(crate) fn state(&self) -> State {
        self.standing().state
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.confirmed.as_ref().map_or(0, |(epoch, _)| *epoch)
    }

    pub(crate) fn is_local(&self) -> bool {
        self.local.is_some()
    }

    /// Closed, admitting all, with nothing that the store does not know. What this instance judges itself by alone
    /// (under a quorum) is not looked at: without it, it is like a newcomer.
    pub(crate) fn is_at_rest(&self, now: Moment) -> bool {
        self.state() == State::Closed
            && self.ramp(now).is_none()
            && self.local.is_none()
            && self.stats.is_told()
            && !self.probes.want_exchange()
            && !self.is_checked_while_closed()
    }

    fn is_checked_while_closed(&self) -> bool {
        self.settings.health.as_ref().is_some_and(|health| health.idle_interval.is_some())
    }

    /// Totals of the epoch: the fleet's and this instance's since; on its own, of its own probes.
    pub(crate) fn counts(&self) -> Counts {
        if self.probes_alone() { self.alone } else { self.stats.totals() }
    }

    /// What a closed breaker is judged by. `skew`: the store's clock minus this instance's, in µs.
    pub(crate) fn trip_input(&self, now: Moment, skew: u64) -> TripInput {
        self.stats.trip_input(now, skew, self.settings.strategy.is_some())
    }

    /// Half-open, and not by the fleet's word.
    fn probes_alone(&self) -> bool {
        self.is_alone() && self.state() == State::HalfOpen
    }

    /// In a state that is no one else's: the store is away, or the others do not see what this instance sees.
    pub(crate) fn is_alone(&self) -> bool {
        self.local.as_ref().is_some_and(|local| local.scope != Scope::Pending)
    }

    /// In a state of its own though the store is there.
    pub(crate) fn is_isolated(&self) -> bool {
        self.local.as_ref().is_some_and(|local| local.scope == Scope::Isolated)
    }

    /// Closed, and admitting but a part of the calls, as it has just recovered: since when, and for how long in all.
    pub(crate) fn ramp(&self, now: Moment) -> Option<(Moment, Duration)> {
        let standing = self.standing();
        let ramp_up = self.settings.ramp_up?;
        let ramping = standing.state == State::Closed && standing.attempt > 0;
        (ramping && now < standing.since.after(ramp_up)).then_some((standing.since, ramp_up))
    }
}
