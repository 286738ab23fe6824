//! The overview of the fleet, read with plain commands: it need not be a consistent snapshot.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::RedisStore;
use super::keys::{decode, encode};
use super::plain_rows::{ReportedRow, stored_number};
use super::wire::{DecodeError, ReplyReader};
use crate::error::Error;
use crate::store::{BoxFuture, Detail, FleetRow, IDLE, LeaderView, Overview, Record, Roll, Topic};

/// Members of a sorted set or a hash that one command is to look at.
const SCANNED_AT_ONCE: usize = 500;
const READING: &str = "reading the fleet's breakers";

impl RedisStore {
    /// All members of a sorted set or all fields of a hash, each with its value, by ZSCAN or HSCAN: what is
    /// there all the while is found, and no command holds up other clients.
    async fn scan(&self, command: &str, key: &str) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        let mut cursor = 0_u64;
        loop {
            let mut command = redis::cmd(command);
            command.arg(key).arg(cursor).arg("COUNT").arg(SCANNED_AT_ONCE);
            let (next, some): (u64, Vec<String>) = self.request(READING, &command).await?;
            found.extend(some);
            cursor = next;
            if cursor == 0 {
                return Ok(found);
            }
        }
    }

    async fn scan_roll(&self) -> Result<Roll, Error> {
        // In this order: a breaker that is noted in another place meanwhile goes from the first to the last.
        let quiet = self.scan("HSCAN", &self.keys.quiet()).await?;
        let names = self.scan("ZSCAN", &self.keys.names()).await?;
        let held = self.scan("ZSCAN", &self.keys.held()).await?;
        let mut roll = Roll::default();
        // What is in several places belongs to the last of them.
        let mut seen = HashSet::new();
        let name_of = |encoded: &str| decode(encoded).map(Arc::<str>::from);
        for (encoded, _lapses_at) in pairs(held) {
            roll.held.extend(name_of(&encoded).filter(|_| seen.insert(encoded)));
        }
        for (encoded, _used_at) in pairs(names) {
            roll.closed.extend(name_of(&encoded).filter(|_| seen.insert(encoded)));
        }
        for (encoded, text) in pairs(quiet) {
            let Some(name) = name_of(&encoded).filter(|_| seen.insert(encoded)) else { continue };
            // With a streak, the breaker has a key that holds failures.
            match ReportedRow::parse(&text).filter(|reported| !reported.has_streak) {
                Some(ReportedRow { counts, failed_at_us, .. }) => {
                    let view = Ok((Record::closed(), counts, 0));
                    let detail = Detail { last_failure_at_us: failed_at_us, ..Detail::default() };
                    roll.complete.push((FleetRow { name, view }, detail));
                }
                None => roll.closed.push(name),
            }
        }
        Ok(roll)
    }
}

fn pairs(flat: Vec<String>) -> impl Iterator<Item = (String, String)> {
    let mut flat = flat.into_iter();
    std::iter::from_fn(move || Some((flat.next()?, flat.next()?)))
}

/// The end of a row of the script `read`.
pub(super) fn detail(row: &mut ReplyReader, now_us: u64) -> Result<Detail, DecodeError> {
    let probes = u32::try_from(row.number()?).unwrap_or(u32::MAX);
    // What reports have added, and no exchange has moved to the breaker's hash yet.
    let reported = stored_number(&row.text()?);
    let (opened_at, last_failure_at) = (row.text()?, row.text()?);
    let (leader, leader_until_us) = (row.text()?, row.text()?);
    let milliseconds = |text: &str| stored_number(text).map(|ms| ms.saturating_mul(1000));
    let leads = stored_number(&leader_until_us).is_some_and(|until| LeaderView::holds(until, now_us));
    Ok(Detail {
        opened_at_us: milliseconds(&opened_at),
        last_failure_at_us: milliseconds(&last_failure_at).max(reported),
        probes,
        leader: Some(leader).filter(|leader| leads && !leader.is_empty()),
    })
}

impl Overview for RedisStore {
    fn roll(&self) -> BoxFuture<'_, Result<Roll, Error>> {
        Box::pin(async move {
            match self.scan_roll().await {
                // The script that a new instance begins with puts damaged keys right.
                Err(error) if error.to_string().contains("WRONGTYPE") => {
                    RedisStore::roll(self, READING, "all").await?;
                    self.scan_roll().await
                }
                answer => answer,
            }
        })
    }

    fn read(&self, names: Vec<Arc<str>>) -> BoxFuture<'_, Result<Vec<(FleetRow, Detail)>, Error>> {
        Box::pin(async move {
            let (mut rows, others) = self.plain_rows(READING, names).await?;
            rows.extend(self.rows(READING, others.iter().map(|name| encode(name)).collect()).await?);
            Ok(rows)
        })
    }

    fn post(&self, instance: Arc<str>, posts: Vec<(Topic, String)>) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(async move {
            let mut pipe = redis::pipe();
            for (topic, text) in posts {
                let board = self.keys.board(topic);
                pipe.cmd("HSET").arg(&board).arg(&*instance).arg(text).ignore();
                pipe.cmd("EXPIRE").arg(&board).arg(IDLE.as_secs()).ignore();
            }
            pipe.cmd("GET").arg(self.keys.watched());
            let (watched,): (Option<String>,) = self.request("telling of this instance", &pipe).await?;
            Ok(watched.is_some())
        })
    }

    fn posts(&self, topic: Topic) -> BoxFuture<'_, Result<Vec<(Arc<str>, String)>, Error>> {
        Box::pin(async move {
            let command = redis::cmd("HGETALL").arg(self.keys.board(topic)).to_owned();
            let posts: HashMap<String, String> =
                self.request("reading the fleet's instances", &command).await?;
            Ok(posts.into_iter().map(|(instance, text)| (instance.into(), text)).collect())
        })
    }

    fn forget(&self, instances: Vec<Arc<str>>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let mut pipe = redis::pipe();
            for topic in Topic::ALL {
                pipe.cmd("HDEL").arg(self.keys.board(topic));
                for instance in &instances {
                    pipe.arg(&**instance);
                }
                pipe.ignore();
            }
            self.request("forgetting instances", &pipe).await
        })
    }

    fn watch_fleet(&self, span: Duration) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1);
            let command = redis::cmd("SET").arg(self.keys.watched()).arg(1).arg("PX").arg(span).to_owned();
            self.request("looking at the fleet", &command).await
        })
    }
}
