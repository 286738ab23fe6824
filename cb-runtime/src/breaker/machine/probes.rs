//! This instance's probes of a half-open state, and its requests for them.

use std::time::Duration;

use super::{Now, StateMachine, Wake, policy};
use crate::clock::{Moment, micros};
use crate::config::Settings;
use crate::snapshot::State;
use crate::store::{Counts, LeaseId, LeaseRequest, MAX_SPAN_US, OutcomeKind, View};

/// A lease lapses this long after its latest renewal. Exchanges renew it at a fifth of that, so that only a
/// holder that is dead or cut off loses one.
pub(crate) const LEASE: Duration = Duration::from_secs(2);
/// A denial is remembered for this time, so that many callers do not become many commands, or by chance for
/// up to half as long again, so that instances which were denied at once do not ask again at once.
pub(crate) const DENIAL: Duration = Duration::from_millis(100);

/// Whether a caller gets a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeAdmission {
    /// The state admits all calls meanwhile.
    Admitted,
    /// The call is this probe.
    Granted(LeaseId),
    /// The probe was requested from the store.
    Requested(LeaseId),
    Denied,
}

#[derive(Debug, Default)]
pub(crate) struct Probes {
    last_id: LeaseId,
    /// Callers for which the next exchange requests a lease.
    waiting: Vec<LeaseId>,
    held: Vec<Probe>,
    /// Leases that the next exchange gives back.
    released: Vec<LeaseId>,
    denied_until: Moment,
}

/// A call in flight while half-open.
#[derive(Clone, Debug)]
struct Probe {
    id: LeaseId,
    begun_at: Moment,
    /// It counts as failed from this moment on.
    overdue_at: Moment,
    /// When the store may give its lease to others, by this instance's clock: counted from the request that
    /// was granted, so never later than the store's own deadline. `None` = made without a lease, while the
    /// store is away.
    lapses_at: Option<Moment>,
}

impl Probe {
    fn is_leased(&self) -> bool {
        self.lapses_at.is_some()
    }

    /// Whether this instance still has the probe.
    fn is_valid(&self, leases_lapse: bool, now: Moment) -> bool {
        !leases_lapse || self.lapses_at.is_some_and(|at| now < at)
    }
}

/// `lease_wait_us`: until the first lease expires.
fn denied_for(lease_wait_us: Option<u64>, random: f64) -> Duration {
    let shortest = lease_wait_us.map_or(DENIAL, Duration::from_micros).min(DENIAL);
    shortest.mul_f64(1.0 + random / 2.0)
}

impl Probes {
    /// Requests a probe for a caller. `None`: there is none now. `requested`: leases in the exchange in
    /// flight.
    pub(super) fn join(&mut self, limit: u32, requested: usize, now: Moment) -> Option<LeaseId> {
        if self.are_all_taken(limit, requested) || now < self.denied_until {
            return None;
        }
        self.last_id += 1;
        self.waiting.push(self.last_id);
        Some(self.last_id)
    }

    /// Until when [`join`](Self::join) gives no probe. That all are under way is looked at anew after a
    /// while, so that no mistake elsewhere can keep callers out for ever.
    fn denied_until(&self, limit: u32, requested: usize, now: Moment) -> Moment {
        if self.are_all_taken(limit, requested) { now.after(DENIAL) } else { self.denied_until }
    }

    fn are_all_taken(&self, limit: u32, requested: usize) -> bool {
        self.waiting.len() + requested + self.held.len() >= limit as usize
    }

    /// Grants a probe to a caller without a store.
    fn join_without_store(&mut self, limit: u32, longest: Duration, now: Moment) -> Option<LeaseId> {
        if self.held.iter().filter(|probe| !probe.is_leased()).count() >= limit as usize {
            return None;
        }
        self.last_id += 1;
        self.hold(self.last_id, longest, None, now);
        Some(self.last_id)
    }

    fn hold(&mut self, id: LeaseId, longest: Duration, lapses_at: Option<Moment>, now: Moment) {
        self.held.push(Probe { id, begun_at: now, overdue_at: now.after(longest), lapses_at });
    }

    /// Sets the call's own time limit, after which the probe is overdue.
    pub(super) fn limit(&mut self, id: LeaseId, longest: Duration) {
        if let Some(probe) = self.held.iter_mut().find(|probe| probe.id == id) {
            probe.overdue_at = probe.begun_at.after(longest);
        }
    }

