//! One instance of a fleet as a process. It reads requests from stdin (see `protocol`) and exits when stdin
//! closes.

mod calls;
mod dependency;
mod functions;
mod health;
// The integration tests include this file, too.
#[allow(unreachable_pub)]
mod protocol;

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use cb_runtime::{Breaker, BreakerConfig, CacheTier, Events, Registry, RegistryConfig, Transition};
use serde::Serialize;
use tokio::runtime::Runtime;

use calls::{Group, Guard, micros};
use dependency::Scripted;
use protocol::{Change, ErrorReport, Event, Fleet, FleetRows, Override, Request, Seen, Settings, Target};

/// Worker threads of the runtime, as the acceptance scenarios ask for.
const THREADS: usize = 4;

fn main() {
    silence_scripted_panics();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .expect("a runtime");
    let mut instance = Instance {
        runtime,
        registry: None,
        events: None,
        seen_events: Vec::new(),
        errors: Arc::default(),
        breakers: HashMap::new(),
        groups: HashMap::new(),
        last_group: 0,
        blocked: None,
    };
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        let answer = match serde_json::from_str(&line) {
            Ok(request) => instance.handle(request),
            Err(error) => Err(format!("not a request: {error}: {line}")),
        };
        let mut out = std::io::stdout().lock();
        let answer = serde_json::to_string(&answer).expect("an answer serializes");
        // The write fails once the test's process has ended.
        if writeln!(out, "{answer}").and_then(|()| out.flush()).is_err() {
            return;
        }
    }
    // Dropping the runtime would wait for calls that hold.
    std::process::exit(0);
}

fn silence_scripted_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<Scripted>() {
            usual(info);
        }
    }));
}

struct Instance {
    /// The runtime of the guarded calls.
    runtime: Runtime,
    registry: Option<&'static Registry>,
    events: Option<Events>,
    seen_events: Vec<Event>,
    errors: Arc<Mutex<Vec<ErrorReport>>>,
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
    fn handle(&mut self, request: Request) -> Answer {
        match request {
            Request::Install { url, namespace, connects } => {
                self.install(url, namespace, RegistryConfig::default(), connects)
            }
            Request::InstallFrom { url, namespace, file } => {
                let config = RegistryConfig::load(file).map_err(|error| error.to_string())?;
                self.install(url, namespace, config, false)
            }
            Request::Reload { file } => {
                let config = RegistryConfig::load(file).map_err(|error| error.to_string())?;
                answer(self.registry()?.reload(config).map_err(|error| error.to_string())?)
            }
            Request::Create { breaker, config, checks } => {
                let mut config: BreakerConfig = serde_json::from_value(config).map_err(|e| e.to_string())?;
                if let Some(folder) = checks {
                    config = config.health_check(move || health::check(folder.clone()));
                }
                let made = self.registry()?.try_get_or_create(&breaker, config).map_err(|e| e.to_string())?;
                self.breakers.insert(breaker, made);
                answer(())
            }
            Request::Configure { function, config, cache_ttl_ms } => {
                let config = serde_json::from_value(config).map_err(|e| e.to_string())?;
                functions::configure(function, config, Duration::from_millis(cache_ttl_ms));
                answer(())
            }
            Request::Call { target, act, times } => {
                let group = Group::sequence(self.runtime.handle(), &self.guard(target)?, act, times);
                answer(self.runtime.block_on(group.ended()))
            }
            Request::Start { target, act, callers } => {
                let guard = self.guard(target)?;
                let group = Group::concurrent(self.runtime.handle(), &guard, act, callers);
                self.keep(group)
            }
            Request::Traffic { target, act, every_us } => {
                let guard = self.guard(target)?;
                let every = Duration::from_micros(every_us);
                let group = Group::traffic(self.runtime.handle(), &guard, act, every);
                self.keep(group)
            }
            Request::Each { function, first, count, act } => {
                let group = Group::each(self.runtime.handle(), function, first..first + count, act);
                answer(self.runtime.block_on(group.ended()))
            }
            Request::Registered => answer(self.registry()?.breaker_count()),
            Request::Progress { group } => answer(self.groups.get(&group).ok_or("no such group")?.calls()),
            Request::Finish { group, act } => {
                let group = self.groups.remove(&group).ok_or("no such group")?;
                answer(self.runtime.block_on(group.finish(act)))
            }
            Request::Drop { group } => {
                let group = self.groups.remove(&group).ok_or("no such group")?;
                answer(self.runtime.block_on(group.drop_calls()))
            }
            Request::Look { breaker } => self.look(&breaker),
            Request::Fleet => self.fleet(),
            Request::Events => answer(self.events()),
            Request::Errors => answer(&*self.errors.lock().unwrap_or_else(PoisonError::into_inner)),
            Request::Steer { breaker, action } => self.steer(&self.breaker(&breaker)?, &action),
            Request::SteerAs { breaker, action, actor, expires_in_ms } => {
                let mut breaker = self.breaker(&breaker)?.by(&actor);
                if let Some(ms) = expires_in_ms {
                    breaker = breaker.expires_in(Duration::from_millis(ms));
                }
                self.steer(&breaker, &action)
            }
            Request::ResetAll => {
                let reset = self.runtime.block_on(self.registry()?.reset_all());
                answer(reset.map_err(|error| error.to_string())?)
            }
            Request::Settings { breaker } => self.settings(&breaker),
            Request::Block => self.block(),
            Request::Unblock => {
                if let Some(blockade) = self.blocked.take() {
                    blockade.lift();
                }
                answer(())
            }
            Request::Shutdown => {
                self.runtime.block_on(self.registry()?.shutdown());
                answer(())
            }
        }
    }

