//! What a breaker knows and intends: the protocol's decision logic, without clock, atomics or I/O.
//!
//! A ledger holds three things apart. What the **store has confirmed** (an epoch and its standing), what
//! the **fleet had counted** at the last exchange, and what **this instance** has seen and done since:
//! its evidence, and a standing of its own that is either on its way to the store or, while the store
//! is away, this instance's private affair. After a heal evidence is merged, state is adopted.

use std::time::Duration;

use super::evidence::Evidence;
use super::policy::{self, Picture, Verdict};
use super::probes::{Allotted, Probes};
use super::tally::Successes;
use super::window::Mirror;
use crate::clock::{Moment, micros};
use crate::config::{Settings, Window};
use crate::snapshot::State;
use crate::store::{Counts, Entry, IDLE, LeaseAsk, MAX_SPAN_US, Proposal, Record, View, WindowAsk};

/// A state and how it came to be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Standing {
    pub(crate) state: State,
    pub(crate) reason: String,
    pub(crate) originator: String,
    /// Who ordered it, if a person did.
    pub(crate) actor: String,
    pub(crate) since: Moment,
    /// Open: when a probe is due. Held by hand: when that expires.
    pub(crate) until: Option<Moment>,
    pub(crate) reset_timeout: Duration,
    /// How often it has opened since it was last closed.
    pub(crate) attempt: u32,
}

impl Standing {
    fn closed(now: Moment) -> Self {
        Standing {
            state: State::Closed,
            reason: String::new(),
            originator: String::new(),
            actor: String::new(),
            since: now,
            until: None,
            reset_timeout: Duration::ZERO,
            attempt: 0,
        }
    }

    fn from_record(record: &Record, now: Moment) -> Self {
        Standing {
            state: record.state,
            reason: record.reason.clone(),
            originator: record.originator.clone(),
            actor: record.actor.clone(),
            since: Moment(now.0.saturating_sub(record.since_us)),
            until: record.remaining_us.map(|left| now.after(Duration::from_micros(left))),
            reset_timeout: Duration::from_micros(record.reset_timeout_us),
            attempt: record.attempt,
        }
    }

    fn to_record(&self, epoch: u64, now: Moment) -> Record {
        Record {
            epoch,
            state: self.state,
            reason: self.reason.clone(),
            originator: self.originator.clone(),
            actor: self.actor.clone(),
            remaining_us: self.until.map(|until| micros(until.since(now))),
            since_us: micros(now.since(self.since)),
            reset_timeout_us: micros(self.reset_timeout),
            attempt: self.attempt,
        }
    }

    /// Open, and its time is over.
    pub(crate) fn is_due(&self, now: Moment) -> bool {
        self.state == State::Open && self.until.is_none_or(|until| until <= now)
    }
}

/// This instance's own standing, where it differs from the confirmed one.
#[derive(Clone, Debug)]
struct Local {
    standing: Standing,
    evidence: Counts,
    /// Still to be proposed to the store. False: taken while the store was away, and to be given up when it is back.
    proposed: bool,
}

/// A change of this breaker's state at this instance, to be told to those who listen.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    pub(crate) from: State,
    pub(crate) to: Standing,
    pub(crate) evidence: Counts,
}

/// What an answer of the store leads to.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Answered {
    /// Calls meet another state now: a new generation begins.
    pub(crate) moved: bool,
    /// A change that this instance makes because of what the fleet has counted.
    pub(crate) change: Option<Change>,
    pub(crate) allotted: Allotted,
    /// There is more to say at once: a proposal that could not be made before the epoch was known.
    pub(crate) more: bool,
}

pub(crate) struct Ledger {
    settings: Settings,
    instance: String,
    /// What the store has said last; `None` = it has not been asked yet.
    confirmed: Option<(u64, Standing)>,
    /// Stands in for `confirmed` as long as there is none.
    initial: Standing,
    local: Option<Local>,
    /// Totals of the epoch and failures in a row, as of the last exchange.
    fleet: Counts,
    fleet_run: u64,
    mirror: Option<Mirror>,
    /// Evidence of the batch that is under way, or whose fate is unknown.
    flight: Option<Evidence>,
    /// What that batch asked of the window.
    asked: Option<WindowAsk>,
    /// Whether that batch had a proposal with it.
    told_proposal: bool,
    /// That batch asked for probes of a state that is half-open, or proposed to be.
    asked_half_open: bool,
    pending: Evidence,
    /// The tally's successes that are accounted for, and until when.
    folded: u64,
    folded_at: Moment,
    last_failure: Option<Moment>,
    pub(crate) probes: Probes,
    exchanged_at: Option<Moment>,
}

