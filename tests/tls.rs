//! Redis behind TLS, with an ACL user that has only the documented permissions.

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

/// An authority that no platform trusts, and a certificate that it signed for the server.
fn authority() -> (Authority, Certificate) {
    let authority = Authority::new();
    let certificate = authority.sign("server", &["127.0.0.1"]);
    (authority, certificate)
}

fn server(authority: &Authority, certificate: &Certificate) -> RedisServer {
    RedisServer::start_tls(authority, certificate, &[])
}

/// The address with the authority's file as `cacert`.
fn trusting(url: &str, authority: &Authority) -> String {
    format!("{url}?cacert={}", authority.file().display())
}

#[track_caller]
fn instance(url: &str) -> Instance {
    // Several tests need an instance that cannot connect.
    with_breaker(Instance::without_store(url))
}

/// An instance that trusts the authority through the process's `SSL_CERT_FILE`.
#[track_caller]
fn instance_with_roots(url: &str, authority: &Authority) -> Instance {
    let roots = authority.file().display().to_string();
    let instance = Instance::with_environment(&[("SSL_CERT_FILE", roots.as_str())]);
    let _id: String =
        instance.ask(&Request::Install { url: Some(url.into()), namespace: "tests".into(), connects: false });
    with_breaker(instance)
}

#[track_caller]
fn with_breaker(instance: Instance) -> Instance {
    instance.create(NAME, json!({"failure_threshold": 3, "reset_timeout": "1h"}));
    instance
}

/// The `ACL SETUSER` command in docs/redis.md, so that the documented permissions are the tested ones.
fn documented_user() -> Vec<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/redis.md");
    let page = std::fs::read_to_string(page).expect("docs/redis.md exists");
    let command = page
        .lines()
        .find(|line| line.starts_with("ACL SETUSER breaker "))
        .expect("docs/redis.md has the command");
    command.split_whitespace().map(ToOwned::to_owned).collect()
}

/// The successes that the store has counted. `None` if it does not answer: a TLS handshake on a busy machine
/// can take longer than the store's deadline.
fn stored_successes(instance: &Instance) -> Option<u64> {
    let rows: FleetRows = instance.try_ask(&Request::Fleet).ok()?;
    rows.get(NAME).map(|row| row.successes)
}

