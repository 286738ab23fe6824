mod expansion;

use proc_macro2::TokenStream;

use super::args::{ARGUMENTS, nearest};
use super::guard;

fn tokens(text: &str) -> TokenStream {
    text.parse().unwrap()
}

/// What the attribute makes of an item, as text.
fn expand(args: &str, item: &str) -> String {
    guard(tokens(args), tokens(item)).to_string()
}

#[test]
fn on_any_error_the_item_comes_back_unchanged() {
    let good = "async fn f(a: u8) -> Result<(), E> { g(a).await }";
    for (args, item) in [
        ("", good),
        ("name = ", good),
        ("name = \"a\" oops = 3, window", good),
        ("fallback, name = \"\", failure_threshold = 0", good),
        (", , =", good),
        ("name = \"a\"", "struct S;"),
        ("name = \"a\"", "fn f() {}"),
        ("name = \"a\"", "async fn f();"),
        ("name = \"a\"", "async fn f(a: ) { }"),
        ("name = \"a\"", "nothing known"),
    ] {
        let expanded = expand(args, item);
        assert!(expanded.ends_with(&tokens(item).to_string()), "{args} on {item}: {expanded}");
        assert!(expanded.contains("compile_error"), "{args} on {item}: {expanded}");
    }
}

#[test]
fn errors_are_all_reported_at_once() {
    let expanded = expand("nam = \"a\", failure_threshold = 0, window = \"soon\"", "async fn f() {}");
    assert_eq!(expanded.matches("compile_error").count(), 3, "{expanded}");
}

#[test]
fn the_nearest_argument_is_suggested() {
    for (typed, meant) in [
        ("nmae", Some("name")),
        ("Name", Some("name")),
        ("failure_treshold", Some("failure_threshold")),
        ("threshold", Some("failure_threshold")),
        ("ttl", Some("cache_ttl")),
        ("fallbak", Some("fallback")),
        ("reset", Some("reset_timeout")),
        ("half_open", Some("half_open_max_calls")),
        ("colour", None),
        ("x", None),
    ] {
        let found = nearest(typed);
        match meant {
            // Several end in that word: any of them helps.
            Some(meant) if typed == "threshold" => {
                let last = |name: &str| name.rsplit('_').next().map(str::to_owned);
                assert_eq!(found.and_then(last), last(meant), "{typed}");
            }
            meant => assert_eq!(found, meant, "{typed}"),
        }
    }
}

#[test]
fn every_argument_is_documented() {
    let page = include_str!("../../cb-runtime/src/circuit_breaker.md");
    let headings: Vec<_> =
        page.lines().filter_map(|line| line.strip_prefix("## ")).flat_map(|line| line.split(", ")).collect();
    let known: Vec<_> = ARGUMENTS.iter().map(|argument| argument.name).collect();
    for name in &known {
        assert!(headings.contains(name), "{name} has no heading");
    }
    for heading in headings {
        assert!(known.contains(&heading), "{heading} is documented, and no argument");
    }
}
