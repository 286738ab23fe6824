//! Faults of the server itself and of the network before it: lost writes, refused writes, revoked rights,
//! killed connections, bytes that arrive late or never.
//!
//! Instances are registries of this process. Each test ends with the fault mended and the fleet in agreement.

mod common;

use std::time::{Duration, Instant};

use cb_runtime::{Breaker, BreakerConfig, CallError, Event, Registry, RegistryBuilder, State};
use cb_testkit::{Proxy, RedisServer, wait_until};

use common::block_on;

const NAME: &str = "orders";
/// A generous bound on everything that ought to take about a second.
const LIMIT: Duration = Duration::from_secs(60);

fn config() -> BreakerConfig {
    BreakerConfig::default().failure_threshold(3).reset_timeout(Duration::from_secs(3600))
}

/// One instance of the fleet, with one breaker.
struct Instance {
    registry: Registry,
    breaker: Breaker,
}

impl Instance {
    fn on(url: &str) -> Instance {
        Instance::with(url, config())
    }

    fn with(url: &str, config: BreakerConfig) -> Instance {
        Instance::of(Registry::builder().redis(url), config)
    }

    fn of(builder: RegistryBuilder, config: BreakerConfig) -> Instance {
        let registry = builder.namespace("faults").build().expect("a registry");
        let breaker = registry.get_or_create(NAME, config);
        Instance { registry, breaker }
    }

    fn fail(&self, times: usize) {
        for _ in 0..times {
            assert!(matches!(self.call(Err(())), Err(CallError::Failed(()))));
        }
    }

    fn call(&self, result: Result<(), ()>) -> Result<(), CallError<()>> {
        block_on(self.breaker.call(async || result))
    }

    /// A thousand calls succeed, and none of them waits for Redis.
    fn assert_undisturbed(&self) {
        let start = Instant::now();
        for _ in 0..1000 {
            self.call(Ok(())).expect("a closed circuit admits calls");
        }
        assert!(start.elapsed() < LIMIT, "1,000 calls took {:?}", start.elapsed());
    }

    fn is(&self, state: State) -> bool {
        let snapshot = self.breaker.snapshot();
        snapshot.state == state && !snapshot.local
    }

    /// What the store counts, once this instance has reported everything.
    fn fleet_failures(&self) -> Option<u64> {
        let rows = block_on(self.registry.fleet()).ok()?;
        Some(rows.iter().find(|row| row.name == NAME).map_or(0, |row| row.failures))
    }
}

#[track_caller]
fn agree(instances: &[&Instance], state: State) {
    wait_until(LIMIT, &format!("every instance is {state}"), || instances.iter().all(|i| i.is(state)));
}

/// The fleet still counts together: two failures here and one there open the circuit everywhere.
#[track_caller]
fn assert_shares(a: &Instance, b: &Instance) {
    agree(&[a, b], State::Closed);
    wait_until(LIMIT, "both instances are connected", || {
        a.fleet_failures().is_some() && b.fleet_failures().is_some()
    });
    a.fail(2);
    wait_until(LIMIT, "the failures are reported", || a.fleet_failures().is_some());
    b.fail(1);
    agree(&[a, b], State::Open);
}

#[test]
fn open_circuit_survives_a_restart_from_an_older_snapshot() {
    let redis = RedisServer::start();
    let (a, b) = (Instance::on(&redis.url()), Instance::on(&redis.url()));
    a.assert_undisturbed();
    redis.cli(&["SAVE"]);
    a.fail(3);
    agree(&[&a, &b], State::Open);

    redis.restart_from_snapshot();

    // The snapshot knows a closed circuit. The instances write the higher epoch back.
    wait_until(LIMIT, "a new instance finds the circuit open", || Instance::on(&redis.url()).is(State::Open));
    agree(&[&a, &b], State::Open);
    assert_eq!((a.breaker.snapshot().epoch, b.breaker.snapshot().epoch), (1, 1));
}

