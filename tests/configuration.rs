//! External configuration: files, environment variables, reloads, and deploys that differ.

mod common;

use std::path::PathBuf;

use cb_runtime::State;
use cb_testkit::RedisServer;
use serde_json::json;
use tempfile::TempDir;

use common::protocol::{Act, Ended, ErrorReport, Event, FleetRows, Function, Override, Request, Settings};
use common::{Instance, within_t};

const NAME: &str = "orders";

/// A configuration file that a test rewrites.
struct File(TempDir);

impl File {
    fn new(text: &str) -> File {
        let file = File(tempfile::tempdir().unwrap());
        file.write(text);
        file
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("cb.toml")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).unwrap();
    }

    fn instance(&self, redis: &RedisServer) -> Instance {
        Instance::configured(&redis.url(), &self.path(), &[])
    }
}

#[track_caller]
fn assert_setting(settings: &Settings, name: &str, value: &str, origin: &str) {
    assert_eq!(settings[name], (value.to_owned(), origin.to_owned()), "{name}");
}

/// The reported differences of settings.
fn drift(instance: &Instance) -> Vec<String> {
    let conflicts = instance.errors().into_iter().filter(|trouble| trouble.is_conflict);
    conflicts.map(|trouble| trouble.text).collect()
}

#[test]
fn environment_and_file_take_precedence_over_code() {
    let redis = RedisServer::start();
    let file = File::new(
        "[defaults]\nreset_timeout = '10s'\nsuccess_threshold = 1\n\
         [breakers.plain]\nfailure_threshold = 9\nreset_timeout = '20s'\n",
    );
    let variables = [("CB_BREAKERS__PLAIN__FAILURE_THRESHOLD", "2"), ("CB_DEFAULTS__MINIMUM_CALLS", "7")];
    let a = Instance::configured(&redis.url(), &file.path(), &variables);
    a.configure(
        Function::Plain,
        json!({"failure_threshold": 4, "half_open_max_calls": 1, "minimum_calls": 3}),
    );
    assert_eq!(a.run(Function::Plain, 1, Act::Fail), Ended::Failed);
    let settings = a.settings("plain");
    assert_setting(&settings, "failure_threshold", "2", "operator");
    assert_setting(&settings, "reset_timeout", "20s", "operator");
    assert_setting(&settings, "half_open_max_calls", "1", "attribute");
    assert_setting(&settings, "minimum_calls", "3", "attribute");
    assert_setting(&settings, "success_threshold", "1", "defaults");
    assert_setting(&settings, "backoff", "off", "built-in");
    assert_setting(&settings, "call_timeout", "off", "built-in");
    // The shown settings are in force.
    assert_eq!(a.run(Function::Plain, 1, Act::Fail), Ended::Failed);
    assert_eq!(a.state("plain"), State::Open);
    let left = a.look("plain").retry_after_us.unwrap();
    assert!((15_000_000..=20_000_000).contains(&left), "{left}");
    a.create(NAME, json!({}));
    assert_setting(&a.settings(NAME), "minimum_calls", "7", "defaults");
}

#[test]
fn environment_is_read_without_install() {
    let a = Instance::with_environment(&[
        ("CB_BREAKERS__PLAIN__FAILURE_THRESHOLD", "2"),
        ("CB_BREAKERS__PLAIN__RESET_TIMEOUT", "1h"),
    ]);
    for _ in 0..2 {
        assert_eq!(a.run(Function::Plain, 1, Act::Fail), Ended::Failed);
    }
    let Ended::Rejected { retry_after_us: Some(left) } = a.run(Function::Plain, 1, Act::Fail) else {
        panic!("the third call was not rejected")
    };
    assert!(left > 3_000_000_000, "{left}");

    // Invalid settings are left out, and the application serves.
    let b = Instance::with_environment(&[("CB_BREAKERS__PLAIN__FAILURE_THRESHOLD", "none")]);
    for _ in 0..5 {
        assert_eq!(b.run(Function::Plain, 1, Act::Fail), Ended::Failed);
    }
    assert!(b.run(Function::Plain, 1, Act::Fail).is_rejected());
}

