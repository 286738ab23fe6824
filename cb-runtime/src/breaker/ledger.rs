//! What a breaker knows and intends: the protocol's decision logic, without clock, atomics or I/O.
//!
//! A ledger holds three things apart. What the **store has confirmed** (an epoch and its standing), what
//! the **fleet had counted** at the last exchange, and what **this instance** has seen and done since:
//! its evidence, and a standing of its own that is either on its way to the store or, while the store
//! is away, this instance's private affair. After a heal evidence is merged, state is adopted.

use std::time::Duration;

use super::account::Account;
use super::policy::{self, Picture, Verdict};
use super::probes::{Allotted, Probes};
use super::standing::{Change, Claim, Local, Standing};
use super::tally::Successes;
use crate::clock::Moment;
use crate::config::Settings;
use crate::snapshot::State;
use crate::store::{Counts, Entry, IDLE, LeaseAsk, MAX_SPAN_US, Proposal, Record, View};

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
    account: Account,
    /// Probes that have ended while this instance was on its own.
    alone: Counts,
    /// Whether the batch that is under way, or whose fate is unknown, had a proposal with it.
    told_proposal: bool,
    /// That batch asked for probes of a state that is half-open, or proposed to be.
    asked_half_open: bool,
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

/// Why a state held by hand has ended by itself.
const EXPIRED: &str = "expired";

/// The reason where a call has said for how long the circuit must be open.
pub(crate) fn asked_for(span: Duration) -> String {
    format!("the dependency asked for {} (open_for)", humantime::format_duration(span))
}

