//! One instance of a fleet as a process of its own: it does what the lines on its stdin say (see
//! `protocol`) and ends with them.

mod calls;
mod dependency;
mod functions;
mod health;
// The tests include it, too.
#[allow(unreachable_pub)]
mod protocol;

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use cb_runtime::{Breaker, BreakerConfig, CacheTier, Event, Events, Registry, RegistryConfig, Transition};
use serde::Serialize;
use tokio::runtime::Runtime;

use calls::{Group, Guard, micros};
use dependency::Scripted;
use protocol::{Change, Fleet, FleetRows, Order, Seen, Settings, Target, Told, Trouble, Word};

/// As many threads as the scenarios ask for.
const THREADS: usize = 4;

fn main() {
    hush_scripted_panics();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .expect("a runtime");
    let mut instance = Instance {
        runtime,
        registry: None,
        events: None,
        told: Vec::new(),
        troubles: Arc::default(),
        breakers: HashMap::new(),
        groups: HashMap::new(),
        last_group: 0,
        blocked: None,
    };
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        let answer = match serde_json::from_str(&line) {
            Ok(order) => instance.obey(order),
            Err(error) => Err(format!("no order: {error}: {line}")),
        };
        let mut out = std::io::stdout().lock();
        let answer = serde_json::to_string(&answer).expect("a value is printable");
        // Nobody listens any more: the test has gone.
        if writeln!(out, "{answer}").and_then(|()| out.flush()).is_err() {
            return;
        }
    }
    // Calls that hold would keep the runtime from ending.
    std::process::exit(0);
}

fn hush_scripted_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<Scripted>() {
            usual(info);
        }
    }));
}

struct Instance {
    /// What the guarded calls run on.
    runtime: Runtime,
    registry: Option<&'static Registry>,
    events: Option<Events>,
    told: Vec<Told>,
    troubles: Arc<Mutex<Vec<Trouble>>>,
    breakers: HashMap<String, Breaker>,
    groups: HashMap<usize, Group>,
    last_group: usize,
    blocked: Option<Arc<Blockade>>,
}

type Answer = Result<serde_json::Value, String>;

fn answer(value: impl Serialize) -> Answer {
    serde_json::to_value(value).map_err(|error| error.to_string())
}

impl Instance {
    fn obey(&mut self, order: Order) -> Answer {
        match order {
            Order::Install { url, namespace } => self.install(url, namespace, RegistryConfig::default()),
            Order::InstallFrom { url, namespace, file } => {
                let config = RegistryConfig::load(file).map_err(|error| error.to_string())?;
                self.install(url, namespace, config)
            }
            Order::Reload { file } => {
                let config = RegistryConfig::load(file).map_err(|error| error.to_string())?;
                answer(self.registry()?.reload(config).map_err(|error| error.to_string())?)
            }
            Order::Create { breaker, config, checks } => {
                let mut config: BreakerConfig = serde_json::from_value(config).map_err(|e| e.to_string())?;
                if let Some(folder) = checks {
                    config = config.health_check(move || health::check(folder.clone()));
                }
                let made = self.registry()?.try_get_or_create(&breaker, config).map_err(|e| e.to_string())?;
                self.breakers.insert(breaker, made);
                answer(())
            }
            Order::Configure { function, config, cache_ttl_ms } => {
                let config = serde_json::from_value(config).map_err(|e| e.to_string())?;
                functions::configure(function, config, Duration::from_millis(cache_ttl_ms));
                answer(())
            }
            Order::Call { target, act, times } => {
                let group = Group::sequence(self.runtime.handle(), &self.guard(target)?, act, times);
                answer(self.runtime.block_on(group.ended()))
            }
            Order::Start { target, act, callers } => {
                let guard = self.guard(target)?;
                let group = Group::crowd(self.runtime.handle(), &guard, act, callers);
                self.keep(group)
            }
            Order::Traffic { target, act, every_us } => {
                let guard = self.guard(target)?;
                let every = Duration::from_micros(every_us);
                let group = Group::traffic(self.runtime.handle(), &guard, act, every);
                self.keep(group)
            }
            Order::Each { function, first, count, act } => {
                let group = Group::each(self.runtime.handle(), function, first..first + count, act);
                answer(self.runtime.block_on(group.ended()))
            }
            Order::Registered => answer(self.registry()?.breakers().len()),
            Order::Progress { group } => answer(self.groups.get(&group).ok_or("no such group")?.calls()),
            Order::Finish { group, act } => {
                let group = self.groups.remove(&group).ok_or("no such group")?;
                answer(self.runtime.block_on(group.finish(act)))
            }
            Order::Drop { group } => {
                let group = self.groups.remove(&group).ok_or("no such group")?;
                answer(self.runtime.block_on(group.drop_calls()))
            }
            Order::Look { breaker } => self.look(&breaker),
            Order::Fleet => self.fleet(),
            Order::Events => answer(self.events()),
            Order::Troubles => answer(&*self.troubles.lock().unwrap_or_else(PoisonError::into_inner)),
            Order::Say { breaker, word } => self.say(&self.breaker(&breaker)?, &word),
            Order::SayAs { breaker, word, actor, at_most_ms } => {
                let mut breaker = self.breaker(&breaker)?.by(&actor);
                if let Some(ms) = at_most_ms {
                    breaker = breaker.expires_in(Duration::from_millis(ms));
                }
                self.say(&breaker, &word)
            }
            Order::ResetAll => {
                let reset = self.runtime.block_on(self.registry()?.reset_all());
                answer(reset.map_err(|error| error.to_string())?)
            }
            Order::Settings { breaker } => self.settings(&breaker),
            Order::Block => self.block(),
            Order::Unblock => {
                if let Some(blockade) = self.blocked.take() {
                    blockade.lift();
                }
                answer(())
            }
            Order::Shutdown => {
                self.runtime.block_on(self.registry()?.shutdown());
                answer(())
            }
        }
    }