#[test]
fn ambiguous_variable_applies_to_the_first_breaker_and_is_reported() {
    let redis = RedisServer::start();
    let file = File::new("");
    let a = Instance::configured(&redis.url(), &file.path(), &[("CB_BREAKERS__USER_SERVICE__WINDOW", "2m")]);
    a.create("user-service", json!({}));
    assert_setting(&a.settings("user-service"), "window", "2m", "operator");
    let config = json!({});
    let second: Result<(), String> =
        a.try_ask(&Request::Create { breaker: "user.service".into(), config, checks: None });
    assert_eq!(
        second.unwrap_err(),
        "CB_BREAKERS__USER_SERVICE__…: may mean the breakers \"user-service\" and \"user.service\", so it holds \
         for the first of them only; say it in a file, where names can be told apart"
    );
}

#[test]
fn reload_keeps_counts_and_state() {
    let redis = RedisServer::start();
    let file = File::new("[breakers.orders]\nfailure_threshold = 10\n");
    let [a, b] = [(); 2].map(|()| file.instance(&redis));
    for instance in [&a, &b] {
        instance.create(NAME, json!({"failure_threshold": 2, "success_threshold": 1}));
        instance.create("forced", json!({}));
    }
    a.steer("forced", &Override::ForceOpen("stays".into()));
    a.fail(NAME, 3);
    within_t("the fleet has three failures", || b.fleet(NAME).streak == 3);

    file.write(
        "[defaults]\nsuccess_threshold = 5\n[breakers.orders]\nfailure_threshold = 5\nreset_timeout = '2h'\n",
    );
    for instance in [&a, &b] {
        instance.reload(&file.path()).unwrap();
        let settings = instance.settings(NAME);
        assert_setting(&settings, "failure_threshold", "5", "operator");
        assert_setting(&settings, "success_threshold", "1", "attribute");
        assert_setting(&instance.settings("forced"), "success_threshold", "5", "defaults");
        let seen = instance.look(NAME);
        assert_eq!((seen.state, seen.epoch), (State::Closed, 0));
    }
    let seen = a.look(NAME);
    assert_eq!((seen.streak, seen.failures), (3, 3));
    b.fail(NAME, 1);
    within_t("B has four", || b.look(NAME).streak == 4);
    assert_eq!((b.state(NAME), b.look(NAME).failures), (State::Closed, 4));
    b.fail(NAME, 1);
    assert_eq!(b.state(NAME), State::Open, "the fleet's fifth failure");
    for instance in [&a, &b] {
        instance.fleet(NAME);
        assert_eq!(drift(instance), Vec::<String>::new(), "both have equal settings, as before");
    }
    within_t("A follows", || a.is(NAME, State::Open));
    let seen = a.look(NAME);
    assert!(seen.retry_after_us.unwrap() > 7_000_000_000, "{seen:?}");
    assert_eq!(a.transitions(NAME).len(), 1);

    // A setting that the file no longer has is the attribute's again. An open circuit stays open.
    file.write("");
    a.reload(&file.path()).unwrap();
    assert_setting(&a.settings(NAME), "failure_threshold", "2", "attribute");
    assert_eq!((a.state(NAME), a.look(NAME).epoch), (State::Open, 1));
    assert_eq!(a.state("forced"), State::ForcedOpen);
}

