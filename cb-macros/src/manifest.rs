//! Whether the user's crate knows the runtime as `cb_runtime`. Without it, each path of the expansion would
//! be an error of its own, and none of them would name the argument that helps.

use std::ffi::OsString;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// What is wrong with an attribute without `crate`, in the crate that is being compiled. `None` where another
/// tool than Cargo compiles, and for the tests of the runtime and of the macro.
pub(crate) fn problem() -> Option<String> {
    // An editor expands the attributes of many crates in one process; the compiler, those of one.
    static LAST: Mutex<Option<(OsString, Option<String>)>> = Mutex::new(None);
    if cfg!(test) || std::env::var("CARGO_PKG_NAME").ok()? == "cb-runtime" {
        return None;
    }
    let directory = std::env::var_os("CARGO_MANIFEST_DIR")?;
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    match &*last {
        Some((known, problem)) if *known == directory => problem.clone(),
        _ => {
            let manifest = std::fs::read_to_string(Path::new(&directory).join("Cargo.toml")).ok()?;
            let problem = problem_in(&manifest);
            *last = Some((directory, problem.clone()));
            problem
        }
    }
}

fn problem_in(manifest: &str) -> Option<String> {
    let mut renamed = None;
    let mut section = "";
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']').rsplit('.').next().unwrap_or_default().trim();
        }
        let key = line.split(['=', '.']).next().unwrap_or_default().trim().trim_matches('"');
        let is_renamed =
            |name: &str| name != "package" && line.contains("package") && is_runtime_package(line);
        // The key alone decides, and not the package behind it: it makes `::cb_runtime` exist.
        if is_runtime(key) || is_runtime(section) {
            return None;
        }
        if is_renamed(key) {
            renamed = Some(key);
        } else if key == "package" && is_runtime_package(line) {
            renamed = Some(section);
        }
    }
    Some(match renamed {
        Some(name) => format!(
            "this crate depends on cb-runtime as `{name}`: say so to the attribute, `crate = {}`",
            name.replace('-', "_")
        ),
        None => "`cb_runtime` is not a dependency of this crate: add it to Cargo.toml, or say where another crate \
                 re-exports it, `crate = path::to::cb_runtime`"
            .to_owned(),
    })
}

fn is_runtime(name: &str) -> bool {
    matches!(name.trim_matches('"'), "cb-runtime" | "cb_runtime")
}

fn is_runtime_package(line: &str) -> bool {
    line.contains("\"cb-runtime\"")
}

#[cfg(test)]
mod tests {
    use super::problem_in;

    #[test]
    fn a_dependency_is_found_however_it_is_written() {
        for line in [
            "[dependencies]\ncb-runtime = \"1\"",
            "[dependencies]\ncb_runtime = { path = \"x\" }",
            "[dependencies]\ncb-runtime.workspace = true",
            "[dependencies]\n\"cb-runtime\" = \"1\"",
            "[dependencies.cb-runtime]\nversion = \"1\"",
            "[target.'cfg(unix)'.dependencies.cb-runtime]\nversion = \"1\"",
            "[dependencies]\ncb-runtime = { path = \"../packages/cb-runtime\" }",
            "[dependencies]\ncb-runtime = \"1\" # our package",
            "[dependencies]\ncb-runtime = { version = \"1\", package = \"acme-cb-runtime\" }",
            "[dependencies.cb-runtime]\npackage = \"acme-cb-runtime\"",
            "[dev-dependencies]\nbreaker = { package = \"cb-runtime\" }\ncb-runtime = \"1\"",
        ] {
            assert_eq!(problem_in(line), None, "{line}");
        }
    }

    #[test]
    fn a_missing_or_renamed_dependency_is_named() {
        for line in [
            "[dependencies]\nmy-breaker = { version = \"1\", package = \"cb-runtime\" }",
            "[dependencies.my-breaker]\nversion = \"1\"\npackage = \"cb-runtime\"",
        ] {
            let problem = problem_in(line).unwrap();
            assert!(problem.ends_with("`crate = my_breaker`"), "{problem}");
        }
        for line in ["", "[package]\nname = \"x\"", "[dependencies]\ncb-runtime-extras = \"1\""] {
            let problem = problem_in(line).unwrap();
            assert!(problem.ends_with("`crate = path::to::cb_runtime`"), "{problem}");
        }
    }
}
