//! Redis' time for one entry of a request. The requests are those of a real instance, as MONITOR shows them;
//! they are sent again for as many instances, as often as an instance sends them.

use std::time::{Duration, Instant, SystemTime};

use cb_testkit::RedisServer;
use redis::{Cmd, Connection, Value};
use serde::Serialize;

use super::process::{Fleet, LOST, Request};
use super::row::Row;
use super::rows::{WINDOW, used};
use super::support::screen::Progress;

/// The keys that all entries of a request share. The fifth is the instance's sequence.
const SHARED: usize = 6;
const SEQUENCE: usize = 4;

#[derive(Debug, Serialize)]
pub(crate) struct PerEntry {
    pub(crate) request: Kind,
    pub(crate) entries: usize,
    pub(crate) failing: bool,
    pub(crate) instances: usize,
    /// Requests per second of each instance.
    pub(crate) per_second: usize,
    /// Redis' processor time for an entry, less that of an idle server, in microseconds.
    pub(crate) us: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Kind {
    Report,
    Exchange,
}

pub(crate) fn measure(idle: f64, progress: &Progress) -> Vec<PerEntry> {
    let report = |failing| (Kind::Report, 50, failing, 1, [200, 1000]);
    let exchange = (Kind::Exchange, 10, true, 10, [50, 200]);
    let mut measured = Vec::new();
    for (request, entries, failing, per_second, fleets) in [report(false), report(true), exchange] {
        progress.say(&format!("per entry: {request:?}, failing: {failing}"));
        let server = RedisServer::start();
        let template = Template::record(&server, request, entries, failing);
        for instances in fleets {
            let us = template.replay(&server, idle, instances, per_second);
            measured.push(PerEntry { request, entries, failing, instances, per_second, us });
        }
    }
    measured
}

/// A request that an instance has made.
struct Template {
    kind: Kind,
    entries: usize,
    script: String,
    keys: Vec<String>,
    arguments: Vec<String>,
}

impl Template {
    /// Lets an instance call its breakers until it makes such a request.
    fn record(server: &RedisServer, kind: Kind, entries: usize, failing: bool) -> Template {
        let row = Row { breakers: entries, ..Row::ONE };
        let mut fleet = Fleet::start(server, &row);
        fleet.request(&Request::Call { per_second: 20, failing: 0 });
        std::thread::sleep(Duration::from_secs(3));
        if failing {
            // Of all calls 5 or 30 %. From 25 % on, half of the limit, breakers are exchanged.
            let (per_second, failing) = if kind == Kind::Exchange { (40, 45) } else { (20, 10) };
            fleet.request(&Request::Call { per_second, failing });
        }
        let begun = Instant::now();
        while begun.elapsed() < LOST {
            let monitor = server.monitor();
            std::thread::sleep(Duration::from_secs(2));
            let requests = monitor.finish();
            let wanted =
                |request: &String| Template::read(request).filter(|it| it.fits(kind, entries, failing));
            if let Some(found) = requests.iter().rev().find_map(wanted) {
                return found;
            }
        }
        panic!("no {kind:?} of {entries} entries within {LOST:?}");
    }

    /// Reads a line of MONITOR, if it is a script call. MONITOR quotes ASCII texts as JSON does.
    fn read(line: &str) -> Option<Template> {
        let mut texts = serde_json::Deserializer::from_str(line).into_iter::<String>().map_while(Result::ok);
        let command = texts.next()?;
        let (script, count) = (texts.next()?, texts.next()?);
        if !command.eq_ignore_ascii_case("EVALSHA") {
            return None;
        }
        let keys: Vec<_> = texts.by_ref().take(count.parse().ok()?).collect();
        let arguments: Vec<_> = texts.collect();
        let (kind, entries) = match arguments.get(1)?.as_str() {
            "count" => (Kind::Exchange, counted(&arguments).len()),
            _ if keys.len() == SHARED => (Kind::Report, arguments.get(8)?.parse().ok()?),
            _ => return None,
        };
        Some(Template { kind, entries, script, keys, arguments })
    }

    fn fits(&self, kind: Kind, entries: usize, failing: bool) -> bool {
        let fails = || match kind {
            Kind::Report => self.arguments.iter().any(|argument| argument.split(',').count() == 3),
            Kind::Exchange => counted(&self.arguments).iter().all(|counts| counts.contains(',')),
        };
        // Other entries than those with counts have keys.
        self.kind == kind && self.keys.len() == SHARED && self.entries == entries && fails() == failing
    }

    /// The request as an instance would make it now.
    fn command(&self, instance: usize, seq: usize) -> Cmd {
        let mut keys = self.keys.clone();
        let mut arguments = self.arguments.clone();
        keys[SEQUENCE] = format!("{}-{instance}", keys[SEQUENCE]);
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("the clock stands after 1970").as_micros();
        if self.kind == Kind::Report {
            arguments[0] = seq.to_string();
            arguments[1] = now.to_string();
        } else {
            let mut batch = batch(&arguments);
            batch["seq"] = seq.into();
            batch["as_of"] = u64::try_from(now).expect("before 500,000 AD").into();
            arguments[0] = batch.to_string();
        }
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.script).arg(keys.len()).arg(keys).arg(arguments);
        command
    }

    /// Microseconds of the server for an entry.
    #[expect(clippy::cast_precision_loss, reason = "millions at most")]
    fn replay(&self, server: &RedisServer, idle: f64, instances: usize, per_second: usize) -> f64 {
        let client = redis::Client::open(server.url()).expect("an address");
        let connect = |_| client.get_connection().expect("the server is there");
        let mut connections: Vec<Connection> = (0..instances).map(connect).collect();
        let (begun, before, mut sent) = (Instant::now(), used(server), 0);
        while begun.elapsed() < WINDOW {
            let due = begun.elapsed().as_micros() * (instances * per_second) as u128 / 1_000_000;
            if sent as u128 >= due {
                std::thread::sleep(Duration::from_micros(100));
                continue;
            }
            let instance = sent % instances;
            let command = self.command(instance, sent / instances + 1);
            let answer: Value = command.query(&mut connections[instance]).expect("a right request");
            let parts = answer.as_sequence().map_or(0, <[_]>::len);
            assert!(parts >= 4, "refused: {answer:?}");
            sent += 1;
        }
        let seconds = used(server) - before - idle / 100.0 * begun.elapsed().as_secs_f64();
        seconds * 1e6 / (sent * self.entries) as f64
    }
}

/// The counts of an exchange's entries that have only counts.
fn counted(arguments: &[String]) -> Vec<&str> {
    let (mut counts, mut rest) = (Vec::new(), arguments.get(2..).unwrap_or_default());
    while let Some((group, entries)) = rest.split_at_checked(6) {
        let (entries, after) = entries.split_at(group[5].parse::<usize>().map_or(0, |count| 7 * count));
        counts.extend(entries.chunks(7).map(|entry| entry[2].as_str()));
        rest = after;
    }
    counts
}

/// The batch of an exchange; null if it has none.
fn batch(arguments: &[String]) -> serde_json::Value {
    arguments.first().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}
