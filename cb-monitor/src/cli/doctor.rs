//! `cbctl doctor`: checks Redis, its settings, the permissions and the fleet.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use cb_runtime::inspect::{self, Server};
use redis::aio::MultiplexedConnection;
use redis::{RedisError, cmd};
use serde::Serialize;

use super::args::Connection;
use super::client::Client;
use super::{Failure, output, text};
use crate::figures::Figures;
use crate::fleet::Instances;

/// The timeout of a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// The timeout of the first PING. A slower server is not examined further.
const ANSWER: Duration = Duration::from_secs(3);
/// The oldest version that has all commands of the scripts.
const OLDEST: (u32, u32) = (6, 2);
/// The difference between clocks, in seconds, that makes logs hard to compare. The fleet itself compares only
/// Redis' clock.
const SKEW: f64 = 2.0;

/// The result of one check.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Fine,
    /// It works, but may need attention.
    Notice,
    Problem,
}

#[derive(Default)]
struct Findings {
    list: Vec<Finding>,
    /// The prefix of messages: the server that they concern, if there are several.
    place: String,
}

impl Findings {
    fn add(&mut self, check: &'static str, verdict: Verdict, message: &str) {
        self.list.push(Finding { check, verdict, message: format!("{}{message}", self.place) });
    }

    fn fine(&mut self, check: &'static str, message: impl AsRef<str>) {
        self.add(check, Verdict::Fine, message.as_ref());
    }

    fn notice(&mut self, check: &'static str, message: impl AsRef<str>) {
        self.add(check, Verdict::Notice, message.as_ref());
    }

    fn problem(&mut self, check: &'static str, message: impl AsRef<str>) {
        self.add(check, Verdict::Problem, message.as_ref());
    }
}

pub(super) async fn run(connection: &Connection, json: bool) -> Result<(), Failure> {
    let mut findings = Findings::default();
    match inspect::connect(connection.target()?, PATIENCE).await {
        Ok(mut servers) => match refusal(&mut servers).await {
            Some(error) => findings.problem("connection", advice(&error)),
            None => look_at(&mut servers, &connection.namespace, &mut findings).await,
        },
        Err(error) => findings.problem("connection", advice(&error.to_string())),
    }
    fleet(connection, &mut findings).await?;
    let printed = print(&findings.list, json);
    let problem = findings.list.iter().any(|finding| finding.verdict == Verdict::Problem);
    if problem { Err(Failure::Reported) } else { printed }
}

async fn look_at(servers: &mut [Server], namespace: &str, findings: &mut Findings) {
    let addresses: Vec<_> = servers.iter().map(|server| &*server.address).collect();
    findings.fine("connection", format!("{} answers", addresses.join(", ")));
    let several = servers.len() > 1;
    for Server { address, connection } in &mut *servers {
        findings.place = if several { format!("{address}: ") } else { String::new() };
        server(connection, findings).await;
        clock(connection, findings).await;
    }
    findings.place.clear();
    permissions(servers, namespace, findings).await;
}

/// The error of a server that requires a login or does not answer.
async fn refusal(servers: &mut [Server]) -> Option<String> {
    for Server { address, connection } in servers {
        let ping = cmd("PING");
        match tokio::time::timeout(ANSWER, ping.query_async::<()>(connection)).await {
            Ok(Err(error)) if error.code() == Some("NOAUTH") => return Some(error.to_string()),
            Ok(_) => {}
            Err(_) => return Some(format!("{address} has not answered within {ANSWER:?}")),
        }
    }
    None
}

/// A connection error with its likely remedy.
fn advice(error: &str) -> String {
    let todo = if error.contains("WRONGPASS")
        || error.contains("AuthenticationFailed")
        || error.contains("NOAUTH")
    {
        "check user and password in --redis"
    } else if error.contains("refused") {
        "is Redis running, and the port right?"
    } else if ["not answered within", "no answer", "timed out"].iter().any(|said| error.contains(said)) {
        "it accepts connections, so it is frozen or busy; check its CPU usage and its SLOWLOG"
    } else if error.contains("DB index") {
        "the database in the address does not exist"
    } else if error.contains("certificate") {
        "check ?cacert= in --redis"
    } else if error.contains("no master with the name") {
        "check --sentinel"
    } else if error.contains("cluster support disabled") {
        "this server is not part of a cluster; omit --cluster"
    } else {
        "check --redis (CB_REDIS_URL)"
    };
    format!("{error}: {todo}")
}

