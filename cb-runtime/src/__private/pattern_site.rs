//! The static of an annotated function whose breaker's name contains arguments. It holds the settings; the
//! breaker is looked up at each call.

use std::fmt::{self, Write};
use std::panic::Location;
use std::ptr::fn_addr_eq;
use std::sync::{Arc, Mutex, OnceLock};

use super::keyed_settings::KeyedSettings;
use super::name_part::NamePart;
use super::site::MakeSettings;
use super::thread_table;
use crate::breakers::SiteBreaker;
use crate::registry::Registry;
use crate::sync::lock;

/// The static in an annotated function whose breaker's name contains arguments.
pub struct PatternSite {
    /// The name as it stands in the attribute.
    pattern: &'static str,
    at: &'static Location<'static>,
    first: OnceLock<KeyedSettings>,
    /// The settings of a generic function's other types; see `Site::others`.
    others: Mutex<Vec<&'static KeyedSettings>>,
}

impl PatternSite {
    /// The site of a function with that name in its attribute.
    #[track_caller]
    pub const fn new(pattern: &'static str) -> Self {
        PatternSite {
            pattern,
            at: Location::caller(),
            first: OnceLock::new(),
            others: Mutex::new(Vec::new()),
        }
    }

    /// The breaker of that name in the global registry. `parts` are the arguments in the name; `name` is
    /// written only if this thread has not called the breaker before. `settings` is called once for each type
    /// of a generic function.
    pub fn global(
        &'static self,
        parts: &[NamePart<'_>],
        name: fmt::Arguments<'_>,
        settings: MakeSettings,
    ) -> Arc<SiteBreaker> {
        #[cfg(feature = "test-util")]
        if let Some(registry) = crate::testing::scoped() {
            return self.within(&registry, parts, name, settings);
        }
        self.within(Registry::global(), parts, name, settings)
    }

    /// The breaker of that name in a registry that the attribute names.
    #[inline]
    pub fn within(
        &'static self,
        registry: &Registry,
        parts: &[NamePart<'_>],
        name: fmt::Arguments<'_>,
        settings: MakeSettings,
    ) -> Arc<SiteBreaker> {
        let settings = match self.first.get() {
            Some(first) if fn_addr_eq(first.made_by, settings) => first,
            _ => self.make(registry, settings),
        };
        match thread_table::find(registry.id(), settings, parts) {
            Some(breaker) => {
                registry.used(&breaker);
                breaker
            }
            None => by_text(registry, settings, parts, name),
        }
    }

    #[cold]
    fn make(&'static self, registry: &Registry, settings: MakeSettings) -> &'static KeyedSettings {
        let new = || KeyedSettings::new(self.pattern, self.at, registry, settings);
        let first = self.first.get_or_init(new);
        if fn_addr_eq(first.made_by, settings) {
            return first;
        }
        let mut others = lock(&self.others);
        if let Some(found) = others.iter().find(|other| fn_addr_eq(other.made_by, settings)) {
            return found;
        }
        let other: &'static KeyedSettings = Box::leak(Box::new(new()));
        others.push(other);
        other
    }
}

/// Looks a breaker up by the text of its name: this thread has not called it yet, the name is long, or a part
/// has a type that can only be compared as text.
#[cold]
#[inline(never)]
fn by_text(
    registry: &Registry,
    settings: &'static KeyedSettings,
    parts: &[NamePart<'_>],
    name: fmt::Arguments<'_>,
) -> Arc<SiteBreaker> {
    let name = Name::of(name);
    // The table does not keep long names, so that it stays small.
    let Some(short) = name.short() else { return look_up(registry, settings, &name, None) };
    if !parts.iter().any(|part| matches!(part, NamePart::Other)) {
        return look_up(registry, settings, &name, Some(parts));
    }
    let whole = [NamePart::Text(short)];
    match thread_table::find(registry.id(), settings, &whole) {
        Some(breaker) => {
            registry.used(&breaker);
            breaker
        }
        None => look_up(registry, settings, &name, Some(&whole)),
    }
}

fn look_up(
    registry: &Registry,
    settings: &'static KeyedSettings,
    name: &Name,
    kept_by: Option<&[NamePart<'_>]>,
) -> Arc<SiteBreaker> {
    let breaker = name.with(|name| registry.keyed(name, &settings.config, settings.site));
    if let (Ok(breaker), Some(parts)) = (&breaker, kept_by) {
        thread_table::keep(registry.id(), settings, parts, breaker);
    }
    breaker.unwrap_or_else(|breaker| breaker)
}

/// Names of up to this many bytes are written on the stack and used unchanged.
const SHORT: usize = 200;

/// A name that is being written: on the stack while it is short.
struct Name {
    bytes: [u8; SHORT],
    len: usize,
    /// The whole name, once it is longer than [`SHORT`].
    long: String,
}

impl Name {
    #[inline]
    fn of(text: fmt::Arguments<'_>) -> Self {
        let mut name = Name { bytes: [0; SHORT], len: 0, long: String::new() };
        // If an argument's `Display` fails, the name ends there: that must not fail the call.
        let _ = name.write_fmt(text);
        name
    }

    /// The whole name, if it is short.
    #[inline]
    fn short(&self) -> Option<&str> {
        let text =
            || std::str::from_utf8(&self.bytes[..self.len]).expect("whole texts have been put together");
        self.long.is_empty().then(text)
    }

    /// Shortens a longer name to its beginning and a digest of the whole. The result is longer than any short
    /// name, so a caller cannot choose arguments that make two names collide.
    fn with<T>(&self, then: impl FnOnce(&str) -> T) -> T {
        if let Some(short) = self.short() {
            return then(short);
        }
        let digest = blake3::hash(self.long.as_bytes()).to_hex();
        let end =
            (SHORT..=self.long.len()).find(|at| self.long.is_char_boundary(*at)).expect("its end is one");
        let beginning = &self.long[..end];
        then(&format!("{beginning}~{digest}"))
    }
}

impl Write for Name {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        if self.long.is_empty() {
            if let Some(free) = self.bytes.get_mut(self.len..end) {
                free.copy_from_slice(text.as_bytes());
                self.len = end;
                return Ok(());
            }
            self.long.push_str(std::str::from_utf8(&self.bytes[..self.len]).expect("as above"));
        }
        self.long.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ptr;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::clock::Clock;

    /// Threads look breakers up while another thread evicts all unused breakers, over and over.
    #[test]
    fn breaker_in_use_is_not_evicted_and_an_evicted_one_is_not_found() {
        static SITE: PatternSite = PatternSite::new("tenant-{id}");
        const NAMES: u64 = 3;
        let (clock, time) = Clock::manual();
        let registry = Registry::builder().clock(clock.clone()).build().unwrap();
        let over = AtomicBool::new(false);
        let look_up = || {
            for turn in (0_u64..).take_while(|_| !over.load(Ordering::Relaxed)) {
                let name = format!("tenant-{}", turn % NAMES);
                let breaker = SITE.within(
                    &registry,
                    &[NamePart::Text(&name)],
                    format_args!("{name}"),
                    super::super::settings,
                );
                let registered = registry.map().get(&name);
                assert!(registered.is_some_and(|core| ptr::eq(Arc::as_ptr(&core), breaker.core())), "{name}");
            }
        };
        let sweep = || {
            let before = registry.map().registered().len();
            time.advance(Duration::from_secs(601));
            registry.map().sweep(clock.now());
            before.saturating_sub(registry.map().registered().len())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(look_up)).collect();
            let begin = Instant::now();
            let mut evicted = 0;
            while evicted < 100 && begin.elapsed() < Duration::from_secs(60) {
                evicted += sweep();
            }
            over.store(true, Ordering::Relaxed);
            for thread in threads {
                thread.join().unwrap();
            }
            assert!(evicted >= 100, "{evicted}");
        });
        // The coordinator may hold a breaker for a moment, and a held breaker is not evicted.
        let begin = Instant::now();
        while !registry.map().registered().is_empty() {
            assert!(begin.elapsed() < Duration::from_secs(60), "threads that have ended hold nothing");
            sweep();
        }
    }

    fn name(text: &str) -> String {
        // In two pieces, as a name with arguments is written in pieces.
        let middle = (text.len() / 2..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap();
        let (first, second) = text.split_at(middle);
        Name::of(format_args!("{first}{second}")).with(ToOwned::to_owned)
    }

    #[test]
    fn short_name_equals_the_formatted_text() {
        for text in ["", "tenant-1", "größe", &"x".repeat(SHORT)] {
            assert_eq!(name(text), text);
        }
    }

    #[test]
    fn long_name_is_shortened_and_stays_distinct() {
        for filling in ["x", "ß", "🦀"] {
            let long = filling.repeat(100_000);
            let [one, other] = [format!("{long}1"), format!("{long}2")].map(|text| name(&text));
            assert_ne!(one, other);
            assert!(one.len() > SHORT && one.len() < 300, "{one}");
            assert_ne!(name(&one), one, "the shortened name is a name of its own");
        }
    }
}
