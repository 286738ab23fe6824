//! An instance's posts to the fleet: its sign of life, its breakers' settings, and figures about its calls.
//!
//! The sign of life is a small field of a hash, written once in [`PACE`]. Settings are written when they have
//! changed, figures only while the fleet is observed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::breaker::context::RegistryContext;
use crate::breaker::{Core, Figures};
use crate::breakers::BreakerMap;
use crate::clock::{Moment, micros, wall};
use crate::config::drift;
use crate::error::Error;
use crate::snapshot::{InstanceInfo, Origin, Outcomes};
use crate::store::{Overview, Topic};
use crate::strategy::Calls;

/// The interval of signs of life while the fleet is not observed.
const PACE: Duration = Duration::from_secs(5);
/// The interval of signs of life while the fleet is observed.
const WATCHED_PACE: Duration = Duration::from_secs(1);
/// The bytes of figures that an instance posts per second while the fleet is observed.
const BYTES_A_SECOND: usize = 20_000;
/// The delay before an unreachable store is tried again.
const PAUSE: Duration = Duration::from_millis(250);
/// An instance without a sign of life for this long is gone, or cut off.
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(15);
/// An instance that has been silent for longer is no longer listed.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);
/// An instance looks for forgotten ones, at random, once in this many signs of life: once an hour.
const SIGNS_PER_LOOK: u32 = 720;
/// The number of instances that it looks at.
const LOOKED_AT: usize = 100;
/// Settings are posted again after this many signs of life, because the store may have lost them.
const REPEATED_AFTER: u32 = 60;
/// The largest number of breakers in an instance's posts. Pinned ones come first.
const MOST_BREAKERS: usize = 2000;

/// The description of an instance that the store keeps.
#[derive(Serialize, Deserialize)]
pub(super) struct About {
    node: String,
    host: String,
    pid: u32,
    version: String,
    started_us: u64,
    pub(super) seen_us: u64,
}

impl About {
    fn of(context: &RegistryContext, started_us: u64) -> Self {
        About {
            node: context.node.to_string(),
            host: super::node::host(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_us,
            seen_us: context.unix_us(context.store_now()),
        }
    }

    /// `None` for an instance that is no longer listed, and for a text that is no description. If `seen_us`
    /// lies in the future, the store's clock was set back, and an instance that lives sends another sign of
    /// life.
    pub(super) fn read(text: &str, now_us: u64) -> Option<Self> {
        let about: About = serde_json::from_str(text).ok()?;
        (now_us.abs_diff(about.seen_us) < micros(FORGOTTEN_AFTER)).then_some(about)
    }

    pub(super) fn info(self, id: &str, now_us: u64, own: &str) -> InstanceInfo {
        let silent_for = Duration::from_micros(now_us.abs_diff(self.seen_us));
        InstanceInfo {
            id: id.to_owned(),
            node: self.node,
            host: self.host,
            pid: self.pid,
            version: self.version,
            started_at: wall(self.started_us),
            last_seen: wall(self.seen_us),
            degraded: silent_for > SILENT_AFTER,
            own: id == own,
        }
    }
}

impl Figures {
    /// As numbers in a fixed order, without the zeros at the end.
    fn numbers(&self) -> Vec<u64> {
        let Outcomes {
            success,
            failure,
            slow,
            ignored,
            cancelled,
            late,
            rejected,
            ramp_rejected,
            cached,
            fallback,
        } = self.outcomes;
        let window = self.window.map_or([0; 4], |w| [1, w.successes, w.failures, w.slow]);
        let mut all = vec![success, failure, slow, ignored, cancelled, late, rejected, ramp_rejected, cached];
        all.extend(window);
        all.extend([self.would_have_opened, self.would_have_opened_us, self.is_isolated.into(), fallback]);
        while all.last() == Some(&0) {
            all.pop();
        }
        all
    }

