//! A fleet of three processes on one Redis: one sees failures, all open, then all recover.
//!
//! ```text
//! cargo run --example fleet
//! ```
//!
//! Starts a redis-server in a temporary directory, an upstream on loopback, and itself three times. Shows
//! when each process observed each transition, and the number of Redis commands.

#[path = "support/upstream.rs"]
mod upstream;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use cb_runtime::{BreakerError, Event, Registry, circuit_breaker};
use cb_testkit::RedisServer;
use owo_colors::OwoColorize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc;
use upstream::Upstream;

const NAMES: [&str; 3] = ["a", "b", "c"];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => parent().await,
        ["instance", name, redis, upstream] => instance(name, redis, upstream).await,
        _ => anyhow::bail!("usage: fleet"),
    }
}

// ---- one instance

#[circuit_breaker(name = "user-service", failure_threshold = 5, reset_timeout = "1s", success_threshold = 2)]
async fn get_user(client: &reqwest::Client, url: &str) -> anyhow::Result<()> {
    client.get(url).send().await?.error_for_status()?;
    Ok(())
}

/// Calls every few milliseconds until stdin ends, and prints transitions and rejections with their time.
async fn instance(name: &str, redis: &str, upstream: &str) -> anyhow::Result<()> {
    let registry = Registry::builder().redis(redis).namespace("fleet").install()?;
    let mut events = registry.subscribe();
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let Event::Transition(t) = event {
                let own = if t.own { "*" } else { "-" };
                println!("{} saw {} {} {} {own} {}", now_us(), t.epoch, t.from, t.to, t.reason);
            }
        }
    });
    let mut parent = BufReader::new(tokio::io::stdin()).lines();
    let (client, url) = (reqwest::Client::new(), format!("{upstream}/callers/{name}"));
    let mut rejected = false;
    loop {
        let error = get_user(&client, &url).await.err();
        let is_rejected = error.is_some_and(|error| error.downcast_ref::<BreakerError>().is_some());
        if is_rejected && !rejected {
            println!("{} rejected", now_us());
        }
        rejected = is_rejected;
        tokio::select! {
            _ = parent.next_line() => break,
            () = tokio::time::sleep(Duration::from_millis(2)) => {}
        }
    }
    registry.shutdown().await;
    println!("{} done", now_us());
    Ok(())
}

/// All processes run on one machine, so their wall clock times can be compared.
fn now_us() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros()
}

// ---- the parent

#[derive(Default)]
struct Row {
    what: String,
    reason: String,
    seen: BTreeMap<&'static str, (u128, bool)>,
}

struct Line {
    instance: &'static str,
    at: u128,
    text: String,
}

async fn parent() -> anyhow::Result<()> {
    let mut out = anstream::stdout();
    RedisServer::available().map_err(anyhow::Error::msg)?;
    let redis = RedisServer::start();
    let upstream = Upstream::start().await?;
    writeln!(out, "\n  {}  {}\n", "Three processes, one Redis".bold(), redis.url().dimmed())?;

    let (sender, mut lines) = mpsc::unbounded_channel();
    let mut children = Vec::new();
    for name in NAMES {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["instance", name, &redis.url(), &upstream.url()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("starting an instance")?;
        let mut stdout = BufReader::new(child.stdout.take().context("its stdout")?).lines();
        let sender = sender.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = stdout.next_line().await {
                if let Some((at, text)) = line.split_once(' ') {
                    let _ =
                        sender.send(Line { instance: name, at: at.parse().unwrap_or(0), text: text.into() });
                }
            }
        });
        children.push(child);
    }
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();

    upstream.wait_for_callers(&NAMES).await;
    let (before, started) = (commands(&redis), std::time::Instant::now());
    writeln!(out, "  healthy: each process calls the upstream every few milliseconds")?;
    tokio::time::sleep(Duration::from_secs(1)).await;

    upstream.break_for("a");
    writeln!(out, "  {}: the upstream now answers 500 to process {} only", "broken".red(), "a".bold())?;
    until(&mut lines, &mut rows, "1 ").await?;
    upstream.mend();
    writeln!(out, "  {}: the circuit is open everywhere; probes will close it\n", "repaired".green())?;
    until(&mut lines, &mut rows, "3 ").await?;
    let (cost, took) = (commands(&redis) - before, started.elapsed());

    for child in &mut children {
        drop(child.stdin.take());
    }
    for child in &mut children {
        child.wait().await?;
    }
    while let Ok(line) = lines.try_recv() {
        take(&mut rows, line);
    }
    print(&mut out, &rows)?;
    #[allow(clippy::cast_precision_loss, reason = "a few hundred commands")]
    let rate = cost as f64 / took.as_secs_f64() / NAMES.len() as f64;
    writeln!(
        out,
        "\n  {} calls reached the upstream; {cost} Redis commands in {:.1} s: {} per second and process\n",
        upstream.requests(),
        took.as_secs_f64(),
        format!("{rate:.1}").bold(),
    )?;
    Ok(())
}