#[test]
fn closed_circuit_survives_a_restart_from_a_snapshot_in_which_it_was_open() {
    let redis = RedisServer::start();
    let (a, b) = (Instance::on(&redis.url()), Instance::on(&redis.url()));
    a.fail(3);
    agree(&[&a, &b], State::Open);
    redis.cli(&["SAVE"]);
    block_on(b.breaker.reset()).expect("the store has the reset");
    agree(&[&a, &b], State::Closed);

    redis.restart_from_snapshot();

    wait_until(LIMIT, "a new instance finds the circuit closed", || {
        Instance::on(&redis.url()).is(State::Closed)
    });
    agree(&[&a, &b], State::Closed);
    assert_eq!((a.breaker.snapshot().epoch, b.breaker.snapshot().epoch), (2, 2));
}

/// A master, and a replica that Sentinel makes the master once the first one is gone.
#[test]
fn open_circuit_survives_a_sentinel_failover_that_loses_its_opening() {
    let master = RedisServer::start_with(&["--repl-diskless-sync-delay", "0"]);
    let replica = RedisServer::start_with(&["--masteruser", "replica", "--masterauth", "secret"]);
    master.cli(&["ACL", "SETUSER", "replica", "on", ">secret", "+psync", "+replconf", "+ping"]);
    replica.cli(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]);
    wait_until(LIMIT, "the replica follows", || replica.info("replication", "master_link_status") == "up");
    let sentinel = RedisServer::start_sentinel("main", &master);
    wait_until(LIMIT, "the sentinel knows the replica", || {
        sentinel.cli(&["SENTINEL", "REPLICAS", "main"]).contains(&replica.port().to_string())
    });
    let instance = || Instance::of(Registry::builder().redis_sentinel([sentinel.url()], "main"), config());
    let (a, b) = (instance(), instance());
    a.assert_undisturbed();

    // From now on the replica receives nothing.
    master.cli(&["ACL", "SETUSER", "replica", "off"]);
    master.cli(&["CLIENT", "KILL", "TYPE", "replica"]);
    wait_until(LIMIT, "the replica is cut off", || master.info("replication", "connected_slaves") == "0");
    a.fail(3);
    agree(&[&a, &b], State::Open);
    assert_ne!(replica.cli(&["HGET", "cb1:{faults}:b:orders", "state"]), "open", "the opening is lost");
    master.stop();

    wait_until(LIMIT, "the new master has the opening", || {
        // A server closes its connections when its role changes.
        replica
            .try_command(&["HGET", "cb1:{faults}:b:orders", "state"])
            .is_ok_and(|state| state.text() == "open")
    });
    agree(&[&a, &b, &instance()], State::Open);
    assert_eq!((a.breaker.snapshot().epoch, b.breaker.snapshot().epoch), (1, 1));
}

#[test]
fn full_redis_that_refuses_writes_disturbs_no_call() {
    let redis = RedisServer::start();
    let (a, b) = (Instance::on(&redis.url()), Instance::on(&redis.url()));
    a.assert_undisturbed();
    let mut events = a.registry.subscribe();
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    wait_until(LIMIT, "the refusal is noticed", || {
        a.assert_undisturbed();
        matches!(events.try_recv(), Some(Event::StoreLost(_)))
    });
    a.assert_undisturbed();

    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_shares(&a, &b);
}

#[test]
fn full_redis_can_be_read() {
    let redis = RedisServer::start();
    let a = Instance::on(&redis.url());
    a.assert_undisturbed();
    a.fail(3);
    agree(&[&a, &Instance::on(&redis.url())], State::Open);
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let reader = Registry::builder().redis(redis.url()).namespace("faults").build().expect("a registry");
    wait_until(LIMIT, "the fleet is read", || {
        block_on(reader.fleet()).is_ok_and(|rows| rows.len() == 1 && rows[0].state == State::Open)
    });
}