/// Asserts that the instance serves calls without the store, and that an error with the text `why` is
/// reported.
#[track_caller]
fn serves_locally(instance: &Instance, why: &str) {
    within(PATIENCE, "the error is reported", || {
        let reported = instance.errors().iter().any(|trouble| trouble.is_store && trouble.text.contains(why));
        // A loss is reported once. If a slow machine was its first cause, a request's error has the actual
        // one.
        reported || instance.try_ask::<FleetRows>(&Request::Fleet).is_err_and(|error| error.contains(why))
    });
    let calls = instance.call(NAME, good(), 100);
    assert!(calls.ended.iter().all(|ended| *ended == Ended::value("fresh")), "{calls:?}");
    // Forty seconds, if each of the hundred waited for the store.
    assert!(calls.took_us < 20_000_000, "{calls:?}");
    let calls = instance.fail(NAME, 4);
    assert_eq!((calls.failed(), calls.rejected()), (3, 1), "it opens locally");
    let error = instance.try_steer(NAME, Override::Reset).expect_err("an override is an error");
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn documented_acl_user_suffices_for_a_fleet() {
    let (authority, certificate) = authority();
    let redis = server(&authority, &certificate);
    redis.cli(&documented_user());
    let url = redis.tls_url().replace("rediss://", "rediss://breaker:secret@");
    let a = instance(&trusting(&url, &authority));
    let b = instance_with_roots(&url, &authority);
    b.succeed(NAME, 5);
    within_t("counts are shared", || stored_successes(&a) == Some(5));

    a.fail(NAME, 3);
    within_t("both are open", || [&a, &b].iter().all(|i| i.is(NAME, State::Open)));
    assert!(b.call(NAME, good(), 10).all_rejected());
    b.steer(NAME, &Override::Reset);
    within_t("both are closed again", || [&a, &b].iter().all(|i| i.is(NAME, State::Closed)));

    // A result cached by one instance answers on the other.
    for instance in [&a, &b] {
        instance.configure(Function::Cached, json!({"failure_threshold": 100}));
    }
    // While the store does not answer in time, a result stays with the instance that has it.
    within_t("the cached result is shared", || {
        a.run(Function::Cached, 1, good());
        b.run(Function::Cached, 1, Act::Fail) == Ended::value("fresh")
    });

    let clients = redis.cli(&["CLIENT", "LIST"]);
    assert!(clients.lines().filter(|line| line.contains("user=breaker")).count() >= 4, "{clients}");
    assert_eq!(redis.command(&["ACL", "LOG"]), Reply::Many(vec![]), "nothing was denied");
}

#[test]
fn fleet_reconnects_after_a_restart() {
    let (authority, certificate) = authority();
    let redis = server(&authority, &certificate);
    let url = trusting(&redis.tls_url(), &authority);
    let [a, b] = [instance(&url), instance(&url)];
    a.succeed(NAME, 1);
    within_t("both have reported", || stored_successes(&b) == Some(1));

    redis.stop();
    a.succeed(NAME, 1);
    b.succeed(NAME, 1);
    within_t("both notice the loss", || [&a, &b].iter().all(|i| i.events().contains(&Event::StoreLost)));
    redis.restart();
    within_t("both have the store back", || {
        [&a, &b].iter().all(|i| i.events().contains(&Event::StoreRestored))
    });
    a.fail(NAME, 3);
    within_t("both are open", || [&a, &b].iter().all(|i| i.is(NAME, State::Open)));
}

#[test]
fn client_certificate_is_presented_on_request() {
    let (authority, certificate) = authority();
    let redis = RedisServer::start_tls(&authority, &certificate, &["--tls-auth-clients", "yes"]);
    let url = trusting(&redis.tls_url(), &authority);
    serves_locally(&instance(&url), "?cert=/path/to/cert.pem&key=/path/to/key.pem");

    let Certificate { certificate, key } = authority.sign("client", &[]);
    let url = format!("{url}&cert={}&key={}", certificate.display(), key.display());
    let [a, b] = [instance(&url), instance(&url)];
    a.fail(NAME, 3);
    within_t("both are open", || [&a, &b].iter().all(|i| i.is(NAME, State::Open)));
}

#[test]
fn unknown_authority_error_suggests_cacert() {
    let (authority, certificate) = authority();
    let redis = server(&authority, &certificate);
    let url = redis.tls_url().replace("rediss://", "rediss://:secret@");
    serves_locally(&instance(&url), "?cacert=/path/to/ca.pem in the address");
    // An authority of the same name with another key, as after a rotation.
    serves_locally(&instance(&trusting(&url, &Authority::new())), "?cacert=/path/to/ca.pem in the address");
}

#[test]
fn wrong_host_error_lists_the_certificates_hosts() {
    let authority = Authority::new();
    let redis = server(&authority, &authority.sign("server", &["redis.internal"]));
    serves_locally(&instance(&trusting(&redis.tls_url(), &authority)), "redis.internal");
}

#[test]
fn plain_connection_to_a_tls_port_suggests_rediss() {
    let (authority, certificate) = authority();
    let redis = server(&authority, &certificate);
    for user in ["", ":secret@"] {
        serves_locally(
            &instance(&format!("redis://{user}127.0.0.1:{}", redis.tls_port())),
            "write rediss://",
        );
    }
}

#[test]
fn tls_connection_to_a_plain_port_suggests_redis() {
    let redis = RedisServer::start();
    serves_locally(&instance(&format!("rediss://:secret@127.0.0.1:{}", redis.port())), "redis://");
}

#[test]
fn missing_certificate_file_is_an_install_error() {
    let instance = Instance::bare();
    let url = "rediss://:secret@localhost?cacert=/not/there.pem".to_owned();
    let order = Request::Install { url: Some(url), namespace: "tests".into(), connects: false };
    let error = instance.try_ask::<String>(&order).expect_err("the file is missing");
    assert!(error.contains("cacert=/not/there.pem: No such file"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}