    fn install(&mut self, url: Option<String>, namespace: String, config: RegistryConfig) -> Answer {
        let troubles = self.troubles.clone();
        let mut builder = Registry::builder().namespace(namespace).config(config).on_error(move |error| {
            troubles.lock().unwrap_or_else(PoisonError::into_inner).push(trouble(error));
        });
        if let Some(url) = url {
            builder = builder.redis(url);
        }
        let registry = builder.install().map_err(|error| error.to_string())?;
        self.events = Some(registry.subscribe());
        self.registry = Some(registry);
        answer(registry.instance())
    }

    fn registry(&self) -> Result<&'static Registry, String> {
        self.registry.ok_or_else(|| "no registry is installed".into())
    }

    /// A breaker that an annotated function has registered is found under its name, too.
    fn breaker(&self, name: &str) -> Result<Breaker, String> {
        let known = self.breakers.get(name).cloned();
        let found = known.or_else(|| self.registry?.breaker(name));
        found.ok_or_else(|| format!("there is no breaker {name}"))
    }

    fn guard(&self, target: Target) -> Result<Guard, String> {
        Ok(match target {
            Target::Breaker(name) => Guard::Breaker(self.breaker(&name)?),
            Target::Function(function, argument) => Guard::Function(function, argument),
        })
    }

    fn keep(&mut self, group: Group) -> Answer {
        self.last_group += 1;
        self.groups.insert(self.last_group, group);
        answer(self.last_group)
    }

    fn look(&self, name: &str) -> Answer {
        let snapshot = self.breaker(name)?.snapshot();
        answer(Seen {
            state: snapshot.state,
            epoch: snapshot.epoch,
            local: snapshot.local,
            reason: snapshot.reason,
            actor: snapshot.actor,
            retry_after_us: snapshot.retry_after.map(micros),
            failures: snapshot.failures,
            successes: snapshot.successes,
            run: snapshot.consecutive_failures,
            late: snapshot.outcomes.late,
            slow: snapshot.outcomes.slow,
            ramp_rejected: snapshot.outcomes.ramp_rejected,
            cancelled: snapshot.outcomes.cancelled,
        })
    }

    fn fleet(&self) -> Answer {
        let rows = self.runtime.block_on(self.registry()?.fleet()).map_err(|error| error.to_string())?;
        let rows: FleetRows = rows
            .into_iter()
            .map(|row| {
                let counts = Fleet {
                    state: row.state,
                    epoch: row.epoch,
                    actor: row.actor,
                    failures: row.failures,
                    successes: row.successes,
                    run: row.consecutive_failures,
                };
                (row.name, counts)
            })
            .collect();
        answer(rows)
    }

    fn events(&mut self) -> &[Told] {
        if let Some(events) = &mut self.events {
            while let Some(event) = events.try_recv() {
                self.told.push(told(&event));
            }
            assert_eq!(events.lost(), 0, "the test asks too rarely");
        }
        &self.told
    }

    fn settings(&self, name: &str) -> Answer {
        let settings = self.breaker(name)?.snapshot().settings;
        let origin =
            |origin| serde_json::to_value(origin).map(|text| text.as_str().unwrap_or_default().to_owned());
        let settings: Result<Settings, _> = settings
            .into_iter()
            .map(|setting| Ok((setting.name.to_owned(), (setting.value, origin(setting.origin)?))))
            .collect();
        answer(settings.map_err(|error: serde_json::Error| error.to_string())?)
    }

    fn say(&self, breaker: &Breaker, word: &Word) -> Answer {
        let said = self.runtime.block_on(async {
            match word {
                Word::ForceOpen(reason) => breaker.force_open(reason).await,
                Word::Disable(reason) => breaker.disable(reason).await,
                Word::MetricsOnly(reason) => breaker.metrics_only(reason).await,
                Word::Release => breaker.release().await,
                Word::Reset => breaker.reset().await,
            }
        });
        answer(said.map_err(|error| error.to_string())?)
    }

    /// Returns once every thread of the runtime stands still.
    fn block(&mut self) -> Answer {
        let blockade = Arc::new(Blockade::default());
        for _ in 0..THREADS {
            let blockade = blockade.clone();
            self.runtime.spawn(async move { blockade.stand() });
        }
        blockade.wait_for(THREADS);
        self.blocked = Some(blockade);
        answer(())
    }
}

