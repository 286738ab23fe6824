//! The identity of the function that returned a cached result.
//!
//! Two functions never share a result. Within a process, a function is identified by a [`TypeId`] of its
//! own; so are functions of one name in different blocks, and the instances of a generic function. In the
//! store, the identity must hold across builds, because a rolling deploy shares results. There, a function
//! whose path is unique is identified by its path. A path may belong to several functions: in blocks, and
//! with closures or local types as generic arguments. Such a function is identified by its path, its
//! `TypeId` and the digest of the executable. Only instances of one build share its results, because in
//! another build, another function may have this path and `TypeId`.

use std::any::TypeId;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};

use tokio::runtime::Handle;

use super::program;
use crate::sync::lock;

/// The static beside an annotated function with a cache.
pub struct CacheSite {
    package: Package,
    /// The function itself, or the first instance of a generic one.
    first: OnceLock<Function>,
    /// The other instances. They are never dropped, as the static is not, and there are no more than the
    /// program is compiled for.
    others: Mutex<Vec<&'static Function>>,
}

/// The parts of a function's location that its path leaves out.
struct Package {
    module: &'static str,
    /// `CARGO_PKG_VERSION`, because a program may contain a crate in two versions.
    version: Option<&'static str>,
    /// Whether it is a binary, which may have the same name as its package's library.
    binary: bool,
}

/// One function, or one instance of a generic function.
pub(crate) struct Function {
    id: FunctionId,
    path: &'static str,
    package: &'static Package,
    /// The key under which the arguments are hashed for the store.
    store_key: OnceLock<[u8; 32]>,
    /// Whether a result of this function has been read back unchanged.
    pub(super) checked: AtomicBool,
}

/// Identifies a function within this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FunctionId(pub(super) u64);

impl FunctionId {
    /// The function that contains the closure of type `Inside`. Lifetimes make no difference.
    #[inline]
    pub(crate) fn of<Inside>() -> Self {
        struct Word(u64);
        impl Hasher for Word {
            #[inline]
            fn write(&mut self, bytes: &[u8]) {
                for byte in bytes {
                    self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
                }
            }
            #[inline]
            fn write_u64(&mut self, word: u64) {
                self.0 = self.0.rotate_left(8) ^ word;
            }
            fn finish(&self) -> u64 {
                self.0
            }
        }
        let id: TypeId = typeid::of::<Inside>();
        let mut word = Word(0);
        id.hash(&mut word);
        FunctionId(word.finish())
    }
}

impl CacheSite {
    /// `module`: the function's module. `version` and `binary`: from Cargo's environment variables.
    pub const fn new(
        module: &'static str,
        version: Option<&'static str>,
        binary: Option<&'static str>,
    ) -> Self {
        let package = Package { module, version, binary: binary.is_some() };
        CacheSite { package, first: OnceLock::new(), others: Mutex::new(Vec::new()) }
    }

    /// The function that contains the closure of type `Inside`.
    #[inline]
    pub(crate) fn function<Inside>(&'static self) -> &'static Function {
        let id = FunctionId::of::<Inside>();
        match self.first.get() {
            Some(first) if first.id == id => first,
            _ => self.find(id, std::any::type_name::<Inside>()),
        }
    }

    #[cold]
    pub(super) fn find(&'static self, id: FunctionId, inside: &'static str) -> &'static Function {
        let first = self.first.get_or_init(|| Function::new(id, inside, &self.package));
        if first.id == id {
            return first;
        }
        let mut others = lock(&self.others);
        if let Some(found) = others.iter().find(|function| function.id == id) {
            return found;
        }
        let function: &'static Function = Box::leak(Box::new(Function::new(id, inside, &self.package)));
        others.push(function);
        function
    }
}

impl Function {
    fn new(id: FunctionId, inside: &'static str, package: &'static Package) -> Self {
        let path = inside.trim_end_matches("::{{closure}}");
        let function =
            Function { id, path, package, store_key: OnceLock::new(), checked: AtomicBool::new(false) };
        if is_unique(path, package.module) {
            let _ = function.store_key.set(function.make_store_key(None));
        }
        function
    }

    #[inline]
    pub(crate) fn id(&self) -> FunctionId {
        self.id
    }

    /// The function's path, for display.
    pub(super) fn path(&self) -> &'static str {
        self.path
    }

    /// The key under which arguments are hashed for the store. `None`: the function's path is not unique,
    /// and the executable's digest is not known yet or cannot be computed.
    pub(super) fn store_key(&self, background: &Handle) -> Option<&[u8; 32]> {
        if let Some(key) = self.store_key.get() {
            return Some(key);
        }
        let program = program::digest(background)?;
        Some(self.store_key.get_or_init(|| self.make_store_key(Some(program))))
    }

    fn make_store_key(&self, program: Option<&[u8; 32]>) -> [u8; 32] {
        let mut digest = blake3::Hasher::new_derive_key("cb_runtime 2026 cached results of one function");
        let mut text = |text: &str| {
            digest.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        };
        text(self.path);
        text(compatible(self.package.version.unwrap_or_default()));
        text(if self.package.binary { "binary" } else { "library" });
        if let Some(program) = program {
            digest.update(&self.id.0.to_le_bytes()).update(program);
        }
        *digest.finalize().as_bytes()
    }

    /// `true` until [`check_passed`](Self::check_passed).
    pub(super) fn is_unchecked(&self) -> bool {
        !self.checked.load(Ordering::Relaxed)
    }

    pub(super) fn check_passed(&self) {
        self.checked.store(true, Ordering::Relaxed);
    }
}

