//! The store that a fleet shares: Redis 6.2 or later, or a compatible server.
//!
//! All commands share one connection; another one is subscribed to events and notices. Connections are made
//! at their first use, dropped when they fail, and made again at the next use. Nothing is retried here: the
//! coordinator decides when. A connection belongs to the runtime of its first use, which should outlive it.

mod address;
mod connect;
mod hint;
#[cfg(all(feature = "cluster", feature = "sentinel"))]
pub(crate) mod inspect;
mod keys;
mod load;
mod open;
mod overview;
mod plain_rows;
mod script;
#[cfg(feature = "sentinel")]
mod sentinel;
mod subscription;
mod target;
#[cfg(feature = "tls")]
mod tls;
mod watch;
mod wire;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use redis::{
    ErrorKind as RedisErrorKind, FromRedisValue, RedisError, RedisResult, ScriptInvocation, ServerErrorKind,
    Value,
};
use tokio::time::timeout;

use super::{
    Acknowledged, Answer, Batch, BoxFuture, Cached, EventsAt, Load, MAX_COUNT, News, Position, Report,
    ResultStore, Retention, Store, StreamEvent,
};
#[cfg(test)]
use crate::clock::Clock;
use crate::error::Error;
use crate::sync::lock;
use crate::timeouts::Timeouts;
use connect::{Dialer, Link};
use keys::{Keys, decode};
use script::Scripts;
use watch::Watching;
use wire::{BatchMessage, DecodeError, EntryMessage, ReplyReader, counted_arguments, report_arguments};

#[cfg(all(feature = "cluster", feature = "sentinel"))]
pub use target::Target;
#[cfg(not(all(feature = "cluster", feature = "sentinel")))]
pub(crate) use target::Target;

/// A century in milliseconds. Redis may reject longer durations.
const LONGEST_TTL: u64 = super::MAX_SPAN_US / 1000;

pub(crate) struct RedisStore {
    dialer: Dialer,
    keys: Keys,
    scripts: Scripts,
    /// The connection and its generation.
    commands: Mutex<Option<(u64, Link)>>,
    watching: tokio::sync::Mutex<Watching>,
    /// Counts connections for commands.
    generation: AtomicU64,
    /// Grows when the server is found not to be the master any more: the watching connection has to move,
    /// too.
    moves: AtomicU64,
    /// A server has answered, so the address is right.
    answered: AtomicBool,
    retention: Option<Retention>,
    timeouts: Timeouts,
    #[cfg(test)]
    clock: Option<Clock>,
}

impl RedisStore {
    #[cfg(test)]
    pub(crate) fn new(target: Target, namespace: &str) -> Result<Self, Error> {
        RedisStore::with_timeouts(target, namespace, Timeouts::default())
    }

    /// Checks the addresses and connects to nothing.
    pub(crate) fn with_timeouts(target: Target, namespace: &str, timeouts: Timeouts) -> Result<Self, Error> {
        Ok(RedisStore {
            dialer: Dialer::new(target, timeouts.clone())?,
            keys: Keys::new(namespace),
            scripts: Scripts::new(),
            commands: Mutex::default(),
            watching: tokio::sync::Mutex::default(),
            generation: AtomicU64::new(0),
            moves: AtomicU64::new(0),
            answered: AtomicBool::new(false),
            retention: None,
            timeouts,
            #[cfg(test)]
            clock: None,
        })
    }

    pub(crate) fn retaining(self, retention: Option<Retention>) -> Self {
        RedisStore { retention, ..self }
    }

    /// Gives the scripts the time of `clock` in place of TIME.
    #[cfg(test)]
    pub(crate) fn on_clock(target: Target, namespace: &str, clock: Clock) -> Self {
        let store = RedisStore::new(target, namespace).expect("a right address");
        RedisStore { scripts: Scripts::on_a_given_clock(), clock: Some(clock), ..store }.patient()
    }

    /// Waits longer for answers: tests on a busy machine must not fail because it is busy.
    #[cfg(test)]
    pub(crate) fn patient(mut self) -> Self {
        self.timeouts = Timeouts::patient();
        self.dialer.timeouts = self.timeouts.clone();
        self
    }

    async fn link(&self) -> Result<(u64, Link), Error> {
        if let Some(there) = lock(&self.commands).clone() {
            return Ok(there);
        }
        let link =
            self.dialer.dial(|| lock(&self.commands).as_ref().map(|(_, link)| link.clone()), None).await?;
        let mut slot = lock(&self.commands);
        Ok(slot.get_or_insert_with(|| (self.generation.fetch_add(1, Ordering::Relaxed), link)).clone())
    }

    /// Sends one request on the connection for commands, which is dropped if it fails. Cancelling leaves the
    /// connection intact.
    async fn request<T>(&self, doing: &'static str, request: impl Request<T>) -> Result<T, Error> {
        self.request_within(self.timeouts.loss(), doing, request).await
    }

