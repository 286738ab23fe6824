//! Reads the event stream on a connection of its own, because a blocking read delays later commands.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::RedisResult;
use tokio::time::timeout;

use super::connect::Link;
use super::keys::decode;
use super::wire::{self, Fields};
use super::{RedisStore, is_an_answer};
use crate::error::{Error, ErrorKind};
use crate::store::{EventsAt, News, Position, StreamEvent};

/// The wait behind unreadable entries before their existence is checked again.
const SKIP_PATIENCE: Duration = Duration::from_millis(500);
/// The number of events per read.
const EVENTS_AT_ONCE: usize = 256;

/// Entries of a stream: their ids and fields.
type Entries = Vec<(String, Fields)>;
/// Streams: their keys and entries. redis-rs' own type clones a whole reply before it reads it.
type Streams = Vec<(String, Entries)>;

#[derive(Default)]
pub(super) struct Watching {
    link: Option<(u64, Link)>,
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
        let doing = "reading the event stream";
        let mut watching = self.watching.lock().await;
        // Taken out while in use: if this future is dropped, a later watch must not wait for the pending
        // read.
        let moves = self.moves.load(Ordering::Relaxed);
        let mut link = match watching.link.take() {
            Some((then, link)) if then == moves => link,
            _ => self.dialer.dial(|| None).await?,
        };
        let skip = watching.skip.take().filter(|(id, _)| *id == from.id);
        let (start, patience) = match &skip {
            Some((_, behind)) => (behind.clone(), patience.min(SKIP_PATIENCE)),
            None if from.id.is_empty() => ("0-0".to_owned(), patience),
            None => (from.id.clone(), patience),
        };
        let (key, notices_key) = (self.keys.events(), self.keys.notices());
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(EVENTS_AT_ONCE);
        // BLOCK 0 would block without a limit.
        if let Ok(milliseconds @ 1..) = u64::try_from(patience.as_millis()) {
            command.arg("BLOCK").arg(milliseconds);
        }
        let notices_after = if notice.is_empty() { "$" } else { &notice };
        command.arg("STREAMS").arg(&key).arg(&notices_key).arg(start).arg(notices_after);
        let limit = patience.saturating_add(self.timeouts.loss());
        let reply: Option<Streams> = match timeout(limit, command.query_async(&mut link)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => {
                if is_an_answer(&error) {
                    watching.link = Some((moves, link));
                }
                return Err(Error::store(doing, format!("{key}: {error}")));
            }
            Err(_) => return Err(Error::store(doing, format!("{key}: no answer within {limit:?}"))),
        };
        let mut news = News { notice, ..News::default() };
        let mut entries = Vec::new();
        for (stream, read) in reply.into_iter().flatten() {
            if stream == key {
                entries = read;
                continue;
            }
            for (id, fields) in read {
                // An unreadable notice is skipped: instances then report a little later.
                let names = wire::text(&fields, "names").unwrap_or_default();
                news.notices.extend(names.split(' ').filter_map(decode).map(Arc::from));
                news.notice = id;
            }
        }
        if entries.is_empty()
            && let Some(skip) = skip
        {
            // A new stream may never reach the id of the unreadable entries.
            let newest = redis::cmd("XREVRANGE").arg(&key).arg("+").arg("-").arg("COUNT").arg(1).to_owned();
            let limit = self.timeouts.loss();
            let newest: RedisResult<Entries> = timeout(limit, newest.query_async(&mut link))
                .await
                .map_err(|_| Error::store(doing, format!("{key}: no answer within {limit:?}")))?;
            if newest.is_ok_and(|newest| newest.first().is_some_and(|(id, _)| *id == skip.1)) {
                watching.skip = Some(skip);
            }
        }
        watching.link = Some((moves, link));

        let events = &mut news.events;
        let mut odd: Option<(String, Error)> = None;
        for (id, fields) in entries {
            match wire::event(id.clone(), &fields) {
                // Unreadable entries come first: they are reported, and the next watch continues behind them.
                Ok(_) if odd.is_some() => break,
                Ok(event) => events.push(event),
                // Readable entries come first: the next watch begins at this one.
                Err(_) if !events.is_empty() => break,
                Err(problem) => {
                    let what = format!("{key}, entry {id},");
                    let (last, _) = odd.get_or_insert_with(|| {
                        (String::new(), Error::new(ErrorKind::Data { what, problem }))
                    });
                    *last = id;
                }
            }
        }
        if let Some((last, error)) = odd {
            watching.skip = Some((from.id, last));
            return Err(error);
        }
        Ok(news)
    }
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
        Ok(entries.into_iter().filter_map(|(id, fields)| wire::event(id, &fields).ok()).collect())
    }
}
