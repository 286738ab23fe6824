//! What the compiler says to a mistake: one error, at the token at fault, that says what to do.
//!
//! After a change: `TRYBUILD=overwrite cargo test -p cb-runtime --test attribute_errors`, and then read
//! every changed `ui/*.stderr` with the eyes of the one who made the mistake.

#[test]
fn every_mistake_is_explained() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