    fn of_numbers(numbers: &[u64]) -> Self {
        let at = |place: usize| numbers.get(place).copied().unwrap_or(0);
        let outcomes = Outcomes {
            success: at(0),
            failure: at(1),
            slow: at(2),
            ignored: at(3),
            cancelled: at(4),
            late: at(5),
            rejected: at(6),
            ramp_rejected: at(7),
            cached: at(8),
            fallback: at(16),
        };
        let window = Calls { successes: at(10), failures: at(11), slow: at(12) };
        Figures {
            outcomes,
            window: (at(9) == 1).then_some(window),
            would_have_opened: at(13),
            would_have_opened_us: at(14),
            is_isolated: at(15) == 1,
        }
    }
}

/// Figures by breaker.
pub(super) fn read_figures(text: &str) -> BTreeMap<String, Figures> {
    let numbers: BTreeMap<String, Vec<u64>> = serde_json::from_str(text).unwrap_or_default();
    numbers.into_iter().map(|(name, numbers)| (name, Figures::of_numbers(&numbers))).collect()
}

fn written_figures(breakers: &BreakerMap) -> String {
    let mut numbers = BTreeMap::new();
    for core in breakers.first(MOST_BREAKERS) {
        let figures = core.figures().numbers();
        if !figures.is_empty() {
            numbers.insert(core.name().to_string(), figures);
        }
    }
    serde_json::to_string(&numbers).unwrap_or_default()
}

/// An instance's settings of a breaker.
#[derive(Serialize, Deserialize)]
pub(super) struct ReportedSettings {
    /// Those that are not built in, as in [`drift`](crate::config::drift).
    pub(super) line: String,
    /// Where each of them comes from.
    #[serde(default)]
    pub(super) origins: BTreeMap<String, Origin>,
    /// The name is the one in the attribute of a keyed breaker.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) is_keyed: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_false(value: &bool) -> bool {
    !value
}

/// By name, and keyed breakers by the name in their attribute.
fn written_settings(settings: &BTreeMap<String, (Arc<str>, Arc<Core>)>) -> String {
    let reported = settings.iter().map(|(name, (line, core))| {
        let given = drift::parsed(line);
        let shown = core.snapshot().settings.into_iter();
        let shown = shown.filter(|setting| given.contains_key(setting.name));
        let origins = shown.map(|setting| (setting.name.to_owned(), setting.origin)).collect();
        let is_keyed = **core.name() != **name;
        (name, ReportedSettings { line: line.to_string(), origins, is_keyed })
    });
    serde_json::to_string(&reported.collect::<BTreeMap<_, _>>()).unwrap_or_default()
}

/// What an instance has reported of its breakers' settings.
pub(super) fn read_settings(text: &str) -> BTreeMap<String, ReportedSettings> {
    serde_json::from_str(text).unwrap_or_default()
}

/// Posts about this instance until it has ended, or the task is aborted.
pub(super) async fn announce(
    context: Arc<RegistryContext>,
    breakers: Arc<BreakerMap>,
    overview: Arc<dyn Overview>,
) {
    let started_us = context.clock.epoch_us().saturating_add(context.clock.now().0);
    let mut posted = Posted::default();
    while !context.has_ended() {
        let pace = if context.store_up() {
            let was_watched = posted.watched;
            let posts = posted.posts(&context, &breakers, started_us);
            let figures = posts.iter().find(|(topic, _)| *topic == Topic::Figures);
            let figures = figures.map_or(0, |(_, text)| text.len());
            let looks =
                posts.iter().any(|(topic, _)| *topic == Topic::About) && fastrand::u32(..SIGNS_PER_LOOK) == 0;
            match overview.post(context.instance.clone(), posts).await {
                Ok(watched) => {
                    posted.watched = watched;
                    if looks {
                        let now_us = context.unix_us(context.store_now());
                        let _ = forget_silent(&*overview, now_us).await;
                    }
                }
                // The coordinator finds out by itself, and reports it.
                Err(_) => posted = Posted::default(),
            }
            match (was_watched, posted.watched) {
                // A reader has begun to watch the fleet, and waits for figures.
                (false, true) => Duration::ZERO,
                (true, true) => watched_pace(figures),
                (_, false) => PACE,
            }
        } else {
            PAUSE
        };
        // Instances that were started at once do not go on to post at once.
        tokio::time::sleep(pace.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
    }
}

/// Removes the posts of instances that were killed. Posts do not expire one by one: every live instance
/// renews the time to live of all posts, and only programs that list the instances remove others'.
async fn forget_silent(overview: &dyn Overview, now_us: u64) -> Result<(), Error> {
    loop {
        let looked_at = overview.some_posts(Topic::About, LOOKED_AT).await?;
        let count = looked_at.len();
        let gone = looked_at.into_iter().filter(|(_, text)| About::read(text, now_us).is_none());
        let gone: Vec<_> = gone.map(|(instance, _)| instance).collect();
        let are_many = gone.len() * 4 > count;
        if !gone.is_empty() {
            overview.forget(gone).await?;
        }
        // It goes on while it finds many, as Redis does with keys that expire.
        if !are_many {
            return Ok(());
        }
    }
}

/// Figures of thousands of breakers are posted less often: a look at a large fleet must not fill the network.
fn watched_pace(bytes: usize) -> Duration {
    (WATCHED_PACE * u32::try_from(bytes / BYTES_A_SECOND).unwrap_or(u32::MAX).clamp(1, 5)).min(PACE)
}

/// What the store has of this instance.
#[derive(Default)]
struct Posted {
    watched: bool,
    settings: BTreeMap<String, Arc<str>>,
    figures: String,
    /// When the latest sign of life was given.
    alive_at: Option<Moment>,
    signs: u32,
}

impl Posted {
    fn posts(
        &mut self,
        context: &RegistryContext,
        breakers: &BreakerMap,
        started_us: u64,
    ) -> Vec<(Topic, String)> {
        let mut posts = Vec::new();
        let now = context.clock.now();
        // While figures are posted more often, signs of life keep their pace.
        if self.alive_at.is_none_or(|at| now.since(at) >= PACE.mul_f64(0.9)) {
            self.alive_at = Some(now);
            let about = About::of(context, started_us);
            posts.push((Topic::About, serde_json::to_string(&about).unwrap_or_default()));
            let layers = context.layers();
            let settings = breakers.settings_lines(MOST_BREAKERS, |name| layers.configures(name));
            drop(layers);
            let lines: BTreeMap<_, _> =
                settings.iter().map(|(name, (line, _))| (name.clone(), line.clone())).collect();
            if lines != self.settings || self.signs.is_multiple_of(REPEATED_AFTER) {
                self.settings = lines;
                posts.push((Topic::Settings, written_settings(&settings)));
            }
            self.signs = self.signs.wrapping_add(1);
        }
        if self.watched {
            let figures = written_figures(breakers);
            if figures != self.figures {
                self.figures.clone_from(&figures);
                posts.push((Topic::Figures, figures));
            }
        } else {
            // The next reader finds the figures of that time.
            self.figures.clear();
        }
        posts
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::cache::Cache;
    use crate::clock::Clock;
    use crate::config::CacheLimits;
    use crate::event::EventBus;
    use crate::store::memory::MemoryStore;

    #[tokio::test(start_paused = true)]
    async fn killed_instance_is_forgotten_though_nobody_looks() {
        let (clock, hands) = Clock::manual();
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let breakers = Arc::new(BreakerMap::new(16, clock.now()));
        let instance = |id: &str| {
            let cache = Cache::new(clock.clone(), CacheLimits::default(), Arc::new(|_| ()));
            let (events, up) = (Arc::new(EventBus::new(None)), Arc::new(AtomicBool::new(true)));
            RegistryContext::new(id.into(), clock.clone(), events, cache, up)
        };
        let about = serde_json::to_string(&About::of(&instance("killed"), 1)).unwrap();
        let posts = vec![(Topic::About, about), (Topic::Settings, "{}".to_owned())];
        store.post("killed".into(), posts).await.unwrap();
        let announcing = tokio::spawn(announce(Arc::new(instance("live")), breakers, store.clone()));
        let ids = async |topic| {
            let posts = store.posts(topic).await.unwrap();
            posts.into_iter().map(|(id, _)| id.to_string()).collect::<Vec<_>>()
        };
        let pass = async || {
            hands.advance(PACE);
            tokio::time::sleep(PACE).await;
        };
        for _ in 0..FORGOTTEN_AFTER.as_secs() / PACE.as_secs() - 1 {
            pass().await;
        }
        assert_eq!(ids(Topic::About).await, ["killed", "live"]);
        // An instance looks at random.
        let mut passes = 0;
        while ids(Topic::About).await != ["live"] {
            pass().await;
            passes += 1;
            assert!(passes < 100 * SIGNS_PER_LOOK);
        }
        assert_eq!(ids(Topic::Settings).await, ["live"]);
        announcing.abort();
    }

    #[test]
    fn killed_instance_is_forgotten_though_the_stores_clock_was_set_back() {
        let now_us = 1_700_000_000_000_000;
        let degraded = |ahead: Duration| {
            let seen_us = now_us + micros(ahead);
            let about = About {
                node: "n".into(),
                host: "h".into(),
                pid: 1,
                version: "0".into(),
                started_us: 1,
                seen_us,
            };
            let read = About::read(&serde_json::to_string(&about).unwrap(), now_us);
            read.map(|about| about.info("killed", now_us, "own").degraded)
        };
        assert_eq!(degraded(SILENT_AFTER), Some(false));
        assert_eq!(degraded(SILENT_AFTER * 2), Some(true));
        assert_eq!(degraded(FORGOTTEN_AFTER), None);
    }

    #[cfg(feature = "redis")]
    #[tokio::test]
    async fn many_killed_instances_are_forgotten_in_small_requests() {
        use crate::store::redis::{RedisStore, Target};

        let now_us = 2 * micros(FORGOTTEN_AFTER);
        let post = |seen_us: u64| {
            format!(r#"{{"node":"n","host":"h","pid":1,"version":"0","started_us":1,"seen_us":{seen_us}}}"#)
        };
        let fill = "for i = 1, tonumber(ARGV[3]) do redis.call('HSET', KEYS[1], ARGV[1]..i, ARGV[2]) end";
        for protocol in ["resp2", "resp3"] {
            let redis = cb_testkit::RedisServer::start();
            let boards = ["instances", "settings"].map(|topic| format!("cb1:{{test}}:{topic}"));
            for board in &boards {
                for (id, seen_us, count) in [("killed-", 1, "5000"), ("live-", now_us, "30")] {
                    redis.cli(&["EVAL", fill, "1", board, id, &post(seen_us), count]);
                }
            }
            let url = format!("{}/?protocol={protocol}", redis.url());
            let store = RedisStore::new(Target::Single(url), "test").unwrap().patient();
            let some = store.some_posts(Topic::About, LOOKED_AT).await.unwrap();
            assert_eq!(some.len(), LOOKED_AT, "{protocol}");
            let mut looks = 0;
            while redis.cli(&["HLEN", &boards[0]]) != "30" {
                forget_silent(&store, now_us).await.unwrap();
                looks += 1;
                assert!(looks < 1000, "{protocol}: {}", redis.cli(&["HLEN", &boards[0]]));
            }
            assert_eq!(redis.cli(&["HLEN", &boards[1]]), "30", "{protocol}");
        }
    }

    #[test]
    fn figures_are_read_back_and_other_texts_are_ignored() {
        let outcomes = Outcomes { success: 1, failure: 2, rejected: 7, cached: 9, ..Outcomes::default() };
        let window = Some(Calls { successes: 3, failures: 4, slow: 0 });
        for figures in [
            Figures { outcomes, window, ..Figures::default() },
            Figures { outcomes, ..Figures::default() },
            Figures { would_have_opened: 2, would_have_opened_us: 1 << 50, ..Figures::default() },
            Figures { is_isolated: true, ..Figures::default() },
            Figures { window: Some(Calls::default()), ..Figures::default() },
            Figures::default(),
        ] {
            assert_eq!(Figures::of_numbers(&figures.numbers()), figures);
        }
        for text in ["", "[]", "{\"a\": 1}", "{\"a\": [-1]}", "\u{0}"] {
            assert!(read_figures(text).is_empty(), "{text:?}");
        }
        assert_eq!(Figures { outcomes, ..Figures::default() }.numbers(), [1, 2, 0, 0, 0, 0, 7, 0, 9]);
    }
}
