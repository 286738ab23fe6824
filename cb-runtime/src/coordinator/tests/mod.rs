//! The coordinator under a simulated clock, store and network.

mod faults;
mod simulation;
