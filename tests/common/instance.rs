//! A process of the fleet, seen from a test.

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

use super::protocol::{
    Act, Calls, Change, Ended, Fleet, FleetRows, Function, Order, Seen, Settings, Target, Told, Trouble, Word,
};

/// An instance that has not answered by then never will.
const ANSWER: Duration = Duration::from_secs(60);

/// One instance of a fleet: a process with a registry. Killed when it is dropped.
pub struct Instance {
    /// What tests call it, for messages.
    label: String,
    id: String,
    child: Mutex<Child>,
    pipe: Mutex<Pipe>,
}

struct Pipe {
    orders: ChildStdin,
    answers: Receiver<String>,
}

impl Instance {
    /// A process whose registry shares state through this Redis, in the namespace `"tests"`.
    #[track_caller]
    pub fn on(url: &str) -> Instance {
        Instance::in_namespace(url, "tests")
    }

    /// The same in another namespace.
    #[track_caller]
    pub fn in_namespace(url: &str, namespace: &str) -> Instance {
        let mut instance = Instance::bare();
        let order = Order::Install { url: Some(url.into()), namespace: namespace.into() };
        instance.id = instance.ask(&order);
        instance
    }

    /// A process whose registry is told by this file and these environment variables, too.
    #[track_caller]
    pub fn configured(url: &str, file: &Path, variables: &[(&str, &str)]) -> Instance {
        let mut instance = Instance::with_environment(variables);
        let order =
            Order::InstallFrom { url: Some(url.into()), namespace: "tests".into(), file: file.into() };
        instance.id = instance.ask(&order);
        instance
    }

    /// A process without a registry.
    pub fn bare() -> Instance {
        Instance::with_environment(&[])
    }

