//! The connection that is subscribed to events and notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::{ErrorKind, PushInfo, PushKind, ServerErrorKind, Value};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::connect::{Dialer, Link};
use super::keys::{Keys, decode};
use super::open::Inbox;
use super::wire::{self, Fields, Published};
use crate::error::Error;
use crate::store::StreamEvent;

/// The number of messages that wait to be taken. Others are dropped.
const WAITING: usize = 1000;

pub(super) struct Subscription {
    pub(super) link: Link,
    messages: mpsc::Receiver<PushInfo>,
    overflowed: Arc<AtomicBool>,
    /// The channel of notices.
    notices: String,
}

/// What a message says.
#[derive(Debug)]
pub(super) enum Message {
    Event(StreamEvent),
    Notice(Notice),
    /// The event stream has to be read to know.
    Unreadable,
}

/// The breakers of which all instances are to report without delay.
#[derive(Debug)]
pub(super) struct Notice {
    pub(super) id: String,
    pub(super) names: Vec<Arc<str>>,
}

impl Notice {
    /// Of unreadable fields, a notice of nothing: instances then report a little later.
    pub(super) fn new(id: String, fields: &Fields<'_>) -> Self {
        let names = fields.text("names").unwrap_or_default();
        let names = names.split(' ').filter(|name| !name.is_empty()).filter_map(decode);
        Notice { id, names: names.map(Arc::from).collect() }
    }
}

impl Subscription {
    pub(super) async fn new(dialer: &Dialer, keys: &Keys, limit: Duration) -> Result<Self, Error> {
        let doing = "subscribing to events";
        let (sender, messages) = mpsc::channel(WAITING);
        let overflowed = Arc::new(AtomicBool::new(false));
        let inbox = Inbox { messages: sender, overflowed: overflowed.clone() };
        let mut link = dialer.dial(|| None, Some(inbox)).await?;
        let channels = [keys.events(), keys.notices()];
        match timeout(limit, link.subscribe(&channels)).await {
            Ok(Ok(())) => Ok(Subscription { link, messages, overflowed, notices: keys.notices() }),
            Ok(Err(error)) => {
                let is_denied = matches!(error.kind(), ErrorKind::Server(ServerErrorKind::NoPerm));
                let hint = if is_denied { "; it needs +subscribe and &cb1:*, see docs/redis.md" } else { "" };
                Err(Error::store(doing, format!("{error}{hint}")))
            }
            Err(_) => Err(Error::store(doing, format!("no answer within {limit:?}"))),
        }
    }

    /// Waits for the next message. It is an error if the connection has ended.
    pub(super) async fn next(&mut self) -> Result<Message, Error> {
        loop {
            let Some(push) = self.messages.recv().await.filter(|push| push.kind != PushKind::Disconnection)
            else {
                return Err(Error::store("waiting for events", "the connection has ended"));
            };
            if let Some(message) = self.read(push) {
                return Ok(message);
            }
        }
    }

    /// The next message, if it is there.
    pub(super) fn try_next(&mut self) -> Option<Message> {
        loop {
            // Whether the connection has ended, the next wait finds out.
            let push = self.messages.try_recv().ok()?;
            if let Some(message) = self.read(push) {
                return Some(message);
            }
        }
    }

    /// Whether a message has been dropped since the latest call.
    pub(super) fn take_overflow(&self) -> bool {
        self.overflowed.swap(false, Ordering::AcqRel)
    }

    /// `None`: the answer to a subscription.
    fn read(&self, push: PushInfo) -> Option<Message> {
        if push.kind != PushKind::Message {
            return None;
        }
        let Some((channel, Published { id, fields })) = entry(&push.data) else {
            return Some(Message::Unreadable);
        };
        if *channel == *self.notices.as_bytes() {
            return Some(Message::Notice(Notice::new(id, &fields)));
        }
        Some(wire::event(id, &fields).map_or(Message::Unreadable, Message::Event))
    }
}

/// The channel of a message, which has the stream's name, and the stream's entry.
fn entry(message: &[Value]) -> Option<(&[u8], Published<'_>)> {
    let [Value::BulkString(channel), Value::BulkString(payload)] = message else { return None };
    Some((channel, serde_json::from_slice(payload).ok()?))
}