#[test]
fn reload_of_a_window_keeps_counts_that_fit() {
    for (before, after) in [
        ("window = '1m'", "window = '30s'"),
        ("window = '30s'", "window = '1m'"),
        ("window_calls = 20", "window_calls = 8"),
    ] {
        let redis = RedisServer::start();
        let rate = |window| {
            format!("[breakers.orders]\nfailure_rate_threshold = 0.75\nminimum_calls = 8\n{window}\n")
        };
        let file = File::new(&rate(before));
        let [a, b] = [(); 2].map(|()| file.instance(&redis));
        for instance in [&a, &b] {
            instance.create(NAME, json!({}));
            instance.succeed(NAME, 1);
        }
        a.fail(NAME, 2);
        b.fail(NAME, 2);
        within_t("both have all six outcomes", || {
            [&a, &b].iter().all(|i| {
                let fleet = i.fleet(NAME);
                let seen = i.look(NAME);
                (fleet.failures, fleet.successes, seen.failures, seen.successes) == (4, 2, 4, 2)
            })
        });
        file.write(&rate(after));
        for instance in [&a, &b] {
            instance.reload(&file.path()).unwrap();
        }
        a.fail(NAME, 1);
        b.fleet(NAME);
        assert_eq!(
            (a.state(NAME), b.state(NAME)),
            (State::Closed, State::Closed),
            "seven calls are below the minimum"
        );
        a.fail(NAME, 1);
        // Its own figures do not decide it alone: the other instance has a pace to report first.
        within_t(&format!("6 of 8: {before} became {after}"), || a.is(NAME, State::Open));
        let reason = a.look(NAME).reason;
        assert!(reason.starts_with("75.0 % of "), "{reason}");
        within_t("B follows", || b.is(NAME, State::Open));
    }
}

#[test]
fn reload_applies_to_timeouts_of_annotated_functions() {
    let redis = RedisServer::start();
    let file = File::new("");
    let a = file.instance(&redis);
    a.configure(Function::Plain, json!({"call_timeout": "1h"}));
    let after = |ms| Act::After(ms, Box::new(Act::Succeed(Some("late".into()))));
    assert_eq!(a.run(Function::Plain, 1, after(50)), Ended::value("late"));
    file.write("[breakers.plain]\ncall_timeout = '20ms'\n");
    a.reload(&file.path()).unwrap();
    assert_eq!(a.run(Function::Plain, 1, Act::Hold), Ended::TimedOut);
    assert_setting(&a.settings("plain"), "call_timeout", "20ms", "operator");
    file.write("");
    a.reload(&file.path()).unwrap();
    assert_eq!(a.run(Function::Plain, 1, after(50)), Ended::value("late"));
}

#[test]
fn invalid_reload_is_an_error_and_changes_nothing() {
    let redis = RedisServer::start();
    let file = File::new("[defaults]\nreset_timeout = '10s'\n");
    let a = file.instance(&redis);
    a.create(NAME, json!({"window_calls": 10, "failure_rate_threshold": 0.5}));
    a.create("other", json!({}));
    let shown = file.path().display().to_string();
    for (text, problem) in [
        ("[defaults]\nreset_timout = '20s'\n", format!("{shown}: defaults.reset_timout: there is no such key; did you mean `reset_timeout`?")),
        // Valid by itself, but not for one breaker.
        (
            "[defaults]\nreset_timeout = '20s'\n[breakers.orders]\nminimum_calls = 20\n",
            format!("{shown}: breakers.orders.minimum_calls: 20 is more than the window ever holds (window_calls = 10)"),
        ),
        (
            "namespace = 'another'\n[defaults]\nreset_timeout = '20s'\n",
            "namespace: it cannot change while the registry runs; build another one, or restart".into(),
        ),
        (
            "redis = 'redis://localhost:1'\n",
            "redis: the address of the store cannot change while the registry runs; build another one, or restart".into(),
        ),
    ] {
        file.write(text);
        assert_eq!(a.reload(&file.path()).unwrap_err(), problem);
        for name in [NAME, "other"] {
            assert_setting(&a.settings(name), "reset_timeout", "10s", "defaults");
        }
    }
    file.write("[defaults]\nreset_timeout = '20s'\n");
    a.reload(&file.path()).unwrap();
    assert_setting(&a.settings("other"), "reset_timeout", "20s", "defaults");
}

