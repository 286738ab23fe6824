//! Reads the event stream and the notices. Messages bring them, on a connection of their own; the streams are
//! read where a message is missing, and from time to time.

use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::{RedisResult, Value};
use tokio::time::{Instant, timeout, timeout_at};

use super::connect::Link;
use super::subscription::{Message, Notice, Subscription};
use super::wire::{self, Fields};
use super::{RedisStore, is_an_answer};
use crate::error::{Error, ErrorKind};
use crate::store::{EventsAt, News, Position, StreamEvent};

/// What this module does, in errors.
const DOING: &str = "reading the event stream";
/// The wait behind unreadable entries before their existence is checked again.
const SKIP_PATIENCE: Duration = Duration::from_millis(500);
/// The number of events per read.
const EVENTS_AT_ONCE: usize = 256;

/// Entries of a stream: their ids and fields.
type Entries = Vec<(String, Vec<(Vec<u8>, Value)>)>;
/// Streams: their keys and entries. redis-rs' own type clones a whole reply before it reads it.
type Streams = Vec<(String, Entries)>;

#[derive(Default)]
pub(super) struct Watching {
    subscription: Option<(u64, Subscription)>,
    /// Up to which ids the subscription's messages and the reads have brought everything.
    reached: Option<(String, String)>,
    /// Unreadable entries: from the caller's position to the last of them.
    skip: Option<(String, String)>,
}

impl RedisStore {
    /// See [`Store::watch`](crate::store::Store::watch).
    pub(super) async fn watch_streams(
        &self,
        from: Position,
        notice: String,
        patience: Duration,
    ) -> Result<News, Error> {
        let mut watching = self.watching.lock().await;
        let moves = self.moves.load(Ordering::Relaxed);
        // Taken out while in use: if this future is dropped, the next watch makes a new connection.
        let mut subscription = match watching.subscription.take() {
            Some((then, subscription)) if then == moves => subscription,
            _ => {
                watching.reached = None;
                Subscription::new(&self.dialer, &self.keys, self.timeouts.loss()).await?
            }
        };
        let mut skip = watching.skip.take().filter(|(id, _)| *id == from.id);
        let (start, patience) = match &skip {
            Some((_, behind)) => (behind.clone(), patience.min(SKIP_PATIENCE)),
            None if from.id.is_empty() => ("0-0".to_owned(), patience),
            None => (from.id.clone(), patience),
        };
        let ends_at = Instant::now() + patience;
        let mut news = News { notice, ..News::default() };
        let is_reached = |(event, latest): (String, String)| event == start && latest == news.notice;
        let mut is_complete = watching.reached.take().is_some_and(is_reached);
        let mut has_read = false;
        while is_empty(&news) && !(has_read && Instant::now() >= ends_at) {
            if is_complete {
                is_complete = receive(&mut subscription, &mut news, &from, &start, ends_at).await?;
                let waits = is_complete && (has_read || Instant::now() < ends_at);
                if waits || !is_empty(&news) {
                    continue;
                }
            }
            has_read = true;
            let read = self.read_streams(&mut subscription.link, &start, &news.notice).await;
            let (entries, notices) = match read {
                Ok(read) => read,
                Err(Failure { error, is_an_answer }) => {
                    watching.subscription = is_an_answer.then_some((moves, subscription));
                    return Err(error);
                }
            };
            for (id, fields) in notices {
                add_notice(&mut news, Notice::new(id, &Fields::of_entry(&fields)));
            }
            if entries.is_empty()
                && let Some((_, behind)) = &skip
                && !self.is_newest(&mut subscription.link, behind).await?
            {
                // A new stream may never reach the id of the unreadable entries.
                skip = None;
                break;
            }
            is_complete = entries.len() < EVENTS_AT_ONCE;
            match readable(entries, &self.keys.events()) {
                Ok((events, are_all)) => {
                    is_complete &= are_all;
                    news.events = events;
                }
                Err((last, error)) => {
                    watching.skip = Some((from.id, last));
                    watching.subscription = Some((moves, subscription));
                    return Err(error);
                }
            }
        }
        watching.skip = skip;
        watching.subscription = Some((moves, subscription));
        let reached = news.events.last().map_or(start, |event| event.position.id.clone());
        watching.reached = is_complete.then(|| (reached, news.notice.clone()));
        Ok(news)
    }

    /// Reads the entries after these ids, without waiting. Of notices, an empty id is the latest.
    async fn read_streams(
        &self,
        link: &mut Link,
        start: &str,
        notice: &str,
    ) -> Result<(Entries, Entries), Failure> {
        let (events, notices) = (self.keys.events(), self.keys.notices());
        let after = if notice.is_empty() { "$" } else { notice };
        let mut command = redis::cmd("XREAD");
        command
            .arg("COUNT")
            .arg(EVENTS_AT_ONCE)
            .arg("STREAMS")
            .arg(&events)
            .arg(notices)
            .arg(start)
            .arg(after);
        let limit = self.timeouts.loss();
        let failed = |problem: String, is_an_answer| {
            let error = Error::store(DOING, format!("{events}: {problem}"));
            Failure { error, is_an_answer }
        };
        let reply: Option<Streams> = match timeout(limit, command.query_async(link)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => return Err(failed(error.to_string(), is_an_answer(&error))),
            Err(_) => return Err(failed(format!("no answer within {limit:?}"), false)),
        };
        let mut read = (Entries::new(), Entries::new());
        for (stream, entries) in reply.into_iter().flatten() {
            let of_stream = if stream == events { &mut read.0 } else { &mut read.1 };
            *of_stream = entries;
        }
        Ok(read)
    }

