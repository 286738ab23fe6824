//! What Redis has for people who look at the fleet. Plain commands: nothing here has to happen at one moment.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::RedisStore;
use super::keys::{decode, encode};
use crate::error::Error;
use crate::store::{BoxFuture, Detail, FleetRow, IDLE, MAX_COUNT, Names, Overview, Topic};

/// What is asked of Redis in one pipeline, so that a large fleet does not hold up other clients.
const DETAILS_AT_ONCE: usize = 200;

/// opened_at, last_failure_at, leader, leader_until_us; the quiet field; how many leases are out.
type DetailReply = ((Option<String>, Option<String>, Option<String>, Option<String>), Option<String>, u32);

impl RedisStore {
    async fn some_details(&self, names: &[Arc<str>], now_us: u64) -> Result<Vec<Detail>, Error> {
        let mut pipe = redis::pipe();
        for name in names {
            let name = encode(name);
            pipe.cmd("HMGET").arg(self.keys.breaker(&name));
            pipe.arg("opened_at").arg("last_failure_at").arg("leader").arg("leader_until_us");
            pipe.cmd("HGET").arg(self.keys.quiet()).arg(&name);
            pipe.cmd("ZCOUNT").arg(self.keys.leases(&name)).arg(format!("({now_us}")).arg("+inf");
        }
        let replies: Vec<redis::Value> = self.request("reading the fleet's breakers", &pipe).await?;
        let read = |reply: &[redis::Value]| {
            let reply = redis::Value::Array(reply.to_vec());
            let reply: DetailReply = redis::from_redis_value(reply).ok()?;
            Some(detail(reply, now_us))
        };
        Ok(replies.chunks(3).map(|reply| read(reply).unwrap_or_default()).collect())
    }
}

fn detail((hash, quiet, probes): DetailReply, now_us: u64) -> Detail {
    let (opened_at, last_failure_at, leader, leader_until_us) = hash;
    let number = |text: Option<&str>| text?.parse::<u64>().ok().filter(|number| *number <= MAX_COUNT);
    let milliseconds = |text: Option<String>| number(text.as_deref()).map(|ms| ms.saturating_mul(1000));
    // What reports have told, and no exchange has moved to the breaker's hash yet.
    let reported = quiet.as_deref().and_then(|quiet| number(quiet.split('|').nth(3)));
    let leads = number(leader_until_us.as_deref()).is_some_and(|until| until > now_us);
    Detail {
        opened_at_us: milliseconds(opened_at),
        last_failure_at_us: milliseconds(last_failure_at).max(reported),
        probes,
        leader: leader.filter(|leader| leads && !leader.is_empty()),
    }
}

impl Overview for RedisStore {
    fn names(&self) -> BoxFuture<'_, Result<Names, Error>> {
        Box::pin(async move {
            let doing = "reading the fleet's names";
            let (_, held) = self.roll(doing, "held").await?;
            let (_, mut all) = self.roll(doing, "all").await?;
            let names = |encoded: &[String]| {
                encoded.iter().filter_map(|name| decode(name).map(Arc::from)).collect::<Vec<Arc<str>>>()
            };
            let is_held: std::collections::HashSet<_> = held.iter().collect();
            all.retain(|name| !is_held.contains(name));
            Ok(Names { held: names(&held), closed: names(&all) })
        })
    }

    fn read(&self, names: Vec<Arc<str>>) -> BoxFuture<'_, Result<Vec<FleetRow>, Error>> {
        let encoded = names.iter().map(|name| encode(name)).collect();
        Box::pin(self.rows("reading the fleet's breakers", encoded))
    }

    fn details(&self, names: Vec<Arc<str>>, now_us: u64) -> BoxFuture<'_, Result<Vec<Detail>, Error>> {
        Box::pin(async move {
            let mut details = Vec::with_capacity(names.len());
            for some in names.chunks(DETAILS_AT_ONCE) {
                details.extend(self.some_details(some, now_us).await?);
            }
            Ok(details)
        })
    }

    fn post(&self, instance: Arc<str>, posts: Vec<(Topic, String)>) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(async move {
            let mut pipe = redis::pipe();
            for (topic, text) in posts {
                pipe.cmd("HSET").arg(self.keys.board(topic)).arg(&*instance).arg(text).ignore();
            }
            for topic in Topic::ALL {
                pipe.cmd("EXPIRE").arg(self.keys.board(topic)).arg(IDLE.as_secs()).ignore();
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