#[test]
fn deploys_with_different_thresholds_use_their_own_and_report_once() {
    let redis = RedisServer::start();
    let old = [(); 2].map(|()| Instance::on(&redis.url()));
    for instance in &old {
        instance.create(NAME, json!({"failure_threshold": 5, "call_timeout": "1m"}));
        assert_eq!(instance.succeed(NAME, 1).ran, 1);
        instance.fleet(NAME);
        assert_eq!(
            drift(instance),
            Vec::<String>::new(),
            "settings of functions and built-in ones may differ"
        );
    }
    let new = Instance::on(&redis.url());
    new.create(NAME, json!({"failure_threshold": 3, "reset_timeout": "1m"}));
    for _ in 0..3 {
        for instance in old.iter().chain([&new]) {
            assert_eq!(instance.succeed(NAME, 1).ran, 1);
            instance.fleet(NAME);
        }
    }
    let text =
        "breaker \"orders\" has other settings elsewhere in the fleet, and each instance judges by its own: ";
    let of_old =
        format!("{text}failure_threshold is 5 here and 3 there, reset_timeout is 30s here and 1m there");
    let of_new =
        format!("{text}failure_threshold is 3 here and 5 there, reset_timeout is 1m here and 30s there");
    for (instance, reported) in [(&old[0], &of_old), (&old[1], &of_old), (&new, &of_new)] {
        within_t("the difference is reported", || {
            instance.succeed(NAME, 1);
            !drift(instance).is_empty()
        });
        assert_eq!(drift(instance), std::slice::from_ref(reported));
        let reports: Vec<_> =
            instance.events().into_iter().filter(|event| matches!(event, Event::Error(_))).collect();
        let Event::Error(ErrorReport { text, .. }) = &reports[0] else { panic!("{reports:?}") };
        assert_eq!((reports.len(), text), (1, reported));
    }
    // Four failures reach only the new deploy's threshold. They are certainly later than the other instances'
    // successes: an instance's estimate of the store's time may be off by its shortest round trip.
    std::thread::sleep(std::time::Duration::from_secs(1));
    old[0].fail(NAME, 3);
    within_t("they are counted", || old[0].fleet(NAME).streak == 3);
    for instance in &old {
        assert_eq!(instance.state(NAME), State::Closed);
    }
    new.fail(NAME, 1);
    within_t("the new deploy uses its own threshold", || new.is(NAME, State::Open));
    within_t("the fleet follows", || old.iter().all(|instance| instance.is(NAME, State::Open)));
    let change = &old[0].transitions(NAME)[0];
    assert_eq!((&*change.originator, &*change.reason), (new.id(), "4 consecutive failures (limit 3)"));
    let reset_timeout = new.look(NAME).retry_after_us.unwrap();
    assert!(reset_timeout > 40_000_000, "{reset_timeout}");
    for instance in old.iter().chain([&new]) {
        assert_eq!(drift(instance).len(), 1, "still once");
    }
}

#[test]
fn difference_after_a_partial_reload_is_reported() {
    let redis = RedisServer::start();
    let file = File::new("[breakers.orders]\nfailure_threshold = 7\n");
    let [a, b] = [(); 2].map(|()| file.instance(&redis));
    for threshold in [8, 9, 7, 10] {
        a.create("alone", json!({"failure_threshold": 5}));
        a.succeed("alone", 1);
        a.fleet("alone");
        file.write(&format!(
            "[breakers.alone]\nfailure_threshold = {threshold}\n[breakers.orders]\nfailure_threshold = 7\n"
        ));
        a.reload(&file.path()).unwrap();
    }
    a.succeed("alone", 1);
    a.fleet("alone");
    assert_eq!(drift(&a), Vec::<String>::new(), "an instance does not differ from itself");

    let both_speak = || {
        for instance in [&a, &b] {
            instance.create(NAME, json!({}));
            instance.succeed(NAME, 1);
            instance.fleet(NAME);
        }
    };
    both_speak();
    file.write("[breakers.orders]\nfailure_threshold = 11\n");
    a.reload(&file.path()).unwrap();
    both_speak();
    within_t("B says so", || {
        b.succeed(NAME, 1);
        drift(&b).len() == 1
    });
    assert!(drift(&b)[0].ends_with("failure_threshold is 7 here and 11 there"), "{:?}", drift(&b));
    b.reload(&file.path()).unwrap();
    both_speak();
    both_speak();
    assert_eq!((drift(&a).len(), drift(&b).len()), (0, 1), "the instances agree");
}

