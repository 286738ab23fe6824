//! The store that a fleet shares.