    /// The same with these environment variables.
    pub fn with_environment(variables: &[(&str, &str)]) -> Instance {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let mut child = Command::new(env!("CARGO_BIN_EXE_cb-instance"))
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cb-instance starts");
        let orders = child.stdin.take().expect("piped");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (sender, answers) = channel();
        // Reading on a thread of its own bounds the wait for an answer.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Instance {
            label: format!("instance {}", NEXT.fetch_add(1, Ordering::Relaxed)),
            id: String::new(),
            child: Mutex::new(child),
            pipe: Mutex::new(Pipe { orders, answers }),
        }
    }

    /// The id under which the fleet knows it.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    /// SIGKILL: it has no chance to tidy up.
    pub fn kill(&self) {
        let mut child = self.child();
        child.kill().expect("it runs");
        child.wait().expect("it ends");
    }

    /// Gives an order and decodes the answer.
    #[track_caller]
    pub fn ask<T: DeserializeOwned>(&self, order: &Order) -> T {
        self.try_ask(order).unwrap_or_else(|error| panic!("{}: {order:?}: {error}", self.label))
    }

    /// The same where the answer may be an error.
    #[track_caller]
    pub fn try_ask<T: DeserializeOwned>(&self, order: &Order) -> Result<T, String> {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        let line = serde_json::to_string(order).expect("an order is printable");
        writeln!(pipe.orders, "{line}").unwrap_or_else(|e| panic!("{} is gone: {e}", self.label));
        let answer = pipe.answers.recv_timeout(ANSWER);
        let answer = answer.unwrap_or_else(|e| panic!("{} does not answer {line}: {e}", self.label));
        let answer: Result<Value, String> = serde_json::from_str(&answer).expect("an answer");
        Ok(serde_json::from_value(answer?).expect("the value that this order is answered with"))
    }

    // ---- the orders, by name

    #[track_caller]
    pub fn create(&self, breaker: &str, config: Value) {
        let () = self.ask(&Order::Create { breaker: breaker.into(), config });
    }

    #[track_caller]
    pub fn configure(&self, function: Function, config: Value) {
        self.configure_cached(function, config, Duration::from_secs(600));
    }

    #[track_caller]
    pub fn configure_cached(&self, function: Function, config: Value, cache_ttl: Duration) {
        let cache_ttl_ms = u64::try_from(cache_ttl.as_millis()).expect("a short span");
        let () = self.ask(&Order::Configure { function, config, cache_ttl_ms });
    }

    /// Makes `times` calls through a breaker, one after the other.
    #[track_caller]
    pub fn call(&self, breaker: &str, act: Act, times: usize) -> Calls {
        self.ask(&Order::Call { target: Target::Breaker(breaker.into()), act, times })
    }

    #[track_caller]
    pub fn fail(&self, breaker: &str, times: usize) -> Calls {
        self.call(breaker, Act::Fail, times)
    }

    #[track_caller]
    pub fn succeed(&self, breaker: &str, times: usize) -> Calls {
        self.call(breaker, Act::Succeed(None), times)
    }

    /// Calls an annotated function once.
    #[track_caller]
    pub fn run(&self, function: Function, argument: u64, act: Act) -> Ended {
        let calls: Calls =
            self.ask(&Order::Call { target: Target::Function(function, argument), act, times: 1 });
        calls.ended.into_iter().next().expect("one call")
    }

    /// Calls an annotated function, and expects its fallback to answer.
    #[track_caller]
    pub fn falls_back(&self, function: Function, argument: u64, act: Act) {
        let ended = self.run(function, argument, act);
        assert_eq!(ended, Ended::value(&format!("fallback of {}", self.pid())));
    }

    /// Begins `callers` calls at once that hold until [`finish`](Self::finish) or [`drop_calls`](Self::drop_calls).
    #[track_caller]
    pub fn hold(&self, breaker: &str, callers: usize) -> usize {
        self.ask(&Order::Start { target: Target::Breaker(breaker.into()), act: Act::Hold, callers })
    }

    /// Begins one such call, and returns once its guarded code runs.
    #[track_caller]
    pub fn hold_one(&self, breaker: &str) -> usize {
        let group = self.hold(breaker, 1);
        super::within_t("the guarded code runs", || {
            let calls = self.progress(group);
            assert!(calls.ended.is_empty(), "not held, but ended: {calls:?}");
            calls.ran == 1
        });
        group
    }

    #[track_caller]
    pub fn traffic(&self, breaker: &str, act: Act, every: Duration) -> usize {
        let every_us = u64::try_from(every.as_micros()).expect("a short span");
        self.ask(&Order::Traffic { target: Target::Breaker(breaker.into()), act, every_us })
    }

    #[track_caller]
    pub fn progress(&self, group: usize) -> Calls {
        self.ask(&Order::Progress { group })
    }

    #[track_caller]
    pub fn finish(&self, group: usize, act: Act) -> Calls {
        self.ask(&Order::Finish { group, act })
    }

    #[track_caller]
    pub fn drop_calls(&self, group: usize) -> Calls {
        self.ask(&Order::Drop { group })
    }

    #[track_caller]
    pub fn look(&self, breaker: &str) -> Seen {
        self.ask(&Order::Look { breaker: breaker.into() })
    }

    #[track_caller]
    pub fn state(&self, breaker: &str) -> State {
        self.look(breaker).state
    }

    #[track_caller]
    pub fn is(&self, breaker: &str, state: State) -> bool {
        self.state(breaker) == state
    }

    /// What the store has of a breaker, after this instance has told it all it knows. Of a breaker that
    /// has been closed since ever and was never called it need not have anything.
    #[track_caller]
    pub fn fleet(&self, breaker: &str) -> Fleet {
        let mut rows: FleetRows = self.ask(&Order::Fleet);
        let untouched =
            Fleet { state: State::Closed, epoch: 0, actor: String::new(), failures: 0, successes: 0, run: 0 };
        rows.remove(breaker).unwrap_or(untouched)
    }

    #[track_caller]
    pub fn events(&self) -> Vec<Told> {
        self.ask(&Order::Events)
    }

    /// The fleet's changes of one breaker, as this instance has heard of them.
    #[track_caller]
    pub fn transitions(&self, breaker: &str) -> Vec<Change> {
        let of_breaker = |event| match event {
            Told::Transition(change) if change.breaker == breaker => Some(change),
            _ => None,
        };
        self.events().into_iter().filter_map(of_breaker).collect()
    }

    #[track_caller]
    pub fn settings(&self, breaker: &str) -> Settings {
        self.ask(&Order::Settings { breaker: breaker.into() })
    }

    #[track_caller]
    pub fn reload(&self, file: &Path) -> Result<(), String> {
        self.try_ask(&Order::Reload { file: file.into() })
    }

    #[track_caller]
    pub fn troubles(&self) -> Vec<Trouble> {
        self.ask(&Order::Troubles)
    }

    #[track_caller]
    pub fn say(&self, breaker: &str, word: Word) -> Result<(), String> {
        self.try_ask(&Order::Say { breaker: breaker.into(), word })
    }

    /// The same in somebody's name, and with an expiry.
    #[track_caller]
    pub fn say_as(
        &self,
        breaker: &str,
        word: Word,
        actor: &str,
        at_most: Option<Duration>,
    ) -> Result<(), String> {
        let at_most_ms = at_most.map(|span| u64::try_from(span.as_millis()).expect("a short span"));
        self.try_ask(&Order::SayAs { breaker: breaker.into(), word, actor: actor.into(), at_most_ms })
    }

    /// Says it until the store has it: on a machine that stalls, the answer may be lost.
    #[track_caller]
    pub fn order(&self, breaker: &str, word: &Word) {
        super::within_t("the store has the operator's word", || self.say(breaker, word.clone()).is_ok());
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let mut child = self.child();
        // Both fail only if it has ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Calls {
    /// None of them was made, all were rejected.
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
