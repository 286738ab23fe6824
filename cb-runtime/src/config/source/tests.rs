use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::{BreakerConfig, Code, Layers};
use crate::snapshot::Origin;

const FILE: &str = r#"
redis = "redis://localhost:6379"
namespace = "prod"

[defaults]
reset_timeout = "10s"
backoff = { factor = 2, cap = "5m" }

[breakers.user-service]
failure_threshold = 10
call_timeout = "2s"

[breakers."api.example.org/v1"]
failure_rate_threshold = 0.25
window = 30
"#;

const AS_YAML: &str = r"
redis: redis://localhost:6379
namespace: prod
defaults:
  reset_timeout: 10s
  backoff: {factor: 2, cap: 5m}
breakers:
  user-service:
    failure_threshold: 10
    call_timeout: 2s
  api.example.org/v1:
    failure_rate_threshold: 0.25
    window: 30
";

fn environment(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    variables.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn toml(text: &str, variables: &[(&str, &str)]) -> Result<RegistryConfig, Error> {
    read(Some(("cb.toml", text, FileFormat::Toml)), environment(variables))
}

/// What is wrong, line by line.
#[track_caller]
fn problems(text: &str, variables: &[(&str, &str)]) -> String {
    let error = toml(text, variables).unwrap_err();
    assert!(error.is_config());
    error.to_string()
}

#[test]
fn what_the_registry_finds_invalid_names_its_source() {
    let problem = |text: &str, variables: &[(&str, &str)]| {
        let config = toml(text, variables).unwrap();
        let error = crate::Registry::builder().config(config).build().unwrap_err();
        assert!(error.is_config());
        error.to_string()
    };
    assert_eq!(
        problem("namespace = ''", &[]),
        "cb.toml: namespace: is empty; it must have at least one character"
    );
    #[cfg(feature = "redis")]
    {
        let said =
            "redis: the store's address cannot be used: \"localhost:6379\" has no scheme; write redis://";
        let of_file = problem("redis = 'localhost:6379'", &[]);
        assert!(of_file.starts_with(&format!("cb.toml: {said}")), "{of_file}");
        let of_variable = problem("redis = 'redis://localhost'", &[("CB_REDIS_URL", "localhost:6379")]);
        assert!(of_variable.starts_with(&format!("CB_REDIS_URL: {said}")), "{of_variable}");
    }
}

#[test]
fn toml_and_yaml_say_the_same() {
    for config in
        [toml(FILE, &[]).unwrap(), read(Some(("cb.yaml", AS_YAML, FileFormat::Yaml)), Vec::new()).unwrap()]
    {
        assert_eq!(config.redis.as_deref(), Some("redis://localhost:6379"));
        assert_eq!(config.namespace.as_deref(), Some("prod"));
        let backoff = crate::Backoff::exponential(2.0).cap(Duration::from_secs(300));
        let defaults = BreakerConfig::default().reset_timeout(Duration::from_secs(10)).backoff(backoff);
        assert_eq!(config.defaults, defaults);
        assert_eq!(
            config.breakers["user-service"],
            BreakerConfig::default().failure_threshold(10).call_timeout(Duration::from_secs(2))
        );
        assert_eq!(
            config.breakers["api.example.org/v1"],
            BreakerConfig::default().failure_rate_threshold(0.25).window(Duration::from_secs(30))
        );
    }
}

#[test]
fn window_of_calls_from_a_variable_replaces_the_files_window_of_time() {
    let file = "[breakers.orders]\nfailure_rate_threshold = 0.5\nwindow = \"1m\"\nminimum_calls = 20\n";
    let config = toml(file, &[("CB_BREAKERS__ORDERS__WINDOW_CALLS", "10")]).unwrap();
    let orders = &config.breakers["orders"];
    assert_eq!((orders.window, orders.window_calls, orders.minimum_calls), (None, Some(10), Some(10)));
}

#[test]
fn variables_stand_over_the_file_setting_by_setting() {
    let config = toml(
        FILE,
        &[
            ("CB_NAMESPACE", "42"),
            ("CB_DEFAULTS__RESET_TIMEOUT", "1m 30s"),
            ("CB_DEFAULTS__BACKOFF__CAP", "60"),
            ("CB_BREAKERS__USER_SERVICE__FAILURE_THRESHOLD", "3"),
            ("CB_BREAKERS__API_EXAMPLE_ORG_V1__WINDOW", "10"),
            ("CB_BREAKERS__ORDERS__SUCCESS_THRESHOLD", "1"),
            ("CB_DEFAULTS__CALL_TIMEOUT", ""),
            ("PATH", "/bin"),
            ("CB_SOMEBODY_ELSES", "x"),
        ],
    )
    .unwrap();
    assert_eq!(config.namespace.as_deref(), Some("42"));
    let given = |config: &BreakerConfig| {
        config
            .given()
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(given(&config.defaults), "reset_timeout=1m 30s backoff=×2 up to 1m");
    assert_eq!(given(&config.breakers["user-service"]), "failure_threshold=3 call_timeout=2s");
    assert_eq!(given(&config.breakers["api.example.org/v1"]), "failure_rate_threshold=0.25 window=10s");
    assert_eq!(config.breakers.len(), 2, "which breaker ORDERS is shows when there is one");
    let layers = Layers::new(&Code::default(), &config).unwrap();
    layers.claim("orders").unwrap();
    assert_eq!(given(&layers.operator("orders")), "success_threshold=1");
}

#[test]
fn without_a_file_variables_find_their_breakers_by_any_spelling() {
    let variables =
        [("CB_BREAKERS__USER_SERVICE__FAILURE_THRESHOLD", "3"), ("CB_BREAKERS__A__B__BACKOFF__FACTOR", "2")];
    let config = read(None, environment(&variables)).unwrap();
    let layers = Layers::new(&Code::default(), &config).unwrap();
    for name in ["User.Service", "a--B"] {
        assert_eq!(layers.operator(name), BreakerConfig::default(), "nobody has a breaker of this name");
        layers.claim(name).unwrap();
        assert_ne!(layers.operator(name), BreakerConfig::default());
    }
    // Another breaker that the variable might mean: an error, and nothing that it holds for by chance.
    let error = layers.claim("user-service").unwrap_err();
    assert_eq!(
        error.to_string(),
        "CB_BREAKERS__USER_SERVICE__…: may mean the breakers \"User.Service\" and \"user-service\", so it holds for \
         the first of them only; say it in a file, where names can be told apart"
    );
    assert_eq!(layers.operator("user-service"), BreakerConfig::default());
    layers.claim("User.Service").unwrap();
}

#[test]
fn response_timeout_is_read_from_a_file_and_a_variable() {
    let file = "response_timeout = \"1s\"";
    assert_eq!(toml(file, &[]).unwrap().response_timeout, Some(Duration::from_secs(1)));
    for (value, expected) in [("1500ms", 1500), ("0.8", 800)] {
        let config = toml(file, &[("CB_RESPONSE_TIMEOUT", value)]).unwrap();
        assert_eq!(config.response_timeout, Some(Duration::from_millis(expected)));
    }
    assert_eq!(
        problems("", &[("CB_RESPONSE_TIMEOUT", "1h")]),
        "CB_RESPONSE_TIMEOUT: response_timeout: 3600s is invalid; it must be from 20ms to 2s"
    );
}

#[test]
fn a_variable_that_may_mean_two_of_the_files_breakers_is_an_error() {
    let file = "[breakers.user-service]\n[breakers.user_service]\n";
    assert_eq!(
        problems(file, &[("CB_BREAKERS__USER_SERVICE__WINDOW", "1m")]),
        "CB_BREAKERS__USER_SERVICE__WINDOW: may mean the breakers \"user-service\" and \"user_service\"; \
         say it in the file, where names can be told apart"
    );
    toml(file, &[]).unwrap();
}

#[test]
fn errors_name_the_file_the_key_and_what_would_be_right() {
    for (file, text) in [
        (
            "[defaults]\nreset_timout = 3",
            "defaults.reset_timout: there is no such key; did you mean `reset_timeout`?",
        ),
        (
            "[breakers.x]\nfailure-threshold = 3",
            "breakers.x.failure-threshold: there is no such key; did you mean `failure_threshold`?",
        ),
        ("response_timeout = 30", "response_timeout: 30s is invalid; it must be from 20ms to 2s"),
        (
            "response_timeout = \"soon\"",
            "response_timeout: \"soon\" is not a span of time; write seconds (30) or units (\"1m 30s\", \"250ms\")",
        ),
        ("[default]\n", "default: there is no such key; did you mean `defaults`?"),
        (
            "colour = 3",
            "colour: there is no such key; there are redis, namespace, node, response_timeout, cache_limits, defaults, breakers",
        ),
        (
            "[defaults]\nfailure_threshold = 0",
            "defaults.failure_threshold: 0 would never let it act; it must be at least 1",
        ),
        (
            "[defaults]\nfailure_threshold = -1",
            "defaults.failure_threshold: invalid value: integer `-1`, expected a whole number, at least 1",
        ),
        (
            "[defaults]\nfailure_threshold = 2.5",
            "defaults.failure_threshold: invalid type: floating point `2.5`, expected a whole number, at least 1",
        ),
        (
            "[defaults]\nfailure_threshold = true",
            "defaults.failure_threshold: invalid type: boolean `true`, expected a whole number, at least 1",
        ),
        (
            "[breakers.x]\nfailure_rate_threshold = 40",
            "breakers.x.failure_rate_threshold: 40 is not a rate; it must be greater than 0 and at most 1; for 40 % say 0.4",
        ),
        ("[breakers.x]\nrecovery_rate = nan", "breakers.x.recovery_rate: NaN is no number"),
        (
            "[breakers.x]\nwindow = \"soon\"",
            "breakers.x.window: \"soon\" is not a span of time; write seconds (30) or units (\"1m 30s\", \"250ms\")",
        ),
        (
            "[breakers.x]\nwindow = true",
            "breakers.x.window: must be a span of time: seconds (30) or units (\"1m 30s\", \"250ms\")",
        ),
        (
            "[breakers.x]\nwindow = -3",
            "breakers.x.window: -3 is not a span of time; write seconds (30) or units (\"1m 30s\", \"250ms\")",
        ),
        (
            "[breakers.x]\nwindow_calls = 10\nminimum_calls = 20",
            "breakers.x.minimum_calls: 20 is more than the window ever holds (window_calls = 10)",
        ),
        (
            "[breakers.x]\nbackoff = { factr = 2 }",
            "breakers.x.backoff: unknown field `factr`, expected one of `factor`, `cap`, `jitter`",
        ),
        (
            "[breakers.x]\nbackoff = 2",
            "breakers.x.backoff: invalid type: integer `2`, expected a table with factor, cap and jitter",
        ),
        (
            "[breakers.x]\nhealth_check = \"ping\"",
            "breakers.x.health_check: is a piece of code; only an attribute or a builder can give it",
        ),
        ("[cache_limits]\nentries = 0", "cache_limits: entries = 0 is invalid; it must be at least 1"),
        (
            "[cache_limits]\nbytes = -1",
            "cache_limits: bytes: invalid value: integer `-1`, expected a whole number, at least 1",
        ),
        (
            "[cache_limits]\nentry = 3",
            "cache_limits: entry: unknown field `entry`, expected one of `entries`, `bytes`, `result_bytes`",
        ),
        (
            "cache_limits = 3",
            "cache_limits: invalid type: integer `3`, expected a table with entries, bytes and result_bytes",
        ),
        ("[breakers]\nx = 3", "breakers.x: 3 is no table of settings"),
        ("breakers = 3", "breakers: 3 is no table of settings"),
        ("redis = 6379", "redis: must be a text"),
    ] {
        assert_eq!(problems(file, &[]), format!("cb.toml: {text}"));
    }
}

#[test]
fn errors_name_the_variable_too() {
    for (variable, value, text) in [
        (
            "CB_DEFAULTS__RESET_TIMEOUT",
            "soon",
            "defaults.reset_timeout: \"soon\" is not a span of time; write seconds (30) or units (\"1m 30s\", \"250ms\")",
        ),
        (
            "CB_DEFAULTS__RESET_TIMEOUT",
            "inf",
            "defaults.reset_timeout: inf is not a span of time; write seconds (30) or units (\"1m 30s\", \"250ms\")",
        ),
        (
            "CB_DEFAULTS__RESET_TIMOUT",
            "3",
            "defaults.reset_timout: there is no such key; did you mean `reset_timeout`?",
        ),
        (
            "CB_BREAKERS__USER_SERVICE__MINIMUM_CALLS",
            "no",
            "breakers.user_service.minimum_calls: invalid type: string \"no\", expected a whole number, at least 1",
        ),
        ("CB_BREAKERS__USER_SERVICE", "3", "names no setting; write CB_BREAKERS__<NAME>__<SETTING>"),
        ("CB_DEFAULTS", "3", "names no setting; write CB_DEFAULTS__<SETTING>"),
        ("CB_DEFAULT__WINDOW", "3", "there is no such variable; did you mean CB_DEFAULTS__…?"),
        ("CB_NAMESPCE", "prod", "there is no such variable; did you mean CB_NAMESPACE?"),
    ] {
        assert_eq!(problems("", &[(variable, value)]), format!("{variable}: {text}"));
    }
}

#[test]
fn nothing_that_is_wrong_is_left_out() {
    let file = "[defaults]\nwindw = 3\nsuccess_threshold = 0\n[breakers.x]\ncall_timeout = \"2 parsecs\"\n";
    assert_eq!(
        problems(file, &[("CB_BREAKERS__X__RAMP_UP", "never")]),
        "4 problems:\
         \n  cb.toml: breakers.x.call_timeout: \"2 parsecs\" is not a span of time; write seconds (30) or units (\"1m 30s\", \"250ms\")\
         \n  CB_BREAKERS__X__RAMP_UP: breakers.x.ramp_up: \"never\" is not a span of time; write seconds (30) or units (\"1m 30s\", \"250ms\")\
         \n  cb.toml: defaults.success_threshold: 0 would never let it act; it must be at least 1\
         \n  cb.toml: defaults.windw: there is no such key; did you mean `window`?"
    );
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let place = tempfile::tempdir().unwrap();
    let text = |name: &str, content: Option<&str>| {
        let path = place.path().join(name);
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let error = RegistryConfig::load(&path).unwrap_err().to_string();
        error.strip_prefix(&format!("{}: ", path.display())).expect("the file's name").to_owned()
    };
    assert!(text("absent.toml", None).starts_with("cannot be read: No such file"));
    assert!(text("cb.json", Some("{}")).starts_with("ends neither in .toml"));
    assert!(text("broken.toml", Some("[defaults]\nwindow = = 3")).contains("line 2"));
    assert!(text("broken.yaml", Some("defaults: [")).contains("line"));
    assert_eq!(text("list.yml", Some("- 3")), "invalid type: sequence, expected a map");
}

#[test]
fn values_that_contradict_each_other_across_layers_are_found_where_they_stand() {
    let config = toml("[defaults]\nwindow_calls = 10\n[breakers.x]\nminimum_calls = 20\n", &[]).unwrap();
    let error = Layers::new(&Code::default(), &config).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cb.toml: breakers.x.minimum_calls: 20 is more than the window ever holds (window_calls = 10)"
    );
    assert_eq!(error.field(), Some("minimum_calls"));
}

#[test]
fn the_operator_wins_over_the_attribute_and_that_over_the_defaults() {
    let config = toml(
        "[defaults]\nreset_timeout = 1\nsuccess_threshold = 1\n[breakers.x]\nfailure_threshold = 7\n",
        &[("CB_BREAKERS__X__MINIMUM_CALLS", "8")],
    );
    let code = Code {
        defaults: BreakerConfig::default().reset_timeout(Duration::from_secs(9)).half_open_max_calls(9),
        operator: [(
            "x".into(),
            BreakerConfig::default().failure_threshold(9).ramp_up(Duration::from_secs(9)),
        )]
        .into(),
    };
    let layers = Layers::new(&code, &config.unwrap()).unwrap();
    let attribute =
        BreakerConfig::default().failure_threshold(5).success_threshold(5).cache_ttl(Duration::from_secs(5));
    let settings = layers.resolve("x", &attribute).unwrap();
    let shown = layers.shown("x", &attribute, &settings);
    let of = |name: &str| {
        let setting = shown.iter().find(|setting| setting.name == name).unwrap();
        (setting.value.as_str(), setting.origin)
    };
    assert_eq!(of("failure_threshold"), ("7", Origin::Operator));
    assert_eq!(of("minimum_calls"), ("8", Origin::Operator));
    assert_eq!(of("ramp_up"), ("9s", Origin::Operator));
    assert_eq!(of("success_threshold"), ("5", Origin::Attribute));
    assert_eq!(of("cache_ttl"), ("5s", Origin::Attribute));
    assert_eq!(of("reset_timeout"), ("1s", Origin::Defaults));
    assert_eq!(of("half_open_max_calls"), ("9", Origin::Defaults));
    assert_eq!(of("call_timeout"), ("off", Origin::BuiltIn));
    assert_eq!(of("failure_rate_threshold"), ("off", Origin::BuiltIn));
    let mut names: Vec<_> = shown.iter().map(|setting| setting.name).collect();
    let mut all = BreakerConfig::NAMES.to_vec();
    names.sort_unstable();
    all.sort_unstable();
    assert_eq!(names, all, "every setting is shown once");
}

/// Values of settings, as a user may write them.
fn setting() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        "[0-9]{0,21}(ns|ms|s|m|h|days|y|)".prop_map(|span| format!("\"{span}\"")),
        "[a-z\"'\\[\\]{},:= 0-9.-]{0,30}",
        ".{0,30}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_file_is_read_or_refused(text in "(?s).{0,200}") {
        let _ = toml(&text, &[]);
        let _ = read(Some(("cb.yaml", &text, FileFormat::Yaml)), Vec::new());
    }

    #[test]
    fn any_value_of_a_setting_is_read_or_refused(
        name in prop::sample::select(BreakerConfig::NAMES.to_vec()),
        value in setting(),
    ) {
        let _ = toml(&format!("[defaults]\n{name} = {value}\n"), &[]);
        let _ = read(Some(("cb.yaml", &format!("defaults:\n  {name}: {value}\n"), FileFormat::Yaml)), Vec::new());
        let _ = toml("", &[(&format!("CB_DEFAULTS__{}", name.to_uppercase()), &value)]);
    }

    #[test]
    fn any_variable_is_read_or_refused(name in "CB_[A-Z_]{0,30}", value in setting()) {
        let _ = toml(FILE, &[(&name, &value)]);
    }
}