#[test]
fn read_only_replica_disturbs_no_call() {
    let redis = RedisServer::start();
    let (a, b) = (Instance::on(&redis.url()), Instance::on(&redis.url()));
    a.assert_undisturbed();
    // A replica of a master that does not answer keeps its data and refuses writes.
    let dead = RedisServer::start();
    let port = dead.port().to_string();
    dead.stop();
    let mut events = a.registry.subscribe();
    redis.cli(&["REPLICAOF", "127.0.0.1", &port]);
    wait_until(LIMIT, "the refusal is noticed", || {
        a.assert_undisturbed();
        matches!(events.try_recv(), Some(Event::StoreLost(_)))
    });
    // Before the failures: a success after them would end the streak that the fleet is to judge.
    b.assert_undisturbed();
    a.fail(3);
    assert_eq!(a.breaker.state(), State::Open, "an instance without a store protects itself");

    redis.cli(&["REPLICAOF", "NO", "ONE"]);
    // Three failures in a row have been reported by now: the fleet judges them.
    agree(&[&a, &b], State::Open);
}

#[test]
fn revoked_rights_disturb_no_call() {
    let redis = RedisServer::start();
    let grant = ["ACL", "SETUSER", "service", "on", ">secret", "~cb1:*", "+@all", "-@admin"];
    redis.cli(&grant);
    let url = format!("redis://service:secret@127.0.0.1:{}", redis.port());
    let (a, b) = (Instance::on(&url), Instance::on(&url));
    a.assert_undisturbed();
    redis.cli(&["ACL", "SETUSER", "service", "resetkeys", "-@all"]);
    a.assert_undisturbed();
    wait_until(LIMIT, "the refusal is noticed", || a.fleet_failures().is_none());
    redis.cli(&["ACL", "DELUSER", "service"]);
    a.assert_undisturbed();
    b.assert_undisturbed();

    redis.cli(&grant);
    assert_shares(&a, &b);
}

#[test]
fn killed_connections_lose_no_count() {
    let redis = RedisServer::start();
    let config = BreakerConfig::default().failure_threshold(1_000_000);
    let (a, b) = (Instance::with(&redis.url(), config.clone()), Instance::with(&redis.url(), config));
    let mut failures = 0;
    for _ in 0..20 {
        a.fail(7);
        failures += 7;
        for kind in ["normal", "pubsub"] {
            redis.cli(&["CLIENT", "KILL", "TYPE", kind]);
        }
        a.fail(3);
        failures += 3;
    }
    wait_until(LIMIT, "the store has every failure", || a.fleet_failures() == Some(failures));
    assert_eq!(b.fleet_failures(), Some(failures), "no failure is counted twice");
}

#[test]
fn paused_clients_lose_no_count() {
    let redis = RedisServer::start();
    let config = BreakerConfig::default().failure_threshold(1_000_000);
    let (a, b) = (Instance::with(&redis.url(), config.clone()), Instance::with(&redis.url(), config));
    for (round, milliseconds) in ["100", "700", "1500"].into_iter().enumerate() {
        a.fail(5);
        redis.cli(&["CLIENT", "PAUSE", milliseconds, "ALL"]);
        a.fail(5);
        a.assert_undisturbed();
        let expected = (round as u64 + 1) * 10;
        wait_until(LIMIT, "the store has every failure", || a.fleet_failures() == Some(expected));
        assert_eq!(b.fleet_failures(), Some(expected), "no failure is counted twice");
    }
}