impl Ledger {
    pub(crate) fn new(
        settings: Settings,
        instance: String,
        held: Option<(Record, Moment)>,
        now: Moment,
    ) -> Self {
        Ledger {
            account: Account::new(&settings),
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
        self.account.configure(&self.settings, &settings, now, skew);
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

    /// Totals of the epoch: the fleet's and this instance's since; on its own, of its own probes.
    pub(crate) fn counts(&self) -> Counts {
        if self.probes_alone() { self.alone } else { self.account.totals() }
    }

    /// What a closed breaker is judged by. `skew`: the store's clock minus this instance's, in µs.
    pub(crate) fn picture(&self, now: Moment, skew: u64) -> Picture {
        self.account.picture(now, skew, self.settings.strategy.is_some())
    }

    /// Half-open, and not by the fleet's word.
    fn probes_alone(&self) -> bool {
        self.is_alone() && self.state() == State::HalfOpen
    }

    /// In a state that is no one else's: the store is away, or the others do not see what this instance sees.
    pub(crate) fn is_alone(&self) -> bool {
        self.local.as_ref().is_some_and(|local| local.claim != Claim::Proposed)
    }

    /// In a state of its own though the store is there.
    pub(crate) fn is_isolated(&self) -> bool {
        self.local.as_ref().is_some_and(|local| local.claim == Claim::Isolated)
    }

    /// Closed, and admitting but a part of the calls, as it has just recovered: since when, and for how long in all.
    pub(crate) fn ramp(&self, now: Moment) -> Option<(Moment, Duration)> {
        let standing = self.standing();
        let ramp_up = self.settings.ramp_up?;
        let ramping = standing.state == State::Closed && standing.attempt > 0;
        (ramping && now < standing.since.after(ramp_up)).then_some((standing.since, ramp_up))
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
            self.account.successes(new, latest, now);
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
        slow: bool,
        now: Moment,
        skew: u64,
        store_up: bool,
    ) -> Option<Change> {
        let at = self.fold(tally, now);
        self.account.failure(slow, at);
        self.last_failure = Some(now);
        self.judge(now, skew, store_up)
    }

    /// A call has succeeded while closed, and taken too long.
    pub(crate) fn slow_success(
        &mut self,
        tally: Successes,
        now: Moment,
        skew: u64,
        store_up: bool,
    ) -> Option<Change> {
        let at = self.fold(tally, now);
        self.account.slow_success(at);
        self.judge(now, skew, store_up)
    }

    /// A probe has ended with a result.
    pub(crate) fn probe(&mut self, success: bool, slow: bool, now: Moment, store_up: bool) -> Option<Change> {
        self.count_probe(success, slow);
        self.judge(now, 0, store_up)
    }

    fn count_probe(&mut self, success: bool, slow: bool) {
        let probe =
            Counts { successes: u64::from(success), failures: u64::from(!success), slow: u64::from(slow) };
        let sum = if self.probes_alone() { &mut self.alone } else { &mut self.account.pending.counts };
        *sum = sum.plus(probe);
    }

    /// A call has failed, and said for how long the circuit must be open. `tally`: the successes so far.
    pub(crate) fn open_on_request(
        &mut self,
        span: Duration,
        tally: Successes,
        now: Moment,
        store_up: bool,
    ) -> Change {
        let at = self.fold(tally, now);
        let span = span.min(Duration::from_micros(MAX_SPAN_US));
        if self.state() == State::HalfOpen {
            self.count_probe(false, false);
        } else {
            self.account.failure(false, at);
        }
        let reason = asked_for(span);
        let evidence = Counts { failures: 1, ..Counts::default() };
        let claim = self.claim(store_up);
        self.open_until(reason, evidence, self.next_attempt(now), span, now, claim)
    }

    /// Looks at everything that is known and changes the state if that is what it means.
    pub(crate) fn judge(&mut self, now: Moment, skew: u64, store_up: bool) -> Option<Change> {
        match self.state() {
            State::Closed => self.judge_calls(now, skew, store_up),
            State::HalfOpen => {
                let probes = self.counts();
                let claim = self.claim(store_up);
                match policy::judge_probes(&self.settings, probes) {
                    Verdict::Wait => None,
                    Verdict::Reopen(reason) => Some(self.open(reason, probes, now, claim)),
                    Verdict::Close(reason) => {
                        let attempt =
                            if self.settings.ramp_up.is_some() { self.standing().attempt } else { 0 };
                        let originator = self.instance.clone();
                        let to = Standing { reason, originator, attempt, ..Standing::closed(now) };
                        Some(self.change(to, probes, claim))
                    }
                }
            }
            // With a store, the fleet leaves it together; see `proposal`.
            _ if !store_up && self.standing().has_expired(now) => {
                let to = self.after_expiry(now);
                Some(self.change(to, Counts::default(), Claim::Alone))
            }
            _ => None,
        }
    }

    fn after_expiry(&self, now: Moment) -> Standing {
        Standing { reason: EXPIRED.into(), originator: self.instance.clone(), ..Standing::closed(now) }
    }

    /// Why it would open now if it did not only watch.
    pub(crate) fn would_open(&self, now: Moment, skew: u64, store_up: bool) -> Option<String> {
        let watching = self.state() == State::MetricsOnly;
        let verdict = watching.then(|| self.verdict(now, skew, store_up))?;
        verdict.map(|(reason, ..)| reason)
    }

    fn judge_calls(&mut self, now: Moment, skew: u64, store_up: bool) -> Option<Change> {
        let (reason, picture, isolated) = self.verdict(now, skew, store_up)?;
        let claim = if isolated { Claim::Isolated } else { self.claim(store_up) };
        Some(self.open(reason, figures(&picture), now, claim))
    }

    /// Whether what has been counted speaks for opening, and why; `true`: for this instance alone.
    fn verdict(&self, now: Moment, skew: u64, store_up: bool) -> Option<(String, Picture, bool)> {
        let picture = self.picture(now, skew);
        // Who is cut off cannot know what others see, and protects itself.
        let quorum = if store_up { self.settings.min_failing_instances } else { 1 };
        if let Some(reason) = policy::trip(&self.settings, &picture, quorum) {
            return Some((reason, picture, false));
        }
        let own = self.account.own_picture(now).filter(|_| quorum > 1)?;
        let reason = policy::trip_alone(&self.settings, &own)?;
        Some((reason, own, true))
    }

    /// What a change that this instance makes now is meant as.
    fn claim(&self, store_up: bool) -> Claim {
        match &self.local {
            Some(Local { claim: Claim::Isolated, .. }) => Claim::Isolated,
            _ if store_up => Claim::Proposed,
            _ => Claim::Alone,
        }
    }

    /// How many openings in a row the next one makes.
    fn next_attempt(&self, now: Moment) -> u32 {
        match self.state() {
            State::Closed if self.ramp(now).is_none() => 1,
            _ => self.standing().attempt.saturating_add(1),
        }
    }

    fn open(&mut self, reason: String, evidence: Counts, now: Moment, claim: Claim) -> Change {
        let attempt = self.next_attempt(now);
        let reset_timeout = policy::open_for(&self.settings, attempt, fastrand::f64());
        self.open_until(reason, evidence, attempt, reset_timeout, now, claim)
    }

    fn open_until(
        &mut self,
        reason: String,
        evidence: Counts,
        attempt: u32,
        reset_timeout: Duration,
        now: Moment,
        claim: Claim,
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
        self.change(to, evidence, claim)
    }

    /// This instance's own half-open: the store is away, or it is in a state of its own anyway.
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
        let claim = self.claim(false);
        self.change(to, Counts::default(), claim)
    }

    /// Takes a standing of its own.
    fn change(&mut self, to: Standing, evidence: Counts, claim: Claim) -> Change {
        let from = self.state();
        self.alone = Counts::default();
        match (claim, to.state) {
            (Claim::Alone, State::HalfOpen) => self.account.forget_totals(),
            (Claim::Alone, State::Closed) => self.account.recovered(to.since),
            (Claim::Isolated, _) => self.account.forget_own(),
            _ => {}
        }
        self.probes.begin_epoch(to.state == State::HalfOpen);
        // Who has recovered by itself is where the fleet is again.
        let local = Local { standing: to.clone(), evidence, claim };
        self.local = Some(local).filter(|_| claim != Claim::Isolated || to.state != State::Closed);
        Change { from, to, evidence, private: claim != Claim::Proposed }
    }

    /// The store has gone away. What was on its way there is this instance's private affair from now on.
    pub(crate) fn store_lost(&mut self) -> Option<Change> {
        self.probes.store_lost();
        let from = self.confirmed.as_ref().map_or(State::Closed, |(_, standing)| standing.state);
        let local = self.local.as_mut().filter(|local| local.claim == Claim::Proposed)?;
        local.claim = Claim::Alone;
        Some(Change { from, to: local.standing.clone(), evidence: local.evidence, private: true })
    }

    // ---- the exchange

    /// Whether there is something to say to the store, or to ask it.
    pub(crate) fn wants_exchange(&self, now: Moment) -> bool {
        let silent_for = match self.exchanged_at {
            None => return true,
            Some(at) => now.since(at),
        };
        // Asked for until the store's clock agrees.
        let expired = self.local.is_none() && self.standing().has_expired(now) && silent_for >= PACE;
        if self.proposes() || expired || self.account.has_news() || self.probes.want_exchange() {
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
            Some(at) if self.account.has_run() => {
                let age = now.since(at);
                age < FOLLOW_UP_ENDS && silent_for >= (age / 2).min(FOLLOW_UP)
            }
            _ => false,
        }
    }

    /// What to say. With `retry`, the same evidence as in the batch whose fate is unknown.
    pub(crate) fn entry(&mut self, name: std::sync::Arc<str>, now: Moment, skew: u64, retry: bool) -> Entry {
        self.forget_if_idle(now);
        // Evidence was collected while calls were admitted; it says nothing about another kind of state.
        let meant = self
            .confirmed
            .as_ref()
            .is_none_or(|(_, standing)| standing.state.admits() || self.local.is_none() || self.proposes());
        let mut entry = Entry { name, ..Entry::default() };
        self.account.tell(&mut entry, now, skew, retry, meant);
        self.exchanged_at = Some(now);
        let proposal = self.proposal(now);
        self.told_proposal = proposal.is_some();
        let asked_of = proposal.as_ref().map_or(self.confirmed_state(), |proposal| proposal.to);
        self.asked_half_open = !retry && asked_of == State::HalfOpen;
        let leases = if retry { LeaseAsk::default() } else { self.probes.ask(&self.settings) };
        let known = self.confirmed.as_ref().map(|(epoch, standing)| standing.to_record(*epoch, now));
        Entry { known, proposal, leases, ..entry }
    }

    fn proposes(&self) -> bool {
        self.local.as_ref().is_some_and(|local| local.claim == Claim::Proposed)
    }

    fn proposal(&self, now: Moment) -> Option<Proposal> {
        // Without a known epoch there is nothing to compare: the answer to this exchange will bring one.
        self.confirmed.as_ref()?;
        let (to, evidence) = match &self.local {
            Some(local) if local.claim == Claim::Proposed => (local.standing.clone(), local.evidence),
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
            None if self.standing().has_expired(now) => (self.after_expiry(now), Counts::default()),
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
        let flight = self.account.told();
        let asked_for = self.probes.take_asking();
        if view.record.epoch < self.epoch() {
            // The event stream has been faster: this answer tells of an epoch that is over.
            return Answered {
                allotted: Allotted { denied: asked_for, ..Allotted::default() },
                ..Answered::default()
            };
        }
        let mut moved = self.adopt(&view.record, now);
        self.account.update(flight.as_ref(), view, store_now, now);
        let mut change = None;
        match self.local.as_ref().map(|local| local.claim) {
            None => change = self.judge(now, skew, true),
            Some(Claim::Proposed) => {}
            // The evidence has been merged: does what the fleet has counted speak for it?
            Some(_) if self.fleet_would_open(now, skew) || self.left_by_expiry(now) => {
                self.local.as_mut().expect("just seen").claim = Claim::Proposed;
            }
            Some(Claim::Isolated) => {}
            Some(Claim::Alone) if self.stays_isolated(now) => {
                self.local.as_mut().expect("just seen").claim = Claim::Isolated;
            }
            Some(Claim::Alone) => {
                self.local = None;
                self.probes.begin_epoch(self.probes_may_come(now));
                moved = true;
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
        let unsaid = self.proposes() && (!self.told_proposal || change.is_some());
        let more = unsaid || too_early;
        Answered { moved: moved || change.is_some(), change, allotted, more }
    }

    /// Open on its own, and the fleet, which is closed, counts enough for opening, too.
    fn fleet_would_open(&self, now: Moment, skew: u64) -> bool {
        let open = self.state() == State::Open && self.confirmed_state() == State::Closed;
        open && policy::trip(&self.settings, &self.picture(now, skew), self.settings.min_failing_instances)
            .is_some()
    }

    /// Closed by itself, as what the fleet was held in has expired.
    fn left_by_expiry(&self, now: Moment) -> bool {
        let expired = self.confirmed.as_ref().is_some_and(|(_, standing)| standing.has_expired(now));
        expired && self.state() == State::Closed
    }

    /// Open since the store was away, and enough for that on what it has seen itself, but not for the fleet.
    fn stays_isolated(&self, now: Moment) -> bool {
        let open = self.state() == State::Open && self.confirmed_state() == State::Closed;
        let quorum = self.settings.min_failing_instances > 1;
        let own = self.account.own_picture(now).filter(|_| open && quorum);
        own.is_some_and(|own| policy::trip_alone(&self.settings, &own).is_some())
    }

    /// The store cannot use this breaker's entry: what it told is kept.
    pub(crate) fn refused(&mut self) {
        self.account.keep();
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
            _ if first && record.state == State::Closed && before == State::Closed => {
                return self.ramp(now).is_some();
            }
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
        self.account.begin();
        self.alone = Counts::default();
        self.last_failure = None;
        self.probes.begin_epoch(self.probes_may_come(now));
    }

    /// Half-open, or due to be.
    fn probes_may_come(&self, now: Moment) -> bool {
        self.state() == State::HalfOpen || self.standing().is_due(now)
    }

    fn confirmed_state(&self) -> State {
        self.confirmed.as_ref().map_or(State::Closed, |(_, standing)| standing.state)
    }
}

/// What led to a decision, for those who are told of it.
fn figures(picture: &Picture) -> Counts {
    if picture.window == Counts::default() {
        Counts { failures: picture.run, ..Counts::default() }
    } else {
        picture.window
    }
}