    /// Whether the event with this id is the newest.
    async fn is_newest(&self, link: &mut Link, id: &str) -> Result<bool, Error> {
        let key = self.keys.events();
        let newest = redis::cmd("XREVRANGE").arg(&key).arg("+").arg("-").arg("COUNT").arg(1).to_owned();
        let limit = self.timeouts.loss();
        let newest: RedisResult<Entries> = timeout(limit, newest.query_async(link))
            .await
            .map_err(|_| Error::store(DOING, format!("{key}: no answer within {limit:?}")))?;
        Ok(newest.is_ok_and(|newest| newest.first().is_some_and(|(newest, _)| newest == id)))
    }
}

/// A read that has failed.
struct Failure {
    error: Error,
    /// The connection is intact.
    is_an_answer: bool,
}

/// Adds what messages bring, until `ends_at`, after these events. Returns whether no message is missing.
async fn receive(
    subscription: &mut Subscription,
    news: &mut News,
    from: &Position,
    start: &str,
    ends_at: Instant,
) -> Result<bool, Error> {
    let Ok(first) = timeout_at(ends_at, subscription.next()).await else { return Ok(true) };
    let mut next = Some(first?);
    while let Some(message) = next {
        match message {
            Message::Notice(notice) => add_notice(news, notice),
            Message::Event(event) => {
                let last = news.events.last().map(|event| &event.position);
                // An event that has been read comes as a message, too.
                if is_after(&event.position.id, last.map_or(start, |last| &last.id)) {
                    if !event.position.follows(last.unwrap_or(from)) {
                        return Ok(false);
                    }
                    news.events.push(event);
                }
            }
            Message::Unreadable => return Ok(false),
        }
        next = subscription.try_next();
    }
    Ok(!subscription.take_overflow())
}

fn is_empty(news: &News) -> bool {
    news.events.is_empty() && news.notices.is_empty()
}

fn add_notice(news: &mut News, notice: Notice) {
    if is_after(&notice.id, &news.notice) {
        news.notices.extend(notice.names);
        news.notice = notice.id;
    }
}

/// Whether a stream has the first of these ids after the second. No text that is no id is after one.
fn is_after(id: &str, other: &str) -> bool {
    let parsed = |id: &str| {
        let (time, number) = id.split_once('-')?;
        Some((time.parse::<u64>().ok()?, number.parse::<u64>().ok()?))
    };
    parsed(id) > parsed(other)
}

/// The events up to the first unreadable entry, and whether these are all. If there are none, the error tells
/// of the unreadable entries, with the id of the last of them.
fn readable(entries: Entries, key: &str) -> Result<(Vec<StreamEvent>, bool), (String, Error)> {
    let mut events = Vec::new();
    let mut unreadable: Option<(String, Error)> = None;
    for (id, fields) in entries {
        match wire::event(id.clone(), &Fields::of_entry(&fields)) {
            // Unreadable entries come first: they are reported, and the next watch continues behind them.
            Ok(_) if unreadable.is_some() => break,
            Ok(event) => events.push(event),
            // Readable entries come first: the next watch begins at this one.
            Err(_) if !events.is_empty() => return Ok((events, false)),
            Err(problem) => {
                let what = format!("{key}, entry {id},");
                let (last, _) = unreadable
                    .get_or_insert_with(|| (String::new(), Error::new(ErrorKind::Data { what, problem })));
                *last = id;
            }
        }
    }
    unreadable.map_or(Ok((events, true)), Err)
}

impl RedisStore {
    /// Reads a part of the stream on the connection for commands.
    pub(super) async fn read_history(&self, at: EventsAt, limit: usize) -> Result<Vec<StreamEvent>, Error> {
        let doing = "reading the history";
        let key = self.keys.events();
        let newest_first = |end: String| {
            redis::cmd("XREVRANGE").arg(&key).arg(end).arg("-").arg("COUNT").arg(limit).to_owned()
        };
        let entries: Entries = match at {
            EventsAt::After(id) => {
                let read =
                    redis::cmd("XREAD").arg("COUNT").arg(limit).arg("STREAMS").arg(&key).arg(id).to_owned();
                let reply: Option<Streams> = self.request(doing, &read).await?;
                reply.into_iter().flatten().flat_map(|(_, entries)| entries).collect()
            }
            EventsAt::Newest => self.request(doing, &newest_first("+".into())).await?,
            EventsAt::Before(id) => self.request(doing, &newest_first(format!("({id}"))).await?,
        };
        Ok(entries
            .into_iter()
            .filter_map(|(id, fields)| wire::event(id, &Fields::of_entry(&fields)).ok())
            .collect())
    }
}