/// Reads lines until all instances have observed the transition whose row begins with `epoch`.
async fn until(
    lines: &mut mpsc::UnboundedReceiver<Line>,
    rows: &mut BTreeMap<String, Row>,
    epoch: &str,
) -> anyhow::Result<()> {
    let all_seen = |rows: &BTreeMap<String, Row>| {
        rows.iter().any(|(key, row)| key.starts_with(epoch) && row.seen.len() == NAMES.len())
    };
    let limit = tokio::time::sleep(Duration::from_secs(60));
    tokio::pin!(limit);
    while !all_seen(rows) {
        tokio::select! {
            line = lines.recv() => take(rows, line.context("an instance ended")?),
            () = &mut limit => anyhow::bail!("not all instances observed the transition within 60 s"),
        }
    }
    Ok(())
}

fn take(rows: &mut BTreeMap<String, Row>, line: Line) {
    let words: Vec<&str> = line.text.splitn(6, ' ').collect();
    match words[..] {
        ["saw", epoch, from, to, own, reason] => {
            let row = rows.entry(format!("{epoch} {to}")).or_default();
            row.what = format!("{from} → {to}");
            row.reason = reason.into();
            row.seen.insert(line.instance, (line.at, own == "*"));
        }
        ["rejected"] => {
            let row = rows.entry("1 open, rejected".into()).or_default();
            row.what = "  first call rejected".into();
            row.seen.entry(line.instance).or_insert((line.at, false));
        }
        _ => {}
    }
}

fn print(out: &mut impl std::io::Write, rows: &BTreeMap<String, Row>) -> anyhow::Result<()> {
    writeln!(out, "  {:<24}{:>10}{:>10}{:>10}   reason", "", "a", "b", "c")?;
    let mut first = 0;
    for row in rows.values() {
        // Rejections are measured from the transition above them.
        if !row.what.starts_with(' ') {
            first = row.seen.values().map(|(at, _)| *at).min().unwrap_or(0);
        }
        write!(out, "  {:<24}", row.what)?;
        for name in NAMES {
            match row.seen.get(name) {
                #[allow(clippy::cast_precision_loss, reason = "milliseconds")]
                Some((at, own)) => {
                    let ms = at.abs_diff(first) as f64 / 1000.0;
                    let sign = if *at < first { "-" } else { "" };
                    let text = format!("{sign}{ms:.2}{}", if *own { "*" } else { " " });
                    if *own { write!(out, "{:>10}", text.bold())? } else { write!(out, "{text:>10}")? }
                }
                None => write!(out, "{:>10}", "–")?,
            }
        }
        writeln!(out, "   {}", row.reason.dimmed())?;
    }
    writeln!(out, "  {}", "milliseconds after the first process that observed it; * originator".dimmed())?;
    Ok(())
}

/// The commands that instances sent: script calls and reads of the event stream. Redis' statistics also count
/// the commands that scripts call, which are left out here.
fn commands(redis: &RedisServer) -> u64 {
    let stats = redis.cli(&["INFO", "commandstats"]);
    stats
        .lines()
        .filter(|line| {
            ["cmdstat_evalsha:", "cmdstat_eval:", "cmdstat_xread:"].iter().any(|name| line.starts_with(name))
        })
        .filter_map(|line| line.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok())
        .sum()
}