/// Breakers that are not closed are confirmed again and again at this interval: so a store that has
/// lost its data is told within a second, and leases do not lapse while their holder lives.
pub(crate) const REFRESH: Duration = Duration::from_millis(400);
/// Books are brought up to date, and told, at this interval: that is how exactly the time of a success is known.
pub(crate) const PACE: Duration = Duration::from_millis(100);
/// After a failure the fleet's run is asked for again, at growing intervals up to this one.
const FOLLOW_UP: Duration = Duration::from_secs(1);
/// The last of those questions comes so long after the failure.
const FOLLOW_UP_ENDS: Duration = Duration::from_secs(30);

fn mirror(settings: &Settings) -> Option<Mirror> {
    match settings.window {
        Some(Window::Time(span)) => Some(Mirror::new(span)),
        _ => None,
    }
}

impl Ledger {
    pub(crate) fn new(
        settings: Settings,
        instance: String,
        held: Option<(Record, Moment)>,
        now: Moment,
    ) -> Self {
        let mirror = mirror(&settings);
        Ledger {
            pending: Evidence::new(mirror.as_ref().map_or(0, Mirror::width)),
            confirmed: held.map(|(record, as_of)| (record.epoch, Standing::from_record(&record, as_of))),
            initial: Standing::closed(now),
            settings,
            instance,
            local: None,
            fleet: Counts::default(),
            fleet_run: 0,
            mirror,
            flight: None,
            asked: None,
            told_proposal: false,
            asked_half_open: false,
            folded: 0,
            folded_at: now,
            last_failure: None,
            probes: Probes::default(),
            exchanged_at: None,
        }
    }

    /// Judges by other settings from now on. What a new time window looks at starts at nothing.
    pub(crate) fn configure(&mut self, settings: Settings) {
        if settings.window != self.settings.window {
            self.mirror = mirror(&settings);
            self.asked = None;
            self.pending.rebucket(self.bucket_width());
        }
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

    /// Closed, with nothing that the store does not know.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.state() == State::Closed
            && self.local.is_none()
            && self.flight.is_none()
            && self.pending.is_empty()
            && !self.probes.want_exchange()
    }

    /// Totals of the epoch: the fleet's and this instance's since.
    pub(crate) fn counts(&self) -> Counts {
        let flight = self.flight.as_ref().map(|flight| flight.counts).unwrap_or_default();
        self.fleet.plus(flight).plus(self.pending.counts)
    }

    /// What a closed breaker is judged by. `skew`: the store's clock minus this instance's, in µs.
    pub(crate) fn picture(&self, now: Moment, skew: u64) -> Picture {
        let flight = self.flight.as_ref();
        let before = flight.map_or(self.fleet_run, |flight| flight.run_after(self.fleet_run));
        let window = self.mirror.as_ref().map(|mirror| {
            let start = Moment(now.0.saturating_sub(mirror.length()));
            mirror
                .sum(now.0.wrapping_add(skew))
                .plus(flight.map(|flight| flight.window_since(start)).unwrap_or_default())
                .plus(self.pending.window_since(start))
        });
        Picture { run: self.pending.run_after(before), window: window.unwrap_or_default() }
    }

    // ---- what happens here

    /// Accounts for the successes that the tally has counted since the last time. The latest of them ended
    /// somewhere between the time that it knows and now; the run places it at the beginning of that
    /// span, so that it never erases another instance's failure which it may have preceded.
    /// Returns the moment to note a failure under that has happened now.
    pub(crate) fn fold(&mut self, tally: Successes, now: Moment) -> Moment {
        // Strictly increasing, so that a success and a failure of this instance keep their order.
        let earliest = Moment(self.folded_at.0 + 1);
        let now = now.max(Moment(earliest.0 + 1));
        let new = tally.count.wrapping_sub(self.folded);
        if new > 0 && self.counts_calls() {
            let latest = tally.latest.unwrap_or(earliest).clamp(earliest, Moment(now.0 - 1));
            self.pending.successes(new, latest, now);
        }
        self.folded = tally.count;
        self.folded_at = now;
        now
    }

    fn counts_calls(&self) -> bool {
        matches!(self.state(), State::Closed | State::MetricsOnly)
    }