    async fn request_within<T>(
        &self,
        limit: Duration,
        doing: &'static str,
        request: impl Request<T>,
    ) -> Result<T, Error> {
        let (generation, mut link) = self.link().await?;
        // After it the connection is dropped, and what has become of the request is unknown.
        let problem = match timeout(limit, request.send(&mut link)).await {
            Ok(Ok(answer)) => {
                self.answered.store(true, Ordering::Relaxed);
                return Ok(answer);
            }
            Ok(Err(error)) if is_an_answer(&error) => {
                self.answered.store(true, Ordering::Relaxed);
                return Err(Error::store(doing, format!("{error}{}", hint::on_refusal(&error))));
            }
            Ok(Err(error)) => {
                if is_not_master(&error) {
                    self.moves.fetch_add(1, Ordering::Relaxed);
                }
                let fresh = !self.answered.load(Ordering::Relaxed);
                let hint = if fresh { self.dialer.hint_on_silence(&error) } else { "" };
                format!("{error}{hint}{}", hint::on_refusal(&error))
            }
            Err(_) => format!("no answer within {limit:?}"),
        };
        lock(&self.commands).take_if(|(current, _)| *current == generation);
        Err(Error::store(doing, problem))
    }

    /// Sends one request about a cached result. In a cluster, its key may be on another node than the
    /// namespace's. If that node is silent or down, the connection to the others is kept.
    async fn cache_request<T>(&self, doing: &'static str, request: impl Request<T>) -> Result<T, Error> {
        #[cfg(feature = "cluster")]
        if let (_, mut link @ Link::Cluster(_)) = self.link().await? {
            let limit = self.timeouts.loss();
            return match timeout(limit, request.send(&mut link)).await {
                Ok(answer) => answer.map_err(|error| Error::store(doing, error)),
                Err(_) => Err(Error::store(doing, format!("no answer within {limit:?}"))),
            };
        }
        self.request(doing, request).await
    }

    async fn run<T>(
        &self,
        limit: Duration,
        doing: &'static str,
        invocation: &mut ScriptInvocation<'_>,
        decode: impl FnOnce(ReplyReader) -> Result<T, DecodeError>,
    ) -> Result<T, Error> {
        #[cfg(test)]
        if let Some(clock) = &self.clock {
            invocation.arg(clock.now().0);
        }
        let answer = self.request_within(limit, doing, &*invocation).await?;
        ReplyReader::of(answer).and_then(decode).map_err(|problem| Error::store(doing, problem))
    }

    async fn exchange(&self, batch: &Batch) -> Result<Answer, Error> {
        let doing = "exchanging counts";
        let mut message = BatchMessage::new(batch, fresh_incarnation(), &self.keys, self.retention);
        let mut invocation = self.scripts.exchange.prepare_invoke();
        self.shared_keys(&mut invocation);
        invocation.key(self.keys.sequence(&batch.instance)).key(self.keys.quiet());
        let mut views = Vec::with_capacity(batch.entries.len());
        let (mut counted, mut others) = (Vec::new(), Vec::new());
        for (place, entry) in batch.entries.iter().enumerate() {
            // Invalid entries are not sent.
            let problem = entry.check().err();
            if problem.is_none() && entry.only_counts() {
                counted.push((place, entry));
            } else if problem.is_none() {
                let sent = EntryMessage::new(entry);
                invocation.key(self.keys.breaker(&sent.name)).key(self.keys.leases(&sent.name));
                if let Some(ask) = &entry.last {
                    invocation.key(self.keys.last(&sent.name, ask));
                }
                message.entries.push(sent);
                others.push(place);
            }
            views.push(problem.map(Err));
        }
        let json = serde_json::to_string(&message).map_err(|problem| Error::store(doing, problem))?;
        invocation.arg(json);
        if counted.is_empty() {
            invocation.arg(message.opening());
        } else {
            invocation.arg("count");
        }
        let counted = counted_arguments(&counted, &mut |argument| {
            invocation.arg(argument);
        });
        self.run(self.timeouts.exchange(batch.entries.len()), doing, &mut invocation, |mut answer| {
            let (now_us, position, warnings) = (answer.number()?, answer.position()?, answer.warnings()?);
            let mut rows = answer.list()?;
            let mut left_over = Vec::new();
            for place in counted {
                match rows.counted_view()? {
                    Some(view) => views[place] = Some(Ok(view)),
                    None => left_over.push(place),
                }
            }
            for place in others.into_iter().chain(left_over) {
                views[place] = Some(rows.view(now_us, &message.node)?);
            }
            Ok(Answer { now_us, position, views: views.into_iter().flatten().collect(), warnings })
        })
        .await
    }

