//! What the attribute makes of typical functions, as files that can be read (`tests/expansion`), and as the page
//! `docs/expansion.md`, which has them all.
//!
//! After a change: `BLESS=1 cargo test -p cb-macros`, and then read what has changed.

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::guard;

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn is_blessing() -> bool {
    std::env::var_os("BLESS").is_some()
}

/// Compares with the file, or rewrites it.
fn golden(path: &Path, found: &str) {
    if is_blessing() {
        fs::write(path, found).unwrap();
    } else {
        let expected = fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == expected,
            "{} says something else; if this is better, run `BLESS=1 cargo test -p cb-macros`:\n{found}",
            path.display()
        );
    }
}

/// The arguments of `[circuit_breaker(…)]`, if the token is that.
fn attribute(token: Option<&TokenTree>) -> Option<TokenStream> {
    let TokenTree::Group(brackets) = token? else { return None };
    let mut tokens = brackets.stream().into_iter();
    match (tokens.next(), tokens.next()) {
        (Some(TokenTree::Ident(name)), Some(TokenTree::Group(args))) if name == "circuit_breaker" => {
            Some(args.stream())
        }
        _ => None,
    }
}

/// Replaces the functions that have the attribute by their expansions.
fn expanded(code: TokenStream) -> TokenStream {
    let mut expansion = TokenStream::new();
    let mut tokens = code.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(hash) if hash.as_char() == '#' && attribute(tokens.peek()).is_some() => {
                let args = attribute(tokens.next().as_ref()).expect("just looked at it");
                let mut item = TokenStream::new();
                for token in tokens.by_ref() {
                    let is_body =
                        matches!(&token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace);
                    item.extend([token]);
                    if is_body {
                        break;
                    }
                }
                expansion.extend(guard(args, item));
            }
            TokenTree::Group(group) => {
                let inside = proc_macro2::Group::new(group.delimiter(), expanded(group.stream()));
                expansion.extend([TokenTree::Group(inside)]);
            }
            other => expansion.extend([other]),
        }
    }
    expansion
}

/// What the attribute makes of the function in the file, with `rt` in the place of the import's long name.
fn expansion_of(name: &str, rt: &str) -> String {
    let code = read(&in_repository(&format!("tests/expansion/{name}.rs")));
    let code = expanded(code.parse().unwrap()).to_string();
    // What is inside of a macro's parentheses would not be formatted.
    let code = code.replace("__circuit_breaker", rt).replace("pin ! (", "pin_macro (");
    let file = syn::parse_str(&code).expect("an expansion is Rust");
    prettyplease::unparse(&file).replace("pin_macro(", "pin!(")
}

macro_rules! expansions {
    ($($name:ident)*) => {
        const ALL: &[&str] = &[$(stringify!($name)),*];

        $(#[test]
        fn $name() {
            let path = in_repository(concat!("tests/expansion/", stringify!($name), ".expanded.rs"));
            golden(&path, &expansion_of(stringify!($name), "__circuit_breaker"));
        })*
    };
}

expansions!(plain fallback cache open method future broken);

#[test]
fn the_page_shows_them_all() {
    let page = in_repository("../docs/expansion.md");
    let mut text = read(&page);
    for name in ALL {
        let code = read(&in_repository(&format!("tests/expansion/{name}.rs")));
        text = with_block(&text, &format!("{name}.rs"), &code);
        text = with_block(&text, &format!("{name}.expanded.rs"), &expansion_of(name, "rt"));
    }
    golden(&page, &text);
}

/// The page with this code in the block after the comment that names the file.
fn with_block(page: &str, file: &str, code: &str) -> String {
    let mark = format!("<!-- {file} -->\n```rust\n");
    let Some((before, rest)) = page.split_once(&mark) else { panic!("the page has no block after {mark}") };
    let Some((_, after)) = rest.split_once("```\n") else { panic!("the block of {file} does not end") };
    format!("{before}{mark}{code}```\n{after}")
}

#[test]
fn a_half_typed_body_is_guarded_as_it_is() {
    let with_body = |body: &str| {
        let item = format!("async fn f(client: Client) -> Result<(), E> {body}").parse().unwrap();
        guard("name = \"a\", fallback = other".parse().unwrap(), item).to_string()
    };
    let finished = with_body("{ client }");
    for body in ["{ client . }", "{ let x : }", "{ if client { } ; client . get ( ) . }"] {
        let body = body.parse::<TokenStream>().unwrap().to_string();
        assert_eq!(with_body(&body), finished.replace("{ client }", &body));
    }
}
