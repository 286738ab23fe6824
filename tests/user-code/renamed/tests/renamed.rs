//! What the compiler says to an attribute that does not say where the runtime is.

#[test]
fn a_missing_crate_argument_is_one_error_that_names_it() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