    async fn report(&self, report: &Report) -> Result<Acknowledged, Error> {
        let doing = "reporting counts";
        let mut invocation = self.scripts.report.prepare_invoke();
        self.shared_keys(&mut invocation);
        invocation.key(self.keys.sequence(&report.instance)).key(self.keys.quiet());
        invocation
            .arg(report.seq.min(MAX_COUNT))
            .arg(report.as_of_us.map_or(String::new(), |at| at.to_string()));
        invocation.arg(fresh_incarnation()).arg(self.keys.breaker_prefix()).arg(self.keys.window_prefix());
        let order = report_arguments(&report.entries, &mut |argument| {
            invocation.arg(argument);
        });
        self.run(self.timeouts.report(report.entries.len()), doing, &mut invocation, |mut answer| {
            let (now_us, position, warnings) = (answer.number()?, answer.position()?, answer.warnings()?);
            let places = answer.list()?.numbers()?;
            let place_in = |place| order.get(usize::try_from(place).ok()?.checked_sub(1)?).copied();
            let mut exchange: Vec<usize> = places.into_iter().filter_map(place_in).collect();
            exchange.sort_unstable();
            let suspects = answer.list()?.texts()?;
            let suspects = suspects.iter().filter_map(|name| decode(name));
            Ok(Acknowledged {
                now_us,
                position,
                exchange,
                suspects: suspects.map(Into::into).collect(),
                warnings,
            })
        })
        .await
    }

    fn shared_keys(&self, invocation: &mut ScriptInvocation<'_>) {
        let keys = &self.keys;
        invocation.key(keys.meta()).key(keys.events()).key(keys.held()).key(keys.names());
    }
}

/// A command, a pipeline or a script call.
trait Request<T> {
    fn send(&self, link: &mut Link) -> impl Future<Output = RedisResult<T>> + Send;
}

impl Request<Value> for &ScriptInvocation<'_> {
    async fn send(&self, link: &mut Link) -> RedisResult<Value> {
        self.invoke_async(link).await
    }
}

impl<T: FromRedisValue + Send> Request<T> for &redis::Cmd {
    async fn send(&self, link: &mut Link) -> RedisResult<T> {
        self.query_async(link).await
    }
}

impl<T: FromRedisValue + Send> Request<T> for &redis::Pipeline {
    async fn send(&self, link: &mut Link) -> RedisResult<T> {
        self.query_async(link).await
    }
}

/// The server has refused the request; the connection is intact.
fn is_an_answer(error: &RedisError) -> bool {
    let is_server = matches!(error.kind(), RedisErrorKind::Server(_) | RedisErrorKind::Extension);
    is_server && !is_not_master(error) && !closes(error)
}

/// The server closes the connection after this answer: it expects a login, its `maxclients` are connected, or
/// it is in protected mode.
fn closes(error: &RedisError) -> bool {
    let text = error.to_string();
    ["Protocol error", "max number of clients", "DENIED"].iter().any(|words| text.contains(words))
}

/// Another server is the master now.
fn is_not_master(error: &RedisError) -> bool {
    use ServerErrorKind::{ClusterDown, MasterDown, ReadOnly};
    // In a script's error, Redis 6.2 writes the place in the script before the code.
    matches!(error.kind(), RedisErrorKind::Server(ReadOnly | MasterDown | ClusterDown))
        || error.to_string().contains("-READONLY ")
}

fn fresh_incarnation() -> String {
    format!("{:016x}", fastrand::u64(..))
}

impl Store for RedisStore {
    fn exchange(&self, batch: Batch) -> BoxFuture<'_, Result<Answer, Error>> {
        Box::pin(async move { RedisStore::exchange(self, &batch).await })
    }

    fn report(&self, report: Report) -> BoxFuture<'_, Result<Acknowledged, Error>> {
        Box::pin(async move { RedisStore::report(self, &report).await })
    }

    fn load(&self) -> BoxFuture<'_, Result<Load, Error>> {
        Box::pin(RedisStore::load(self))
    }

    fn watch(
        &self,
        from: Position,
        notice: String,
        patience: Duration,
    ) -> BoxFuture<'_, Result<News, Error>> {
        Box::pin(self.watch_streams(from, notice, patience))
    }

    fn history(&self, at: EventsAt, limit: usize) -> BoxFuture<'_, Result<Vec<StreamEvent>, Error>> {
        Box::pin(self.read_history(at, limit))
    }
}

impl ResultStore for RedisStore {
    fn cache_get(&self, key: String) -> BoxFuture<'_, Result<Option<Cached>, Error>> {
        Box::pin(async move {
            let key = self.keys.cached(&key);
            let both = redis::pipe().get(&key).pttl(&key).to_owned();
            let (value, left): (Option<Vec<u8>>, i64) =
                self.cache_request("reading a cached result", &both).await?;
            // -1: it never expires. -2: it has expired since the GET.
            let remaining = u64::try_from(left).ok().map(Duration::from_millis);
            Ok(value.filter(|_| left != -2).map(|value| Cached { value, remaining }))
        })
    }

    fn cache_put(&self, key: String, value: Vec<u8>, ttl: Duration) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).clamp(1, LONGEST_TTL);
            let key = self.keys.cached(&key);
            let command = redis::cmd("SET").arg(key).arg(value).arg("PX").arg(ttl).to_owned();
            self.cache_request("caching a result", &command).await
        })
    }
}
