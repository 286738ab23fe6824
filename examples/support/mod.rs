//! What the examples need beside the library: an upstream to call, and ink.

pub mod paint;
pub mod upstream;
