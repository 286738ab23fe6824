//! Redis behind TLS and a user who may do no more than is documented.

mod common;

use cb_runtime::State;
use cb_testkit::{Authority, Certificate, RedisServer, Reply};
use serde_json::json;

use common::protocol::{Act, Ended, Event, FleetRows, Function, Override, Request};
use common::{Instance, PATIENCE, within, within_t};

const NAME: &str = "orders";

fn good() -> Act {
    Act::Succeed(Some("fresh".into()))
}

/// An authority that no platform trusts, and what it has signed for the server.
fn authority() -> (Authority, Certificate) {
    let authority = Authority::new();
    let certificate = authority.sign("server", &["127.0.0.1"]);
    (authority, certificate)
}

fn server(authority: &Authority, certificate: &Certificate) -> RedisServer {
    RedisServer::start_tls(authority, certificate, &[])
}

/// The address with the authority's file.
fn trusting(url: &str, authority: &Authority) -> String {
    format!("{url}?cacert={}", authority.file().display())
}

#[track_caller]
fn instance(url: &str) -> Instance {
    prepared(Instance::on(url))
}

/// One that finds the authority where the whole process does.
#[track_caller]
fn instance_with_roots(url: &str, authority: &Authority) -> Instance {
    let roots = authority.file().display().to_string();
    let instance = Instance::with_environment(&[("SSL_CERT_FILE", roots.as_str())]);
    let _id: String = instance.ask(&Request::Install { url: Some(url.into()), namespace: "tests".into() });
    prepared(instance)
}

#[track_caller]
fn prepared(instance: Instance) -> Instance {
    instance.create(NAME, json!({"failure_threshold": 3, "reset_timeout": "1h"}));
    instance
}

/// The command in docs/redis.md that makes a user, so that what is documented is what is tested.
fn documented_user() -> Vec<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/redis.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    let command = page.lines().find(|line| line.starts_with("ACL SETUSER breaker ")).expect("and has it");
    command.split_whitespace().map(ToOwned::to_owned).collect()
}