/// A replica becomes the master, and the old master goes on to run. A proxy that does not know yet leads the
/// connection that is subscribed to the old one, and the connection for commands to the new one.
#[test]
fn watch_on_another_server_than_the_commands_misses_no_event() {
    let (old, new) = (RedisServer::start_with(&["--repl-diskless-sync-delay", "0"]), RedisServer::start());
    let proxy = Proxy::start(old.port());
    let a = Instance::on(&proxy.url());
    a.assert_undisturbed();
    let mut events = a.registry.subscribe();
    let mut epochs = Vec::new();
    let mut has_received = |count| {
        while let Some(event) = events.try_recv() {
            if let Event::Transition(transition) = event {
                epochs.push(transition.epoch);
            }
        }
        (epochs.len() >= count).then(|| epochs.clone())
    };
    block_on(a.breaker.force_open("before the failover")).expect("the store has the override");
    wait_until(LIMIT, "the event arrives", || has_received(1).is_some());
    wait_until(LIMIT, "it is subscribed", || old.subscribed_clients() == 1);
    new.cli(&["REPLICAOF", "127.0.0.1", &old.port().to_string()]);
    wait_until(LIMIT, "the replica follows", || new.info("replication", "master_link_status") == "up");
    wait_until(LIMIT, "the replica has everything", || new.cli(&["DBSIZE"]) == old.cli(&["DBSIZE"]));

    new.cli(&["REPLICAOF", "NO", "ONE"]);
    let accepted = proxy.accepted();
    proxy.redirect(&[new.port(), old.port()]);
    old.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    wait_until(LIMIT, "the connection for commands is made anew", || proxy.accepted() > accepted);
    old.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    wait_until(LIMIT, "both connections are made anew", || proxy.accepted() >= accepted + 2);
    wait_until(LIMIT, "it is subscribed to the old server", || old.subscribed_clients() == 1);
    proxy.redirect(&[new.port()]);
    let b = Instance::on(&new.url());
    block_on(b.breaker.release()).expect("the store has the release");
    block_on(b.breaker.force_open("after the failover")).expect("the store has the override");

    wait_until(LIMIT, "every event arrives", || has_received(3).is_some());
    assert_eq!(has_received(3), Some(vec![1, 2, 3]));
    wait_until(LIMIT, "the old server is left", || old.subscribed_clients() == 0);
}

/// Where connections are dropped all the time, the first loss is reported, and then their number.
#[test]
fn losses_in_quick_succession_are_reported_with_a_summary() {
    let redis = RedisServer::start();
    let a = Instance::on(&redis.url());
    a.assert_undisturbed();
    let mut events = a.registry.subscribe();
    let (mut lost, mut restored, mut summary) = (0, 0, None);
    wait_until(LIMIT, "the losses are summed up", || {
        if a.registry.store_status().is_up() {
            redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        }
        while let Some(event) = events.try_recv() {
            match event {
                Event::StoreLost(_) => lost += 1,
                Event::StoreRestored => restored += 1,
                Event::Error(error) if error.to_string().contains("more, each time") => {
                    summary = Some(error);
                }
                _ => {}
            }
        }
        summary.is_some()
    });
    let summary = summary.expect("waited for");
    assert!(summary.is_store(), "{summary}");
    // On a machine that stalls, a loss may last.
    assert!(
        lost <= 4 && restored <= lost,
        "{lost} losses and {restored} ends were reported, then: {summary}"
    );
}

/// A fault of the network, and how it ends.
fn survives(fault: impl Fn(&Proxy)) {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.port());
    let config = BreakerConfig::default().failure_threshold(1_000_000);
    let (a, b) = (Instance::with(&proxy.url(), config.clone()), Instance::with(&redis.url(), config));
    let mut failures = 0;
    for _ in 0..3 {
        wait_until(LIMIT, "A is connected", || a.fleet_failures() == Some(failures));
        fault(&proxy);
        a.fail(5);
        failures += 5;
        a.assert_undisturbed();
        // The first report meets the fault.
        wait_until(LIMIT, "the failures arrive, or their report is lost", || {
            b.fleet_failures() == Some(failures) || a.fleet_failures().is_none()
        });
        proxy.heal();
    }
    wait_until(LIMIT, "the store has every failure", || a.fleet_failures() == Some(failures));
    assert_eq!(b.fleet_failures(), Some(failures), "no failure is counted twice");
}

#[test]
fn bytes_that_trickle_lose_no_count() {
    survives(Proxy::trickle);
}

#[test]
fn swallowed_answers_count_nothing_twice() {
    survives(Proxy::swallow_answers);
}

#[test]
fn half_closed_connections_lose_no_count() {
    survives(Proxy::half_close);
}