/// Keeps threads standing still until it is lifted.
#[derive(Default)]
struct Blockade {
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Blockade {
    fn stand(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        self.changed.notify_all();
        let _lifted = self.changed.wait_while(state, |(_, lifted)| !*lifted);
    }

    fn wait_for(&self, standing: usize) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let _all = self.changed.wait_while(state, |(now, _)| *now < standing);
    }

    fn lift(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.changed.notify_all();
    }
}

fn told(event: &Event) -> Told {
    match event {
        Event::Transition(transition) => Told::Transition(change(transition)),
        Event::LocalTransition(transition) => Told::Local(change(transition)),
        Event::WouldHaveOpened { breaker, reason } => {
            Told::WouldHaveOpened { breaker: breaker.to_string(), reason: reason.clone() }
        }
        Event::CacheHit { breaker, tier, age } => Told::CacheHit {
            breaker: breaker.to_string(),
            shared: *tier == CacheTier::Shared,
            age_us: micros(*age),
        },
        Event::HealthCheck { breaker, result, took } => {
            Told::HealthCheck { breaker: breaker.to_string(), result: result.clone(), took_us: micros(*took) }
        }
        Event::StoreLost(_) => Told::StoreLost,
        Event::StoreRestored => Told::StoreRestored,
        Event::Error(error) => Told::Error(trouble(error)),
        other => panic!("an event that the tests do not know: {other:?}"),
    }
}

fn change(transition: &Transition) -> Change {
    Change {
        breaker: transition.breaker.to_string(),
        epoch: transition.epoch,
        from: transition.from,
        to: transition.to,
        originator: transition.originator.clone(),
        own: transition.own,
        reason: transition.reason.clone(),
        actor: transition.actor.clone(),
        open_for_ms: transition.open_for.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
    }
}

fn trouble(error: &cb_runtime::Error) -> Trouble {
    Trouble {
        text: error.to_string(),
        is_data: error.is_data(),
        is_store: error.is_store(),
        is_cache: error.is_cache(),
        is_conflict: error.is_conflict(),
    }
}
