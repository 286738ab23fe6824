//! The test's handle on one process of the fleet.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cb_runtime::State;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Checks;
use super::protocol::{
    Act, Calls, Change, Ended, ErrorReport, Event, Fleet, FleetRows, Function, Override, Request, Seen,
    Settings, Target,
};

/// The limit of a wait for an answer.
const ANSWER: Duration = Duration::from_secs(60);

/// One instance of a fleet: a process with a registry. Dropping the handle kills the process.
pub struct Instance {
    /// Identifies the instance in panic messages.
    label: String,
    id: String,
    child: Mutex<Child>,
    pipe: Mutex<Pipe>,
}

struct Pipe {
    requests: ChildStdin,
    answers: Receiver<String>,
}

impl Instance {
    /// Starts a process whose registry uses the Redis at `url`, in the namespace `"tests"`.
    #[track_caller]
    pub fn on(url: &str) -> Instance {
        Instance::in_namespace(url, "tests")
    }

    /// Starts a process whose registry uses the Redis at `url`, which may be away.
    #[track_caller]
    pub fn without_store(url: &str) -> Instance {
        let request = Request::Install { url: Some(url.into()), namespace: "tests".into(), connects: false };
        Instance::bare().installed(&request)
    }

    /// Starts a process whose registry uses the Redis at `url`, in `namespace`.
    #[track_caller]
    pub fn in_namespace(url: &str, namespace: &str) -> Instance {
        let request = Request::Install { url: Some(url.into()), namespace: namespace.into(), connects: true };
        Instance::bare().installed(&request)
    }

    /// Starts a process whose registry also reads `file` and these environment variables.
    #[track_caller]
    pub fn configured(url: &str, file: &Path, variables: &[(&str, &str)]) -> Instance {
        let request =
            Request::InstallFrom { url: Some(url.into()), namespace: "tests".into(), file: file.into() };
        Instance::with_environment(variables).installed(&request)
    }

    /// Starts a process on the node of this name.
    #[track_caller]
    pub fn on_node(url: &str, node: &str) -> Instance {
        Instance::with_variables(url, &[("CB_INSTANCE", node)])
    }

    /// Starts a process whose registry reads these environment variables.
    #[track_caller]
    pub fn with_variables(url: &str, variables: &[(&str, &str)]) -> Instance {
        let request = Request::Install { url: Some(url.into()), namespace: "tests".into(), connects: true };
        Instance::with_environment(variables).installed(&request)
    }

    /// Starts a process without a registry.
    pub fn bare() -> Instance {
        Instance::with_environment(&[])
    }