async fn server(redis: &mut MultiplexedConnection, findings: &mut Findings) {
    let info: String = match cmd("INFO").query_async(redis).await {
        Ok(info) => info,
        Err(error) => {
            findings.notice(
                "server",
                format!("INFO is not allowed ({error}), so the server's settings are unknown"),
            );
            return;
        }
    };
    let field = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim()
    };
    let version = field("redis_version");
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let number: (u32, u32) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if number >= OLDEST {
        findings.fine("version", format!("Redis {version}"));
    } else {
        findings.problem("version", format!("Redis {version} is too old; 6.2 or later is needed"));
    }
    if field("role") == "slave" {
        findings
            .problem("role", "this is a replica, which takes no writes; name its master, or use --sentinel");
    } else {
        findings.fine("role", field("role"));
    }
    eviction(field("maxmemory_policy"), findings);
    let (used, max) =
        (field("used_memory").parse().unwrap_or(0.0), field("maxmemory").parse().unwrap_or(0.0));
    if max > 0.0 && used > 0.9 * max {
        findings.problem(
            "memory",
            format!("{} of {} are used; writes will fail soon", megabytes(used), megabytes(max)),
        );
    } else {
        findings.fine("memory", format!("{} used", megabytes(used)));
    }
    if field("aof_enabled") == "0" && takes_no_snapshots(redis).await {
        findings.notice(
            "persistence",
            "nothing is written to disk: manual overrides end with a restart of Redis",
        );
    }
    findings.fine(
        "cost",
        format!(
            "{} clients, {} commands a second in all",
            field("connected_clients"),
            field("instantaneous_ops_per_sec")
        ),
    );
}

fn eviction(policy: &str, findings: &mut Findings) {
    match policy {
        "" => {}
        "noeviction" | "volatile-lru" | "volatile-lfu" | "volatile-ttl" | "volatile-random" => {
            findings.fine("eviction", format!("maxmemory-policy {policy} keeps manual overrides"));
        }
        _ => findings.problem(
            "eviction",
            format!("maxmemory-policy {policy} may evict open circuits and manual overrides when memory is short; use noeviction or volatile-ttl"),
        ),
    }
}

/// Whether the server is known to take no snapshots. Only its configuration has that, which an ACL may hide.
async fn takes_no_snapshots(redis: &mut MultiplexedConnection) -> bool {
    let config = cmd("CONFIG").arg("GET").arg("save").query_async::<HashMap<String, String>>(redis).await;
    config.is_ok_and(|config| config.get("save").is_some_and(String::is_empty))
}

fn megabytes(bytes: f64) -> String {
    format!("{:.1} MB", bytes / 1_000_000.0)
}

async fn clock(redis: &mut MultiplexedConnection, findings: &mut Findings) {
    let mut spans = Vec::new();
    let mut skew = 0.0;
    for _ in 0..5 {
        let start = Instant::now();
        let Ok((seconds, micros)) = cmd("TIME").query_async::<(u64, u32)>(redis).await else {
            findings.problem("clock", "TIME is not allowed; every exchange needs it");
            return;
        };
        let took = start.elapsed();
        let there = seconds as f64 + f64::from(micros) / 1e6;
        let here = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        skew = there - here + took.as_secs_f64() / 2.0;
        spans.push(took);
    }
    spans.sort();
    let (median, slowest) = (spans[2], spans[4]);
    let message = format!("a round trip takes {median:.1?} (slowest of five: {slowest:.1?})");
    if slowest > Duration::from_millis(100) {
        findings.notice("latency", format!("{message}; transitions reach instances late"));
    } else {
        findings.fine("latency", message);
    }
    if skew.abs() > SKEW {
        let message = format!(
            "Redis' clock differs from this machine's by {skew:.1} s; times in logs cannot be compared"
        );
        findings.notice("clock", message);
    } else {
        findings.fine("clock", format!("Redis' clock differs by {skew:.3} s"));
    }
}

