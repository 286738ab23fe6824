//! Compiles the Rust snippets of the pages as doctests.

/// The snippets of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