/// Reads the file in docs/configuration.md and every variable in its table.
#[test]
fn documented_file_and_variables_are_valid() {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md")).unwrap();
    let toml = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a file");
    let yaml = page
        .split("```yaml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .expect("the page has the file in YAML");
    // The test sets the store and the namespace.
    let redis = RedisServer::start();
    let toml = toml.replace("redis://127.0.0.1:6379", &redis.url()).replace("\"prod\"", "\"tests\"");
    let file = File::new(&toml);
    let a = file.instance(&redis);
    a.create(NAME, json!({}));
    a.create("user-service", json!({"failure_threshold": 1}));
    let settings = a.settings(NAME);
    for (name, (value, origin)) in &settings {
        match &**name {
            "strategy" | "health_check" => assert!(page.contains(&format!("`{name}`")), "{name}"),
            "window_calls" => assert!(toml.contains("# window_calls ="), "{name}"),
            _ => assert_eq!(origin, "defaults", "{name} = {value} is not in the file"),
        }
    }
    assert_setting(&a.settings("user-service"), "failure_threshold", "10", "operator");

    let variables: Vec<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `CB_")?.split_once('`')?.0.split_once('='))
        .map(|(name, value)| {
            (format!("CB_{name}"), value.replace("127.0.0.1:6379", "localhost:1").replace("prod", "tests"))
        })
        .collect();
    assert_eq!(variables.len(), 7, "{variables:?}");
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(file.path(), yaml).unwrap();
    let variables: Vec<_> = variables.iter().map(|(name, value)| (&**name, &**value)).collect();
    let b = Instance::with_environment(&variables);
    let _id: String =
        b.ask(&Request::InstallFrom { url: None, namespace: "overridden".into(), file: file.path().into() });
    b.create("user-service", json!({}));
    let settings = b.settings("user-service");
    assert_setting(&settings, "reset_timeout", "10s", "defaults");
    assert_setting(&settings, "failure_threshold", "10", "operator");
    assert_setting(&settings, "backoff", "×2 up to 10m", "defaults");
    // No server listens at the address. The registry accepts it and acts locally.
    let fleet: Result<FleetRows, String> = b.try_ask(&Request::Fleet);
    fleet.unwrap_err();
}

#[test]
fn operator_setting_may_depend_on_the_attribute() {
    let redis = RedisServer::start();
    let file = File::new(
        "[defaults]\nslow_call_rate_threshold = 0.5\n\
         [breakers.orders]\nslow_call_rate_threshold = 0.25\n[breakers.short]\nwindow_calls = 5\n",
    );
    let variables = [("CB_BREAKERS__OTHER__SLOW_CALL_RATE_THRESHOLD", "0.25")];
    let a = Instance::configured(&redis.url(), &file.path(), &variables);
    for name in [NAME, "other"] {
        a.create(name, json!({"slow_call_duration": "500ms", "minimum_calls": 4}));
        a.succeed(name, 3);
        a.call(name, Act::After(550, Box::new(Act::Succeed(None))), 1);
        within_t("it is open", || a.is(name, State::Open));
    }
    // The attribute's minimum for a longer window is limited to what this window holds.
    a.create("short", json!({"failure_rate_threshold": 0.8, "window": "30s", "minimum_calls": 20}));
    a.succeed("short", 1);
    a.fail("short", 3);
    assert_eq!(a.state("short"), State::Closed);
    a.fail("short", 1);
    assert_eq!(a.state("short"), State::Open);
    // Without a slow call duration, a default threshold is dropped, and an operator's threshold is an error.
    a.create("unmeasured", json!({"failure_threshold": 3}));
    assert_setting(&a.settings("unmeasured"), "slow_call_rate_threshold", "off", "built-in");
    file.write("[breakers.unmeasured]\nslow_call_rate_threshold = 0.25\n");
    let problem = "breakers.unmeasured.slow_call_rate_threshold: needs slow_call_duration";
    let error = a.reload(&file.path()).unwrap_err();
    assert!(error.contains(problem), "{error}");
}