/// Tries the kinds of command that the fleet needs, on a key that no instance uses.
async fn permissions(servers: &mut [Server], namespace: &str, findings: &mut Findings) {
    let key = format!("cb1:{{{namespace}}}:doctor");
    let script = "redis.call('SET', KEYS[1], '1', 'PX', 1000) return redis.call('DEL', KEYS[1])";
    let mut tried = Ok(0);
    for Server { connection, .. } in servers {
        tried = async {
            let sha: String = cmd("SCRIPT").arg("LOAD").arg(script).query_async(connection).await?;
            let written = cmd("EVALSHA").arg(sha).arg(1).arg(&key).query_async::<i64>(connection).await?;
            cmd("HSCAN").arg(&key).arg(0).query_async::<redis::Value>(connection).await?;
            Ok::<_, RedisError>(written)
        }
        .await;
        // In a cluster, one master has the namespace's keys; the others answer MOVED.
        if !tried.as_ref().is_err_and(|error| error.code() == Some("MOVED")) {
            break;
        }
    }
    match tried {
        Ok(_) => findings.fine("permissions", "scripts may be loaded and run, and may write below cb1:"),
        Err(error) => findings.problem(
            "permissions",
            format!(
                "a command below cb1: is refused ({error}); docs/redis.md has the ACL that the fleet needs"
            ),
        ),
    }
}

async fn fleet(connection: &Connection, findings: &mut Findings) -> Result<(), Failure> {
    let client = Client::connect(connection)?;
    let mut figures = Figures::default();
    let start = Instant::now();
    match client.read(&mut figures).await {
        Ok(damage) => {
            let namespace = text::plain(&connection.namespace);
            let noun = if figures.len() == 1 { "breaker" } else { "breakers" };
            let message = format!(
                "namespace \"{namespace}\" has {} {noun}, read in {:.1?}",
                figures.len(),
                start.elapsed()
            );
            match figures.len() {
                0 if damage.is_empty() => {
                    findings.notice("fleet", format!("{message}: is --namespace right?"));
                }
                _ => findings.fine("fleet", message),
            }
            for problem in damage {
                findings.notice("damage", format!("{problem}; it is left out"));
            }
            let open = figures.open();
            if !open.is_empty() {
                findings.notice(
                    "circuits",
                    format!("{} reject calls; `cbctl list --state open,forced-open` lists them", open.len()),
                );
            }
        }
        Err(failure) => findings.problem("fleet", failure.message().unwrap_or_default()),
    }
    if let Ok(instances) = client.source.instances().await {
        instances_and_drift(&instances, findings);
    }
    client.close().await;
    Ok(())
}

fn instances_and_drift(instances: &Instances, findings: &mut Findings) {
    // This command is an instance, too.
    let others: Vec<_> = instances.list.iter().filter(|instance| !instance.own).collect();
    let alive = others.iter().filter(|instance| !instance.degraded).count();
    let silent: Vec<_> =
        others.iter().filter(|instance| instance.degraded).map(|instance| &*instance.node).collect();
    if others.is_empty() {
        findings.notice("instances", "no instance has reported within the last hour");
    } else if silent.is_empty() {
        findings.fine("instances", format!("{alive} are alive"));
    } else {
        findings.notice("instances", format!("{alive} are alive; silent: {}", silent.join(", ")));
    }
    let versions: std::collections::BTreeSet<_> = others.iter().map(|instance| &*instance.version).collect();
    if versions.len() > 1 {
        let versions = versions.into_iter().collect::<Vec<_>>().join(", ");
        findings.notice("versions", format!("instances run different versions: {versions}"));
    }
    if instances.drifting.is_empty() {
        findings.fine("settings", "all instances have the same settings");
    } else {
        let names = instances.drifting.join(", ");
        findings.notice(
            "settings",
            format!("instances have different settings for {names}; `cbctl show` lists them"),
        );
    }
}

fn print(findings: &[Finding], json: bool) -> Result<(), Failure> {
    if json {
        return output::line(serde_json::json!(findings));
    }
    for Finding { check, verdict, message } in findings {
        let sign = match verdict {
            Verdict::Fine => "ok     ",
            Verdict::Notice => "notice ",
            Verdict::Problem => "PROBLEM",
        };
        output::line(format_args!("{sign}  {check:<12}  {}", text::plain(message)))?;
    }
    Ok(())
}
