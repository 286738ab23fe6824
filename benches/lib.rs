//! Benchmarks live in `overhead.rs` and `exchange.rs` beside this package.