/// It is on its own, says `why` in the background, and serves all the same.
#[track_caller]
fn serves_alone(instance: &Instance, why: &str) {
    within(PATIENCE, "what is wrong is told", || {
        let told = instance.errors().iter().any(|trouble| trouble.is_store && trouble.text.contains(why));
        // A loss is told once. If its first reason was a slow machine, who asks hears of the true one.
        told || instance.try_ask::<FleetRows>(&Request::Fleet).is_err_and(|error| error.contains(why))
    });
    let calls = instance.call(NAME, good(), 100);
    assert!(calls.ended.iter().all(|ended| *ended == Ended::value("fresh")), "{calls:?}");
    assert!(calls.took_us < 2_000_000, "{calls:?}");
    let calls = instance.fail(NAME, 4);
    assert_eq!((calls.failed(), calls.rejected()), (3, 1), "it opens by itself");
    let error = instance.try_steer(NAME, Override::Reset).expect_err("an operator gets an error");
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn a_fleet_whose_user_may_do_what_is_documented_agrees_on_a_trip() {
    let (authority, certificate) = authority();
    let redis = server(&authority, &certificate);
    redis.cli(&documented_user());
    let url = redis.tls_url().replace("rediss://", "rediss://breaker:secret@");
    let a = instance(&trusting(&url, &authority));
    let b = instance_with_roots(&url, &authority);
    b.succeed(NAME, 5);
    within_t("the fleet counts together", || a.fleet(NAME).successes == 5);

    a.fail(NAME, 3);
    within_t("both are open", || [&a, &b].iter().all(|i| i.is(NAME, State::Open)));
    assert!(b.call(NAME, good(), 10).all_rejected());
    b.steer(NAME, &Override::Reset);
    within_t("and closed again", || [&a, &b].iter().all(|i| i.is(NAME, State::Closed)));

    // What one of them caches answers in the other one.
    for instance in [&a, &b] {
        instance.configure(Function::Cached, json!({"failure_threshold": 100}));
    }
    a.run(Function::Cached, 1, good());
    within_t("the cached result is there", || b.run(Function::Cached, 1, Act::Fail) == Ended::value("fresh"));

    let clients = redis.cli(&["CLIENT", "LIST"]);
    assert!(clients.lines().filter(|line| line.contains("user=breaker")).count() >= 4, "{clients}");
    assert_eq!(redis.command(&["ACL", "LOG"]), Reply::Many(vec![]), "nothing was denied");
}

#[test]
fn when_the_server_is_back_the_fleet_is_together_again() {
    let (authority, certificate) = authority();
    let redis = server(&authority, &certificate);
    let url = trusting(&redis.tls_url(), &authority);
    let [a, b] = [instance(&url), instance(&url)];
    a.succeed(NAME, 1);
    within_t("the store knows them", || b.fleet(NAME).successes == 1);

    redis.stop();
    a.succeed(NAME, 1);
    b.succeed(NAME, 1);
    within_t("both know it has gone", || [&a, &b].iter().all(|i| i.events().contains(&Event::StoreLost)));
    redis.restart();
    within_t("and that it is back", || [&a, &b].iter().all(|i| i.events().contains(&Event::StoreRestored)));
    a.fail(NAME, 3);
    within_t("both are open", || [&a, &b].iter().all(|i| i.is(NAME, State::Open)));
}

#[test]
fn a_server_that_asks_for_a_certificate_is_shown_one() {
    let (authority, certificate) = authority();
    let redis = RedisServer::start_tls(&authority, &certificate, &["--tls-auth-clients", "yes"]);
    let url = trusting(&redis.tls_url(), &authority);
    serves_alone(&instance(&url), "?cert=/path/to/cert.pem&key=/path/to/key.pem");

    let Certificate { certificate, key } = authority.sign("client", &[]);
    let url = format!("{url}&cert={}&key={}", certificate.display(), key.display());
    let [a, b] = [instance(&url), instance(&url)];
    a.fail(NAME, 3);
    within_t("both are open", || [&a, &b].iter().all(|i| i.is(NAME, State::Open)));
}

#[test]
fn an_unknown_authority_is_said_with_what_to_do() {
    let (authority, certificate) = authority();
    let redis = server(&authority, &certificate);
    let url = redis.tls_url().replace("rediss://", "rediss://:secret@");
    serves_alone(&instance(&url), "?cacert=/path/to/ca.pem in the address");
    // One that has the same name, as after a change of keys.
    serves_alone(&instance(&trusting(&url, &Authority::new())), "?cacert=/path/to/ca.pem in the address");
}

#[test]
fn a_certificate_for_another_host_is_said_with_the_hosts_that_it_is_for() {
    let authority = Authority::new();
    let redis = server(&authority, &authority.sign("server", &["redis.internal"]));
    serves_alone(&instance(&trusting(&redis.tls_url(), &authority)), "redis.internal");
}

#[test]
fn no_tls_where_the_server_speaks_it_is_said() {
    let (authority, certificate) = authority();
    let redis = server(&authority, &certificate);
    for user in ["", ":secret@"] {
        serves_alone(&instance(&format!("redis://{user}127.0.0.1:{}", redis.tls_port())), "write rediss://");
    }
}

#[test]
fn tls_where_the_server_does_not_speak_it_is_said() {
    let redis = RedisServer::start();
    serves_alone(&instance(&format!("rediss://:secret@127.0.0.1:{}", redis.port())), "redis://");
}

#[test]
fn a_file_that_is_not_there_is_an_error_at_once() {
    let instance = Instance::bare();
    let url = "rediss://:secret@localhost?cacert=/not/there.pem".to_owned();
    let order = Request::Install { url: Some(url), namespace: "tests".into() };
    let error = instance.try_ask::<String>(&order).expect_err("no registry");
    assert!(error.contains("cacert=/not/there.pem: No such file"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}
