//! Health checks: the coordinators begin them, and the history decides when they end, and how.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::instance::Instance;
use super::world::World;
use crate::breaker::Core;
use crate::breaker::health::Check;
use crate::breaker::machine::health::TERM;
use crate::clock::Moment;
use crate::sync::lock;

/// The checks that instances have begun, in order.
pub(super) type Begun = Arc<Mutex<Vec<(Arc<Core>, Check)>>>;

#[derive(Default)]
pub(super) struct Checks {
    pub(super) begun: Begun,
    under_way: Vec<Running>,
    /// Those that have timed out and still block a thread, by instance.
    blocked: Vec<(usize, Check)>,
    /// By breaker: the latest check for the fleet.
    latest: BTreeMap<Arc<str>, ForFleet>,
    /// In the end, whether all checks pass, which then end at once.
    pub(super) pass: Option<bool>,
}

/// A health check that has begun and has not ended.
struct Running {
    instance: usize,
    core: Arc<Core>,
    check: Check,
    begun: Moment,
    hangs: bool,
}

/// A check that has begun for the fleet.
struct ForFleet {
    /// The fencing token of the leader lease.
    token: u64,
    leader: Arc<str>,
    begun: Moment,
}

impl Checks {
    /// The process ends, and its checks with it.
    pub(super) fn kill(&mut self, instance: usize) {
        self.under_way.retain(|running| running.instance != instance);
        self.blocked.retain(|(number, _)| *number != instance);
    }

    pub(super) fn are_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// No check hangs any more.
    pub(super) fn mend(&mut self) {
        self.blocked.clear();
        self.under_way.iter_mut().for_each(|running| running.hangs = false);
        self.pass = Some(true);
    }
}

impl World {
    /// Takes the checks that the instances have begun.
    pub(super) fn begin_checks(&mut self) {
        let all = std::mem::take(&mut *lock(&self.checks.begun));
        for (core, check) in all {
            let is_its =
                |instance: &Instance| Arc::ptr_eq(&instance.context.instance, &core.context().instance);
            let Some(instance) = self.instances.iter().position(is_its) else { continue };
            self.assert_leader(&core, &check);
            let hangs = !self.is_healing && self.random.u8(..8) == 0;
            self.checks.under_way.push(Running { instance, core, check, begun: self.clock.now(), hangs });
        }
        // Those without a slot are not run.
        while let Some(index) = self.checks.under_way.iter().position(|running| running.check.slot.is_none())
        {
            self.end_check(index, false);
        }
        if let Some(passed) = self.checks.pass {
            while !self.checks.under_way.is_empty() {
                self.end_check(0, passed);
            }
        }
    }

    /// Checks for the fleet begin only under the latest lease, which one instance has. When the store loses
    /// its data, or its clock jumps, an instance that has a lease keeps it for a term.
    fn assert_leader(&mut self, core: &Core, check: &Check) {
        let Some(token) = check.token() else { return };
        let leader = core.context().instance.clone();
        let check = ForFleet { token, leader: leader.clone(), begun: self.clock.now() };
        let Some(before) = self.checks.latest.insert(core.name().clone(), check) else { return };
        let is_later = before.token < token || before.token == token && before.leader == leader;
        assert!(
            is_later || before.begun < self.disturbed_at.after(TERM),
            "{} is checked by {leader} under the lease {token}, and before by {} under {}",
            core.name(),
            before.leader,
            before.token
        );
    }

    /// A check ends, if it can.
    pub(super) fn step_end_check(&mut self) {
        if self.random.u8(..8) == 0 {
            self.checks.blocked.clear();
        }
        let index = self.random.usize(..self.checks.under_way.len());
        let running = &self.checks.under_way[index];
        if !running.hangs && !self.instances[running.instance].is_paused() {
            let passed = self.random.bool();
            self.end_check(index, passed);
        }
    }

    /// Ends checks that take too long, as their instances do.
    pub(super) fn time_checks_out(&mut self) {
        let now = self.clock.now();
        let is_late = |running: &Running| {
            now >= running.begun.after(running.check.timeout) && !self.instances[running.instance].is_paused()
        };
        let late: Vec<_> = self.checks.under_way.extract_if(.., |running| is_late(running)).collect();
        for Running { instance, core, check, hangs, .. } in late {
            core.end_check(&check, Err("no result".into()), check.timeout);
            if hangs {
                self.checks.blocked.push((instance, check));
            }
        }
    }

    fn end_check(&mut self, index: usize, passed: bool) {
        let Running { core, check, .. } = self.checks.under_way.swap_remove(index);
        let result = if passed { Ok(()) } else { Err("down".into()) };
        core.end_check(&check, result, Duration::ZERO);
    }
}
