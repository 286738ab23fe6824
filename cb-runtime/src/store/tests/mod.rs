//! What every store must do, run against each of them.

pub(super) mod contract;
