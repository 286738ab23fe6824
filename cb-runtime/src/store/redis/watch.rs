//! Reading the event stream, on a connection of its own: a blocking read holds up what comes after it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::RedisResult;
use redis::streams::{StreamRangeReply, StreamReadReply};
use tokio::time::timeout;

use super::connect::Link;
use super::{RedisStore, is_an_answer, wire};
use crate::error::{Error, ErrorKind};
use crate::store::{EventsAt, Position, StreamEvent};

/// How long is waited behind entries that cannot be read, before it is made sure that they are still there.
const SKIP_PATIENCE: Duration = Duration::from_millis(500);
/// Events that are read at once.
const EVENTS_AT_ONCE: usize = 256;

#[derive(Default)]
pub(super) struct Watching {
    link: Option<(u64, Link)>,
    /// Entries that cannot be read: from the id that the caller stands at to the last of them.
    skip: Option<(String, String)>,
}

impl RedisStore {
    pub(super) async fn watch_stream(
        &self,
        from: Position,
        patience: Duration,
    ) -> Result<Vec<StreamEvent>, Error> {
        let doing = "reading the event stream";
        let mut watching = self.watching.lock().await;
        // Taken out while it is in use: if this future is dropped, the read that goes on must not be waited for.
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
        let key = self.keys.events();
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(EVENTS_AT_ONCE);
        // BLOCK 0 would block for ever.
        if let Ok(milliseconds @ 1..) = u64::try_from(patience.as_millis()) {
            command.arg("BLOCK").arg(milliseconds);
        }
        command.arg("STREAMS").arg(&key).arg(start);
        let limit = patience.saturating_add(self.watch_margin);
        let reply: Option<StreamReadReply> = match timeout(limit, command.query_async(&mut link)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => {
                if is_an_answer(&error) {
                    watching.link = Some((moves, link));
                }
                return Err(Error::store(doing, format!("{key}: {error}")));
            }
            Err(_) => return Err(Error::store(doing, format!("{key}: no answer within {limit:?}"))),
        };
        let entries: Vec<_> =
            reply.into_iter().flat_map(|reply| reply.keys).flat_map(|stream| stream.ids).collect();
        if entries.is_empty()
            && let Some(skip) = skip
        {
            // A stream that has been begun anew may never reach the id that is waited behind.
            let newest = redis::cmd("XREVRANGE").arg(&key).arg("+").arg("-").arg("COUNT").arg(1).to_owned();
            let newest: RedisResult<StreamRangeReply> =
                timeout(self.response_timeout, newest.query_async(&mut link)).await.map_err(|_| {
                    Error::store(doing, format!("{key}: no answer within {:?}", self.response_timeout))
                })?;
            if newest.is_ok_and(|newest| newest.ids.first().is_some_and(|entry| entry.id == skip.1)) {
                watching.skip = Some(skip);
            }
        }
        watching.link = Some((moves, link));

        let mut events = Vec::new();
        let mut odd: Option<(String, Error)> = None;
        for entry in entries {
            match wire::event(entry.id.clone(), &entry.map) {
                // What cannot be read comes first; whoever has heard of it goes on behind it.
                Ok(_) if odd.is_some() => break,
                Ok(event) => events.push(event),
                // What could be read comes first; whoever stands behind it meets this one.
                Err(_) if !events.is_empty() => break,
                Err(problem) => {
                    let what = format!("{key}, entry {},", entry.id);
                    let (last, _) = odd.get_or_insert_with(|| {
                        (String::new(), Error::new(ErrorKind::Data { what, problem }))
                    });
                    *last = entry.id;
                }
            }
        }
        if let Some((last, error)) = odd {
            watching.skip = Some((from.id, last));
            return Err(error);
        }
        Ok(events)
    }
}

impl RedisStore {
    /// A part of the stream, on the connection for commands.
    pub(super) async fn read_history(&self, at: EventsAt, limit: usize) -> Result<Vec<StreamEvent>, Error> {
        let doing = "reading the history";
        let key = self.keys.events();
        let newest_first = |end: String| {
            redis::cmd("XREVRANGE").arg(&key).arg(end).arg("-").arg("COUNT").arg(limit).to_owned()
        };
        let entries = match at {
            EventsAt::After(id) => {
                let read =
                    redis::cmd("XREAD").arg("COUNT").arg(limit).arg("STREAMS").arg(&key).arg(id).to_owned();
                let reply: Option<StreamReadReply> = self.request(doing, &read).await?;
                reply.into_iter().flat_map(|reply| reply.keys).flat_map(|stream| stream.ids).collect()
            }
            EventsAt::Newest => self.request::<StreamRangeReply>(doing, &newest_first("+".into())).await?.ids,
            EventsAt::Before(id) => {
                self.request::<StreamRangeReply>(doing, &newest_first(format!("({id}"))).await?.ids
            }
        };
        Ok(entries.into_iter().filter_map(|entry| wire::event(entry.id.clone(), &entry.map).ok()).collect())
    }
}
