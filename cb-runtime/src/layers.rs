//! The crate's modules import each other in one direction.

use std::path::Path;

/// The modules, each above those that it may import.
const ORDER: [&str; 31] = [
    "__private",
    "testing",
    "registry",
    "coordinator",
    "tower",
    "acquired",
    "call",
    "breakers",
    "breaker",
    "cache",
    "config",
    "event",
    "metrics",
    "background",
    "status",
    "store",
    "snapshot",
    "report_limiter",
    "timeouts",
    "deadline",
    "error",
    "serial",
    "strategy",
    "health",
    "http",
    "feature",
    "name",
    "text",
    "clock",
    "sync",
    "layers",
];

fn place(module: &str) -> usize {
    let place = ORDER.iter().position(|known| *known == module);
    place.unwrap_or_else(|| panic!("{module} is missing in the order of modules"))
}

/// The modules that a source file imports, apart from its tests.
fn imports(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or(source);
    let code: String = code.lines().map(|line| line.split("//").next().unwrap_or(line)).collect();
    let paths = code.split("crate::").skip(1);
    paths.map(|path| path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()).collect()
}

fn check(module: &str, path: &Path, found: &mut Vec<String>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.file_stem().is_none_or(|name| name != "tests") {
                check(module, &path, found);
            }
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        let source = std::fs::read_to_string(path).unwrap();
        let upward = imports(&source).into_iter().filter(|imported| {
            imported != module && ORDER.contains(&&**imported) && place(imported) < place(module)
        });
        found.extend(upward.map(|imported| format!("{} imports {imported}", path.display())));
    }
}

#[test]
fn no_module_imports_one_above_it() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let module = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.extension().is_some_and(|extension| extension == "md") || module == "lib" {
            continue;
        }
        place(&module);
        check(&module, &path, &mut found);
    }
    assert!(found.is_empty(), "{found:#?}");
}