    /// Ends a probe. Returns whether the outcome counts.
    pub(super) fn end(&mut self, id: LeaseId, leases_lapse: bool, now: Moment) -> bool {
        let Some(at) = self.held.iter().position(|probe| probe.id == id) else { return false };
        let probe = self.held.swap_remove(at);
        let valid = probe.is_valid(leases_lapse, now);
        self.release(&probe);
        // The slot that this instance gives back is free again.
        self.denied_until = Moment::default();
        valid
    }

    fn release(&mut self, probe: &Probe) {
        if probe.is_leased() {
            self.released.push(probe.id);
        }
    }

    /// Returns all probes while their calls continue. Their outcomes no longer count.
    pub(super) fn release_all(&mut self) {
        for probe in std::mem::take(&mut self.held) {
            self.release(&probe);
        }
    }

    /// Removes overdue and lapsed probes. Returns the number of overdue ones that were still valid.
    pub(super) fn expire(&mut self, leases_lapse: bool, now: Moment) -> u64 {
        let mut overdue = 0;
        let is_over = |probe: &mut Probe| now >= probe.overdue_at || !probe.is_valid(leases_lapse, now);
        for probe in self.held.extract_if(.., is_over) {
            overdue += u64::from(probe.is_valid(leases_lapse, now));
            if probe.is_leased() {
                self.released.push(probe.id);
            }
        }
        overdue
    }

    pub(super) fn are_waited_for(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether probes are in flight.
    pub(super) fn are_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether some of them have leases, which must be renewed.
    pub(super) fn hold_leases(&self) -> bool {
        self.held.iter().any(Probe::is_leased)
    }

    pub(super) fn want_exchange(&self) -> bool {
        !self.waiting.is_empty() || !self.released.is_empty()
    }

    /// The next entry's lease requests.
    pub(super) fn encode(&mut self, settings: &Settings) -> LeaseRequest {
        let leased = self.held.iter().filter(|probe| probe.is_leased());
        LeaseRequest {
            renew: leased.map(|probe| probe.id).collect(),
            release: std::mem::take(&mut self.released),
            want: std::mem::take(&mut self.waiting),
            limit: settings.half_open_max_calls,
            term_us: micros(LEASE),
        }
    }

    /// The store's answer to a request of `sent_at` for the leases `requested`. Returns those that were
    /// granted. `random`: decides how long a denial is remembered.
    pub(super) fn receive(
        &mut self,
        requested: &[LeaseId],
        view: &View,
        longest: Duration,
        sent_at: Moment,
        now: Moment,
        random: f64,
    ) -> Vec<LeaseId> {
        let lapses_at = sent_at.after(LEASE);
        for probe in &mut self.held {
            // One that has lapsed on the way is not revived.
            probe.lapses_at = probe.lapses_at.map(|at| if now < at { lapses_at } else { at });
        }
        let (granted, denied): (Vec<_>, Vec<_>) =
            requested.iter().copied().partition(|id| view.granted.contains(id));
        if !denied.is_empty() {
            self.denied_until = now.after(denied_for(view.lease_wait_us, random));
        }
        for id in &granted {
            self.hold(*id, longest, Some(lapses_at), now);
        }
        granted
    }

    /// Requests leases again that the exchange has neither granted nor denied.
    pub(super) fn request_again(&mut self, requested: Vec<LeaseId>) {
        self.waiting.extend(requested);
    }

    /// Begins a new epoch: all leases are void. Callers keep waiting if the new state may have probes.
    pub(super) fn begin_epoch(&mut self, may_have_probes: bool) {
        self.held.clear();
        self.released.clear();
        self.denied_until = Moment::default();
        if !may_have_probes {
            self.waiting.clear();
        }
    }

    /// Drops all requests, because the store is lost.
    pub(super) fn store_lost(&mut self) {
        self.waiting.clear();
    }

    pub(super) fn awaits(&self, id: LeaseId) -> bool {
        self.waiting.contains(&id)
    }
}

impl StateMachine {
    /// Records the end of a probe. `result`: `None` for outcomes that do not count. Returns whether the lease
    /// was still valid: otherwise the outcome does not count.
    pub(crate) fn record_probe(
        &mut self,
        id: LeaseId,
        result: Option<OutcomeKind>,
        open_for: Option<Duration>,
        now: Now,
    ) -> bool {
        let valid = self.probes.end(id, self.leases_lapse(now), now.at);
        if now.store_up {
            self.wake(Wake::AtOnce);
        }
        if let Some(result) = result.filter(|_| valid) {
            // The counters have it as well, and it must not be absorbed again as a call's success.
            self.absorbed = self.absorbed.wrapping_add(u64::from(!result.failed && !result.slow));
            self.count_probe(result);
            match open_for {
                Some(span) => self.open_on_request(span.min(Duration::from_micros(MAX_SPAN_US)), now),
                None => self.judge(now),
            }
        }
        valid
    }