    /// Starts a process without a registry, with these environment variables.
    pub fn with_environment(variables: &[(&str, &str)]) -> Instance {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut child = Command::new(env!("CARGO_BIN_EXE_cb-instance"))
            // A node of its own, unless `variables` say otherwise.
            .env("CB_INSTANCE", format!("node-{number}"))
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cb-instance starts");
        let requests = child.stdin.take().expect("piped");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (sender, answers) = channel();
        // A blocking read has no timeout; a channel's `recv_timeout` has one.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Instance {
            label: format!("instance {number}"),
            id: String::new(),
            child: Mutex::new(child),
            pipe: Mutex::new(Pipe { requests, answers }),
        }
    }

    #[track_caller]
    fn installed(mut self, request: &Request) -> Instance {
        self.id = self.ask(request);
        self
    }

    /// The instance id, as events and the store show it.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    /// Sends SIGKILL, so the process cannot clean up.
    pub fn kill(&self) {
        let mut child = self.child();
        child.kill().expect("it runs");
        child.wait().expect("it ends");
    }

    /// Sends SIGSTOP. The process stands still until [`resume`](Self::resume).
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.pid().to_string()]).status();
        assert!(status.expect("kill(1) is there").success(), "{signal}");
    }

    /// Sends a request and decodes the answer. Panics if the answer is an error.
    #[track_caller]
    pub fn ask<T: DeserializeOwned>(&self, request: &Request) -> T {
        self.try_ask(request).unwrap_or_else(|error| panic!("{}: {request:?}: {error}", self.label))
    }

    /// Sends a request and decodes the answer, which may be an error.
    #[track_caller]
    pub fn try_ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, String> {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        let line = serde_json::to_string(request).expect("a request serializes");
        writeln!(pipe.requests, "{line}").unwrap_or_else(|e| panic!("{} is gone: {e}", self.label));
        let answer = pipe.answers.recv_timeout(ANSWER);
        let answer = answer.unwrap_or_else(|e| panic!("{} does not answer {line}: {e}", self.label));
        let answer: Result<Value, String> = serde_json::from_str(&answer).expect("an answer");
        Ok(serde_json::from_value(answer?).expect("the answer's type is the one beside the request"))
    }

    #[track_caller]
    pub fn create(&self, breaker: &str, config: Value) {
        let () = self.ask(&Request::Create { breaker: breaker.into(), config, checks: None });
    }

    /// Registers a breaker whose health check follows a script.
    #[track_caller]
    pub fn create_checked(&self, breaker: &str, config: Value, checks: &Checks) {
        let checks = Some(checks.folder());
        let () = self.ask(&Request::Create { breaker: breaker.into(), config, checks });
    }

    #[track_caller]
    pub fn configure(&self, function: Function, config: Value) {
        self.configure_cached(function, config, Duration::from_secs(600));
    }

    #[track_caller]
    pub fn configure_cached(&self, function: Function, config: Value, cache_ttl: Duration) {
        let cache_ttl_ms = u64::try_from(cache_ttl.as_millis()).expect("a short span");
        let () = self.ask(&Request::Configure { function, config, cache_ttl_ms });
    }

    /// Makes `times` calls through a breaker, one after another.
    #[track_caller]
    pub fn call(&self, breaker: &str, act: Act, times: usize) -> Calls {
        self.ask(&Request::Call { target: Target::Breaker(breaker.into()), act, times })
    }

    #[track_caller]
    pub fn fail(&self, breaker: &str, times: usize) -> Calls {
        self.call(breaker, Act::Fail, times)
    }

    #[track_caller]
    pub fn succeed(&self, breaker: &str, times: usize) -> Calls {
        self.call(breaker, Act::Succeed(None), times)
    }

    /// Calls until `times` calls have run: on a busy machine, the store may answer a request for a probe too
    /// late.
    #[track_caller]
    pub fn probe(&self, breaker: &str, act: &Act, times: usize) {
        let mut ran = 0;
        super::within_t("the probes run", || {
            ran += self.call(breaker, act.clone(), times - ran).ran;
            ran == times
        });
    }

    /// Calls an annotated function once.
    #[track_caller]
    pub fn run(&self, function: Function, argument: u64, act: Act) -> Ended {
        let calls: Calls =
            self.ask(&Request::Call { target: Target::Function(function, argument), act, times: 1 });
        calls.ended.into_iter().next().expect("one call")
    }

    /// Calls an annotated function and asserts that its fallback answers.
    #[track_caller]
    pub fn falls_back(&self, function: Function, argument: u64, act: Act) {
        let ended = self.run(function, argument, act);
        assert_eq!(ended, Ended::value(&format!("fallback of {}", self.pid())));
    }

    /// Starts `callers` concurrent calls that last until [`finish`](Self::finish) or
    /// [`drop_calls`](Self::drop_calls).
    #[track_caller]
    pub fn hold(&self, breaker: &str, callers: usize) -> usize {
        self.ask(&Request::Start { target: Target::Breaker(breaker.into()), act: Act::Hold, callers })
    }

    /// Starts one call with [`hold`](Self::hold) and returns once its guarded code runs.
    #[track_caller]
    pub fn hold_one(&self, breaker: &str) -> usize {
        let group = self.hold(breaker, 1);
        super::within_t("the guarded code runs", || {
            let calls = self.progress(group);
            assert!(calls.ended.is_empty(), "the call ended at once: {calls:?}");
            calls.ran == 1
        });
        group
    }

    #[track_caller]
    pub fn traffic(&self, breaker: &str, act: Act, every: Duration) -> usize {
        let every_us = u64::try_from(every.as_micros()).expect("a short span");
        self.ask(&Request::Traffic { target: Target::Breaker(breaker.into()), act, every_us })
    }

    #[track_caller]
    pub fn progress(&self, group: usize) -> Calls {
        self.ask(&Request::Progress { group })
    }

    #[track_caller]
    pub fn finish(&self, group: usize, act: Act) -> Calls {
        self.ask(&Request::Finish { group, act })
    }

    #[track_caller]
    pub fn drop_calls(&self, group: usize) -> Calls {
        self.ask(&Request::Drop { group })
    }

    #[track_caller]
    pub fn look(&self, breaker: &str) -> Seen {
        self.ask(&Request::Look { breaker: breaker.into() })
    }

    #[track_caller]
    pub fn state(&self, breaker: &str) -> State {
        self.look(breaker).state
    }

    #[track_caller]
    pub fn is(&self, breaker: &str, state: State) -> bool {
        self.state(breaker) == state
    }

    /// The store's row of a breaker, after this instance has reported everything it counted. The store may
    /// have nothing of a breaker that was never called; the row is then that of an untouched breaker.
    #[track_caller]
    pub fn fleet(&self, breaker: &str) -> Fleet {
        let mut rows: FleetRows = self.ask(&Request::Fleet);
        let untouched = Fleet {
            state: State::Closed,
            epoch: 0,
            actor: String::new(),
            failures: 0,
            successes: 0,
            streak: 0,
        };
        rows.remove(breaker).unwrap_or(untouched)
    }

    #[track_caller]
    pub fn events(&self) -> Vec<Event> {
        self.ask(&Request::Events)
    }

    /// The fleet's transitions of one breaker, as this instance observed them.
    #[track_caller]
    pub fn transitions(&self, breaker: &str) -> Vec<Change> {
        let of_breaker = |event| match event {
            Event::Transition(change) if change.breaker == breaker => Some(change),
            _ => None,
        };
        self.events().into_iter().filter_map(of_breaker).collect()
    }

    /// The results of the health checks that this instance made for one breaker.
    #[track_caller]
    pub fn checks(&self, breaker: &str) -> Vec<Result<(), String>> {
        let of_breaker = |event| match event {
            Event::HealthCheck { breaker: of, result, .. } if of == breaker => Some(result),
            _ => None,
        };
        self.events().into_iter().filter_map(of_breaker).collect()
    }

    /// Shuts the registry down. The process goes on.
    #[track_caller]
    pub fn shut_down(&self) {
        let () = self.ask(&Request::Shutdown);
    }

    #[track_caller]
    pub fn settings(&self, breaker: &str) -> Settings {
        self.ask(&Request::Settings { breaker: breaker.into() })
    }

    #[track_caller]
    pub fn reload(&self, file: &Path) -> Result<(), String> {
        self.try_ask(&Request::Reload { file: file.into() })
    }

    #[track_caller]
    pub fn errors(&self) -> Vec<ErrorReport> {
        self.ask(&Request::Errors)
    }

    #[track_caller]
    pub fn try_steer(&self, breaker: &str, action: Override) -> Result<(), String> {
        self.try_ask(&Request::Steer { breaker: breaker.into(), action })
    }

    /// Steers a breaker once, on behalf of `actor` and with an optional expiry.
    #[track_caller]
    pub fn try_steer_as(
        &self,
        breaker: &str,
        action: Override,
        actor: &str,
        expires_in: Option<Duration>,
    ) -> Result<(), String> {
        let expires_in_ms = expires_in.map(|span| u64::try_from(span.as_millis()).expect("a short span"));
        self.try_ask(&Request::SteerAs {
            breaker: breaker.into(),
            action,
            actor: actor.into(),
            expires_in_ms,
        })
    }

    /// Steers a breaker and repeats that until the store has it: on a machine that stalls, an answer may be
    /// lost.
    #[track_caller]
    pub fn steer(&self, breaker: &str, action: &Override) {
        super::within_t("the store has the override", || self.try_steer(breaker, action.clone()).is_ok());
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let mut child = self.child();
        // Both fail only if the process has already ended.
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Calls {
    /// Whether there were calls and all of them were rejected.
    pub fn all_rejected(&self) -> bool {
        self.ran == 0 && !self.ended.is_empty() && self.ended.iter().all(Ended::is_rejected)
    }

    pub fn rejected(&self) -> usize {
        self.ended.iter().filter(|ended| ended.is_rejected()).count()
    }

    pub fn failed(&self) -> usize {
        self.ended.iter().filter(|ended| **ended == Ended::Failed).count()
    }
}

impl Ended {
    pub fn is_rejected(&self) -> bool {
        matches!(self, Ended::Rejected { .. })
    }

    pub fn value(text: &str) -> Ended {
        Ended::Value(Some(text.into()))
    }
}