    /// A call has failed while closed. `tally`: the successes so far.
    pub(crate) fn failure(
        &mut self,
        tally: Successes,
        now: Moment,
        skew: u64,
        store_up: bool,
    ) -> Option<Change> {
        let at = self.fold(tally, now);
        self.pending.failure(at);
        self.last_failure = Some(now);
        self.judge(now, skew, store_up)
    }

    /// A probe has ended with a result.
    pub(crate) fn probe(&mut self, success: bool, now: Moment, store_up: bool) -> Option<Change> {
        if success {
            self.pending.counts.successes += 1;
        } else {
            self.pending.counts.failures += 1;
        }
        self.judge(now, 0, store_up)
    }

    /// Looks at everything that is known and changes the state if that is what it means.
    pub(crate) fn judge(&mut self, now: Moment, skew: u64, store_up: bool) -> Option<Change> {
        match self.state() {
            State::Closed => {
                let picture = self.picture(now, skew);
                let reason = policy::trip(&self.settings, &picture)?;
                let evidence = match self.settings.window {
                    Some(_) if picture.window != Counts::default() => picture.window,
                    _ => Counts { failures: picture.run, ..Counts::default() },
                };
                Some(self.open(reason, evidence, now, store_up))
            }
            State::HalfOpen => {
                let probes = self.counts();
                match policy::judge_probes(&self.settings, probes) {
                    Verdict::Wait => None,
                    Verdict::Reopen(reason) => Some(self.open(reason, probes, now, store_up)),
                    Verdict::Close(reason) => {
                        let to =
                            Standing { reason, originator: self.instance.clone(), ..Standing::closed(now) };
                        Some(self.change(to, probes, store_up))
                    }
                }
            }
            _ => None,
        }
    }

    /// A call has failed, and said for how long the circuit must be open.
    pub(crate) fn open_on_request(&mut self, span: Duration, now: Moment, store_up: bool) -> Change {
        let span = span.min(Duration::from_micros(MAX_SPAN_US));
        if self.state() == State::HalfOpen {
            self.pending.counts.failures += 1;
        } else {
            self.pending.failure(now);
        }
        let reason = format!("the call asked for {} (open_for)", humantime::format_duration(span));
        let evidence = Counts { failures: 1, ..Counts::default() };
        let attempt = self.standing().attempt.saturating_add(1);
        self.open_until(reason, evidence, attempt, span, now, store_up)
    }

    fn open(&mut self, reason: String, evidence: Counts, now: Moment, store_up: bool) -> Change {
        let attempt = self.standing().attempt.saturating_add(1);
        let reset_timeout = policy::open_for(&self.settings, attempt);
        self.open_until(reason, evidence, attempt, reset_timeout, now, store_up)
    }

    fn open_until(
        &mut self,
        reason: String,
        evidence: Counts,
        attempt: u32,
        reset_timeout: Duration,
        now: Moment,
        store_up: bool,
    ) -> Change {
        let to = Standing {
            state: State::Open,
            reason,
            originator: self.instance.clone(),
            actor: String::new(),
            since: now,
            until: Some(now.after(reset_timeout)),
            reset_timeout,
            attempt,
        };
        self.change(to, evidence, store_up)
    }

    /// This instance's own half-open, for as long as the store is away.
    pub(crate) fn half_open_alone(&mut self, now: Moment) -> Change {
        let standing = self.standing();
        let to = Standing {
            state: State::HalfOpen,
            reason: "reset timeout is over".into(),
            originator: self.instance.clone(),
            actor: String::new(),
            since: now,
            until: None,
            reset_timeout: standing.reset_timeout,
            attempt: standing.attempt,
        };
        self.change(to, Counts::default(), false)
    }

    /// Takes a standing of its own. With a store that answers it is on its way there.
    fn change(&mut self, to: Standing, evidence: Counts, store_up: bool) -> Change {
        let from = self.state();
        let alone = !store_up;
        if alone && to.state != State::Open {
            // Probes of this instance alone are no evidence for the fleet; its recovery is.
            self.fleet = Counts::default();
            self.flight = None;
            self.pending = Evidence::new(self.bucket_width());
            if to.state == State::Closed {
                self.fleet_run = 0;
                if let Some(mirror) = &mut self.mirror {
                    mirror.clear();
                }
                self.pending.recovered(to.since);
            }
        }
        self.probes.begin_epoch(to.state == State::HalfOpen);
        self.local = Some(Local { standing: to.clone(), evidence, proposed: store_up });
        Change { from, to, evidence }
    }

