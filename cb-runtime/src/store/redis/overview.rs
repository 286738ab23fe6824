//! The overview of the fleet, read with plain commands: it need not be a consistent snapshot.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::RedisStore;
use super::keys::{decode, encode};
use super::plain_rows::{ReportedRow, stored_number};
use super::wire::{DecodeError, ReplyReader};
use crate::error::Error;
use crate::store::{BoxFuture, Detail, FleetRow, IDLE, LeaderView, Overview, Posts, Record, Roll, Topic};

/// Members of a sorted set or a hash that one command is to look at.
const SCANNED_AT_ONCE: usize = 500;
const READING: &str = "reading the fleet's breakers";

impl RedisStore {
    /// All members of a sorted set or all fields of a hash, each with its value, by ZSCAN or HSCAN: what is
    /// there all the while is found, and no command holds up other clients. Bytes that are no text are
    /// replaced, so that what has them is no name.
    async fn scan(&self, command: &str, key: &str) -> Result<Vec<(String, String)>, Error> {
        let mut found = Vec::new();
        let mut cursor = 0_u64;
        loop {
            let mut command = redis::cmd(command);
            command.arg(key).arg(cursor).arg("COUNT").arg(SCANNED_AT_ONCE);
            let (next, some): (u64, Pairs) = self.request(READING, &command).await?;
            found.extend(some.into_iter().map(|(name, value)| (text(&name), text(&value))));
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
        for (names, is_held) in [(held, true), (names, false)] {
            for (encoded, _at) in names.into_iter().filter(|(encoded, _)| seen.insert(encoded.clone())) {
                match decode(&encoded).map(Arc::from) {
                    Some(name) if is_held => roll.held.push(name),
                    Some(name) => roll.closed.push(name),
                    None => roll.complete.push(self.no_name(&encoded)),
                }
            }
        }
        for (encoded, text) in quiet.into_iter().filter(|(encoded, _)| seen.insert(encoded.clone())) {
            let Some(name) = decode(&encoded).map(Arc::<str>::from) else {
                // A field that begins with a space is a count window.
                if !encoded.starts_with(' ') {
                    roll.complete.push(self.no_name(&encoded));
                }
                continue;
            };
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

    /// The row of a listed text that is no breaker's name.
    pub(super) fn no_name(&self, listed: &str) -> (FleetRow, Detail) {
        let (held, names, quiet) = (self.keys.held(), self.keys.names(), self.keys.quiet());
        let problem = format!(
            "{held}, {names} and {quiet} may list names of breakers only, and {listed:?} is none; \
             remove it there"
        );
        (FleetRow { name: listed.into(), view: Err(problem) }, Detail::default())
    }
}

/// What is stored by name. Anyone may have written it, so it need not be text.
type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn posts(pairs: Pairs) -> Posts {
    // An instance's name is text. A post that is none is damaged, and its reader finds that out.
    let posts = pairs
        .into_iter()
        .filter_map(|(instance, post)| Some((String::from_utf8(instance).ok()?.into(), text(&post))));
    posts.collect()
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
                // The script that a new instance begins with repairs damaged keys.
                Err(error) if error.to_string().contains("WRONGTYPE") => {
                    let (load, _) = self.names(READING, "all").await?;
                    Ok(Roll { warnings: load.warnings, ..self.scan_roll().await? })
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

    fn posts(&self, topic: Topic) -> BoxFuture<'_, Result<Posts, Error>> {
        Box::pin(async move {
            let command = redis::cmd("HGETALL").arg(self.keys.board(topic)).to_owned();
            Ok(posts(self.request("reading the fleet's instances", &command).await?))
        })
    }

    fn some_posts(&self, topic: Topic, count: usize) -> BoxFuture<'_, Result<Posts, Error>> {
        Box::pin(async move {
            let mut command = redis::cmd("HRANDFIELD");
            command.arg(self.keys.board(topic)).arg(count).arg("WITHVALUES");
            Ok(posts(self.request("reading some of the fleet's instances", &command).await?))
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
