//! What the compiler says where a feature is missing: its name.
//!
//! The programs are compiled apart from the workspace, and so without the features that its other members ask
//! for.

#[test]
fn a_missing_feature_is_named() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