    /// The store has gone away. What was on its way there is this instance's private affair from now on.
    pub(crate) fn store_lost(&mut self) -> Option<Change> {
        self.probes.store_lost();
        let from = self.confirmed.as_ref().map_or(State::Closed, |(_, standing)| standing.state);
        let local = self.local.as_mut().filter(|local| local.proposed)?;
        local.proposed = false;
        Some(Change { from, to: local.standing.clone(), evidence: local.evidence })
    }

    // ---- the exchange

    /// Whether there is something to say to the store, or to ask it.
    pub(crate) fn wants_exchange(&self, now: Moment) -> bool {
        let silent_for = match self.exchanged_at {
            None => return true,
            Some(at) => now.since(at),
        };
        let proposes = self.local.as_ref().is_some_and(|local| local.proposed);
        if proposes || !self.pending.is_empty() || self.probes.want_exchange() {
            return true;
        }
        if self.local.is_some()
            || self.state() != State::Closed
            || self.confirmed.as_ref().is_some_and(|(_, c)| c.state != State::Closed)
        {
            return silent_for >= REFRESH;
        }
        // Another instance's success may have ended the run that this one's next failure would continue.
        match self.last_failure {
            Some(at) if self.fleet_run > 0 => {
                let age = now.since(at);
                age < FOLLOW_UP_ENDS && silent_for >= (age / 2).min(FOLLOW_UP)
            }
            _ => false,
        }
    }

    /// What to say. With `retry`, the same evidence as in the batch whose fate is unknown.
    pub(crate) fn entry(&mut self, name: std::sync::Arc<str>, now: Moment, skew: u64, retry: bool) -> Entry {
        self.forget_if_idle(now);
        if !retry {
            let fresh = Evidence::new(self.bucket_width());
            self.flight = Some(std::mem::replace(&mut self.pending, fresh));
        }
        let told = self.flight.as_ref();
        // Evidence was collected while calls were admitted; it says nothing about another kind of state.
        let meant = self.confirmed.as_ref().is_none_or(|(_, standing)| {
            standing.state.admits()
                || self.local.is_none()
                || self.local.as_ref().is_some_and(|local| local.proposed)
        });
        let delta = told.filter(|_| meant).map(|told| told.delta(now)).unwrap_or_default();
        self.asked = self.mirror.as_ref().map(|mirror| {
            let oldest = told.and_then(Evidence::oldest_bucket);
            mirror.ask(oldest.map(|at| at.0.wrapping_add(skew)))
        });
        self.exchanged_at = Some(now);
        let proposal = self.proposal(now);
        self.told_proposal = proposal.is_some();
        let asked_of = proposal.as_ref().map_or(self.confirmed_state(), |proposal| proposal.to);
        self.asked_half_open = !retry && asked_of == State::HalfOpen;
        let leases = if retry { LeaseAsk::default() } else { self.probes.ask(&self.settings) };
        Entry {
            name,
            known: self.confirmed.as_ref().map(|(epoch, standing)| standing.to_record(*epoch, now)),
            delta,
            window: self.asked,
            last: None,
            proposal,
            leases,
            role: None,
            settings: "".into(),
        }
    }

    fn proposal(&self, now: Moment) -> Option<Proposal> {
        // Without a known epoch there is nothing to compare: the answer to this exchange will bring one.
        self.confirmed.as_ref()?;
        let (to, evidence) = match &self.local {
            Some(local) if local.proposed => (local.standing.clone(), local.evidence),
            None if self.probes.are_wanted() && self.standing().is_due(now) => {
                let standing = self.standing();
                let to = Standing {
                    state: State::HalfOpen,
                    reason: "reset timeout is over".into(),
                    until: None,
                    ..standing.clone()
                };
                (to, Counts::default())
            }
            _ => return None,
        };
        let record = to.to_record(0, now);
        Some(Proposal {
            to: to.state,
            reason: to.reason,
            remaining_us: record.remaining_us,
            reset_timeout_us: record.reset_timeout_us,
            attempt: to.attempt,
            force: false,
            token: None,
            actor: String::new(),
            evidence,
        })
    }

