//! The common parts of this package's programs.
#![allow(dead_code, unreachable_pub, reason = "every program includes all of it and uses its own part")]

pub mod guards;
pub mod instance;
pub mod process;
pub mod screen;