    fn count_probe(&mut self, OutcomeKind { failed, slow }: OutcomeKind) {
        let probe =
            Counts { successes: u64::from(!failed), failures: u64::from(failed), slow: u64::from(slow) };
        self.only_observes = false;
        if self.probes_are_local() {
            self.local_probes = self.local_probes.plus(probe);
            // The other instances count this failure toward the quorum. Without it, every instance could stay
            // open alone.
            if self.is_isolated() && failed {
                self.stats.failure(slow, self.absorbed_at);
            }
        } else {
            self.stats.count_probe(probe);
        }
    }

    /// Counts overdue probes as failed, whether or not their calls end.
    pub(super) fn expire_probes(&mut self, now: Now) {
        let overdue = self.probes.expire(self.leases_lapse(now), now.at);
        for _ in 0..overdue {
            self.count_probe(OutcomeKind { failed: true, slow: false });
        }
        if overdue > 0 {
            self.wake(Wake::AtOnce);
            self.judge(now);
        }
    }

    /// Returns a probe that was granted to a caller that has gone.
    pub(crate) fn release_probe(&mut self, id: LeaseId, now: Now) {
        self.probes.end(id, self.leases_lapse(now), now.at);
        self.wake(Wake::AtOnce);
    }

    /// Sets the call timeout of a probe.
    pub(crate) fn limit_probe(&mut self, id: LeaseId, limit: Duration) {
        self.probes.limit(id, limit.saturating_add(policy::PROBE_GRACE));
    }

    /// Admits a call as a probe, requests a probe from the store, or denies it.
    pub(crate) fn admit_probe(&mut self, now: Now) -> ProbeAdmission {
        let state = self.state();
        if state.admits() {
            return ProbeAdmission::Admitted;
        }
        if state != State::HalfOpen && !self.record().is_due(now.at) {
            return ProbeAdmission::Denied;
        }
        let limit = self.settings.half_open_max_calls;
        if now.store_up && !self.is_isolated() {
            let requested = self.requested_leases();
            let Some(id) = self.probes.join(limit, requested, now.at) else { return ProbeAdmission::Denied };
            self.wake(Wake::AtOnce);
            return ProbeAdmission::Requested(id);
        }
        if state == State::Open {
            self.half_open_alone(now.at);
        }
        let longest = policy::longest_probe(&self.settings);
        let id = self.probes.join_without_store(limit, longest, now.at);
        id.map_or(ProbeAdmission::Denied, ProbeAdmission::Granted)
    }

    /// While half-open, the time until which no probe is available, unless an outcome or an answer changes
    /// that.
    pub(crate) fn probes_denied_until(&self, now: Moment) -> Moment {
        self.probes.denied_until(self.settings.half_open_max_calls, self.requested_leases(), now)
    }

    /// The number of leases in the exchange in flight.
    fn requested_leases(&self) -> usize {
        self.in_flight.as_ref().map_or(0, |in_flight| in_flight.leases.len())
    }

    /// Whether a probe without a valid lease is not this instance's any more, because another instance may
    /// have it. Without the store, and where no other process shares it, none can.
    fn leases_lapse(&self, now: Now) -> bool {
        self.is_leased(now) && now.is_shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denials_of_a_fleet_end_one_after_the_other() {
        assert_eq!(denied_for(None, 0.0), DENIAL);
        assert_eq!(denied_for(None, 0.5), DENIAL * 5 / 4);
        let soon = Duration::from_millis(20);
        assert_eq!(denied_for(Some(micros(soon)), 0.5), soon * 5 / 4);
    }
}