    fn install(
        &mut self,
        url: Option<String>,
        namespace: String,
        config: RegistryConfig,
        connects: bool,
    ) -> Answer {
        let errors = self.errors.clone();
        let mut builder = Registry::builder().namespace(namespace).config(config).on_error(move |error| {
            errors.lock().unwrap_or_else(PoisonError::into_inner).push(error_report(error));
        });
        if let Some(url) = url {
            builder = builder.redis(url);
        }
        if connects {
            builder = builder.connect_timeout(Duration::from_secs(60));
        }
        let registry = builder.install().map_err(|error| error.to_string())?;
        self.events = Some(registry.subscribe());
        self.registry = Some(registry);
        answer(registry.instance())
    }

    fn registry(&self) -> Result<&'static Registry, String> {
        self.registry.ok_or_else(|| "no registry is installed".into())
    }

    /// Finds a breaker by name, including one that an annotated function registered.
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
            streak: snapshot.consecutive_failures,
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
                    streak: row.consecutive_failures,
                };
                (row.name, counts)
            })
            .collect();
        answer(rows)
    }

    fn events(&mut self) -> &[Event] {
        if let Some(events) = &mut self.events {
            while let Some(event) = events.try_recv() {
                self.seen_events.push(event_row(&event));
            }
            assert_eq!(events.lost(), 0, "the test polls events too rarely");
        }
        &self.seen_events
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

    fn steer(&self, breaker: &Breaker, action: &Override) -> Answer {
        let result = self.runtime.block_on(async {
            match action {
                Override::ForceOpen(reason) => breaker.force_open(reason).await,
                Override::Disable(reason) => breaker.disable(reason).await,
                Override::MetricsOnly(reason) => breaker.metrics_only(reason).await,
                Override::Release => breaker.release().await,
                Override::Reset => breaker.reset().await,
            }
        });
        answer(result.map_err(|error| error.to_string())?)
    }

    /// Blocks every worker thread of the runtime, and returns once all are blocked.
    fn block(&mut self) -> Answer {
        let blockade = Arc::new(Blockade::default());
        for _ in 0..THREADS {
            let blockade = blockade.clone();
            self.runtime.spawn(async move { blockade.block() });
        }
        blockade.wait_for(THREADS);
        self.blocked = Some(blockade);
        answer(())
    }
}

/// Blocks threads until it is lifted.
#[derive(Default)]
struct Blockade {
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Blockade {
    fn block(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        self.changed.notify_all();
        let _lifted = self.changed.wait_while(state, |(_, lifted)| !*lifted);
    }

    fn wait_for(&self, blocked: usize) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let _all = self.changed.wait_while(state, |(now, _)| *now < blocked);
    }

    fn lift(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.changed.notify_all();
    }
}

fn event_row(event: &cb_runtime::Event) -> Event {
    match event {
        cb_runtime::Event::Transition(transition) => Event::Transition(change(transition)),
        cb_runtime::Event::LocalTransition(transition) => Event::Local(change(transition)),
        cb_runtime::Event::WouldHaveOpened { breaker, reason } => {
            Event::WouldHaveOpened { breaker: breaker.to_string(), reason: reason.clone() }
        }
        cb_runtime::Event::CacheHit { breaker, tier, age } => Event::CacheHit {
            breaker: breaker.to_string(),
            shared: *tier == CacheTier::Shared,
            age_us: micros(*age),
        },
        cb_runtime::Event::HealthCheck { breaker, result, took } => Event::HealthCheck {
            breaker: breaker.to_string(),
            result: result.clone(),
            took_us: micros(*took),
        },
        cb_runtime::Event::StoreLost(_) => Event::StoreLost,
        cb_runtime::Event::StoreRestored => Event::StoreRestored,
        cb_runtime::Event::Error(error) => Event::Error(error_report(error)),
        other => panic!("an event without a counterpart in the protocol: {other:?}"),
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

fn error_report(error: &cb_runtime::Error) -> ErrorReport {
    ErrorReport {
        text: error.to_string(),
        is_data: error.is_data(),
        is_store: error.is_store(),
        is_cache: error.is_cache(),
        is_conflict: error.is_conflict(),
    }
}