/// The part of a version that is unique within a program, because Cargo unifies compatible versions:
/// `1.2.3` → `1`, `0.2.3` → `0.2`.
fn compatible(version: &str) -> &str {
    let mut end = 0;
    for part in version.split(['.', '-', '+']) {
        end += part.len();
        if part != "0" {
            return &version[..end];
        }
        end += 1;
    }
    version
}

/// Whether at most one function can have this path (a [type's name](std::any::type_name) without the closures
/// in the function). `module`: the function's module.
///
/// Every name in the path must certainly be an item of a module, because those are unique, and items of
/// blocks are not. It is certain for the module itself, its ancestors and the standard library. A name that
/// looks like any other module may be a function with blocks.
fn is_unique(path: &str, module: &str) -> bool {
    // A closure, an anonymous constant, a lifetime or a character.
    if path.contains(['{', '\'']) {
        return false;
    }
    let module: String =
        module.split("::").map(|part| part.trim_start_matches("r#")).collect::<Vec<_>>().join("::");
    let in_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    path.split(|c| !in_word(c)).all(|word| is_certain(word, &module))
}

/// `word`: a path, or the rest of one before or after `<…>`.
fn is_certain(word: &str, module: &str) -> bool {
    let is_ancestor =
        |path: &str| module.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    let Some((parent, _)) = word.rsplit_once("::") else {
        // A primitive type, a keyword, a number.
        return true;
    };
    // Before `<impl …>` and after `…>`: methods, of which a type has one by each name.
    if parent.is_empty() || word.ends_with("::") || is_ancestor(parent) {
        return true;
    }
    if matches!(parent.split("::").next(), Some("core" | "alloc" | "std")) {
        return true;
    }
    // A method of a type. Functions, whose blocks could contain items, have names in lower case.
    parent
        .rsplit_once("::")
        .is_some_and(|(of_type, name)| is_ancestor(of_type) && name.starts_with(char::is_uppercase))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_only_one_function_can_have() {
        for (path, module) in [
            ("app::get", "app"),
            ("app::mod::get", "app::r#mod"),
            ("app::clients::get<u8>", "app::clients"),
            ("app::get<core::option::Option<alloc::vec::Vec<&[u8; 3]>>, 7, true>", "app"),
            ("app::Client::get", "app"),
            ("app::Client<u8>::get<app::Order>", "app"),
            ("<app::Client as app::Find>::find", "app"),
            ("<app::Client as app::Find>::find", "app::clients"),
            ("app::clients::<impl app::Client>::get", "app::clients"),
            ("app::clients::<impl app::Find for app::Client>::find", "app::clients"),
        ] {
            assert!(is_unique(path, module), "{path} in {module}");
        }
    }

    #[test]
    fn paths_that_several_functions_can_have() {
        for (path, module) in [
            ("app::outer::get", "app"),
            ("app::outer::{{closure}}::get", "app"),
            ("app::_::get", "app"),
            ("app::outer::Local::get", "app"),
            ("app::Client::run::Local::get", "app"),
            ("app::get<app::main::{{closure}}>", "app"),
            ("app::get<app::outer::Local>", "app"),
            ("app::get<alloc::vec::Vec<app::outer::Local>>", "app"),
            ("<app::outer::Local as app::Find>::find", "app"),
            ("app::get<other::Type>", "app"),
            ("apple::Client::get", "app"),
            ("app::get<fn(&'_ u8)>", "app"),
        ] {
            assert!(!is_unique(path, module), "{path} in {module}");
        }
    }

    #[test]
    fn crate_is_identified_by_the_compatible_part_of_its_version() {
        for (version, part) in [
            ("1.2.3", "1"),
            ("0.2.3", "0.2"),
            ("0.0.3", "0.0.3"),
            ("0.0.0", "0.0.0"),
            ("10.0.0-rc.1", "10"),
            ("", ""),
        ] {
            assert_eq!(compatible(version), part, "{version}");
        }
    }

    #[test]
    fn functions_of_one_name_in_two_blocks_have_two_identities() {
        let first = {
            fn get() -> FunctionId {
                fn of<T>(_: &T) -> FunctionId {
                    FunctionId::of::<T>()
                }
                of(&|| ())
            }
            get()
        };
        let second = {
            fn get() -> FunctionId {
                fn of<T>(_: &T) -> FunctionId {
                    FunctionId::of::<T>()
                }
                of(&|| ())
            }
            get()
        };
        assert_ne!(first, second);
    }

    #[test]
    fn store_keys_are_frozen_where_the_path_suffices() {
        static SITE: CacheSite = CacheSite::new("app", Some("1.2.3"), None);
        static OTHER: CacheSite = CacheSite::new("app", Some("1.9.0"), None);
        static BINARY: CacheSite = CacheSite::new("app", Some("1.2.3"), Some("app"));
        let key = |site: &'static CacheSite| {
            *site.find(FunctionId(1), "app::get::{{closure}}::{{closure}}").store_key.get().unwrap()
        };
        assert_eq!(key(&SITE), key(&OTHER));
        assert_ne!(key(&SITE), key(&BINARY));
        let hex = blake3::Hash::from_bytes(key(&SITE)).to_hex();
        assert_eq!(hex.as_str(), "8bc4b03287da92d21dd127f776e8fbc45e61d81e10e30aa81aa2799020940f27");
        assert!(SITE.find(FunctionId(2), "app::outer::get::{{closure}}").store_key.get().is_none());
    }
}