    /// The store's answer to [`entry`](Self::entry).
    pub(crate) fn answered(&mut self, view: &View, store_now: u64, now: Moment, skew: u64) -> Answered {
        self.flight = None;
        let asked_for = self.probes.take_asking();
        if view.record.epoch < self.epoch() {
            // The event stream has been faster: this answer tells of an epoch that is over.
            return Answered {
                allotted: Allotted { denied: asked_for, ..Allotted::default() },
                ..Answered::default()
            };
        }
        let mut moved = self.adopt(&view.record, now);
        self.fleet = view.counts;
        self.fleet_run = view.run;
        if let (Some(mirror), Some(ask), Some(seen)) = (&mut self.mirror, self.asked.take(), &view.window) {
            mirror.update(ask, seen, store_now);
        }
        let mut change = None;
        match &mut self.local {
            None => change = self.judge(now, skew, true),
            Some(local) if local.proposed => {}
            // Taken alone. The evidence has been merged: does what the fleet has counted speak for it?
            Some(_) => {
                let open = self.state() == State::Open && self.confirmed_state() == State::Closed;
                if open && policy::trip(&self.settings, &self.picture(now, skew)).is_some() {
                    self.local.as_mut().expect("just seen").proposed = true;
                } else {
                    self.local = None;
                    self.probes.begin_epoch(self.probes_may_come(now));
                    moved = true;
                }
            }
        }
        // Asked before the store had even heard of the opening, while the time was over already: not yet an answer.
        let too_early = !self.asked_half_open && !asked_for.is_empty() && self.probes_may_come(now);
        let allotted = if too_early {
            self.probes.ask_again(asked_for);
            Allotted::default()
        } else {
            self.probes.allot(asked_for, view, now)
        };
        let unsaid = self.local.as_ref().is_some_and(|local| local.proposed)
            && (!self.told_proposal || change.is_some());
        let more = unsaid || too_early;
        Answered { moved: moved || change.is_some(), change, allotted, more }
    }

    /// The store cannot use this breaker's entry: what it told is kept.
    pub(crate) fn refused(&mut self) {
        if let Some(flight) = self.flight.take() {
            let later = std::mem::take(&mut self.pending);
            self.pending = flight.then(later);
        }
    }

    /// The store lets a closed breaker go that nobody has named for an hour, and its epochs start
    /// anew. An instance that has not named it for half of that must not insist on what it knew.
    fn forget_if_idle(&mut self, now: Moment) {
        let idle = self.exchanged_at.is_none_or(|at| now.since(at) > IDLE / 2);
        if idle && self.local.is_none() && self.confirmed.is_some() && self.confirmed_state() == State::Closed
        {
            self.confirmed = None;
            self.initial = Standing::closed(now);
        }
    }

    /// Takes over a state that the store has confirmed. Returns whether calls meet another state now.
    pub(crate) fn adopt(&mut self, record: &Record, now: Moment) -> bool {
        self.forget_if_idle(now);
        let standing = Standing::from_record(record, now);
        match &mut self.confirmed {
            Some((epoch, _)) if *epoch > record.epoch => return false,
            Some((epoch, known)) if *epoch == record.epoch && known.state == record.state => {
                // An answer that has travelled for longer puts the same end later; the earliest is the truest.
                let until = known.until.zip(standing.until).map(|(known, told)| known.min(told));
                *known = Standing { until, ..standing };
                return false;
            }
            _ => {}
        }
        let first = self.confirmed.is_none();
        let before = self.state();
        let own = record.originator == self.instance;
        self.confirmed = Some((record.epoch, standing));
        match &self.local {
            // This is what became of our proposal; calls have been meeting it since.
            Some(local) if own && local.standing.state == record.state => {
                self.local = None;
                self.begin_epoch(now);
                return false;
            }
            // The store has been closed all the time: first contact changes nothing.
            _ if first && record.state == State::Closed && before == State::Closed => return false,
            Some(local) if first && record.state == State::Closed && local.standing.state == State::Open => {
                return false;
            }
            _ => {}
        }
        self.local = None;
        self.begin_epoch(now);
        true
    }

    fn begin_epoch(&mut self, now: Moment) {
        self.fleet = Counts::default();
        self.fleet_run = 0;
        self.flight = None;
        self.last_failure = None;
        self.asked = None;
        self.pending = Evidence::new(self.bucket_width());
        if let Some(mirror) = &mut self.mirror {
            mirror.clear();
        }
        self.probes.begin_epoch(self.probes_may_come(now));
    }

    /// Half-open, or due to be.
    fn probes_may_come(&self, now: Moment) -> bool {
        self.state() == State::HalfOpen || self.standing().is_due(now)
    }

    fn confirmed_state(&self) -> State {
        self.confirmed.as_ref().map_or(State::Closed, |(_, standing)| standing.state)
    }

    fn bucket_width(&self) -> u64 {
        self.mirror.as_ref().map_or(0, Mirror::width)
    }
}
