//! The shared part of all requests: one reading of the fleet, one log of events. Without requests, nothing is
//! read.

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant, SystemTime};

use cb_runtime::{Event, StoreStatus};
use serde::Serialize;
use tokio::sync::{OnceCell, Semaphore, watch};

use crate::event_log::{EventLog, describe, transition};
use crate::figures::{Figures, Rates, seconds};
use crate::fleet::{Instances, Source};
use crate::sync::lock;

/// Figures are read again when they are this old, and [`SHARE`] times as old as the reading took.
pub(crate) const PACE: Duration = Duration::from_secs(1);
/// Readings take at most this part of the time, as 1/n: a large namespace costs Redis a twentieth of a core.
const SHARE: u32 = 20;
/// The cost of a reading is that of the quickest of the latest ones; the others may have waited for a busy
/// machine.
const LATEST: usize = 3;
/// The largest age of figures while there are requests.
const SLOWEST: Duration = Duration::from_secs(15);
/// The time limit for reading the history or the instances. The runtime limits each page of breakers.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// A request waits this long for new figures; if there are older ones, it gets them then, with their time.
const WAIT: Duration = Duration::from_secs(1);
/// The number of past transitions that are read at the start.
const HISTORY: usize = 300;
/// Instances are counted this often: they give a sign of life every five seconds.
const INSTANCES_PACE: Duration = Duration::from_secs(5);
/// The number of streams that may be open at once.
pub(crate) const MAX_STREAMS: usize = 64;

/// Shared by all requests of one monitor.
pub(crate) struct Hub {
    pub(crate) source: Source,
    pub(crate) figures: Mutex<Figures>,
    pub(crate) log: Mutex<EventLog>,
    /// The number of the next event; changes when there is one more.
    news: watch::Sender<u64>,
    pub(crate) streams: Arc<Semaphore>,
    reading: tokio::sync::Mutex<()>,
    last: Mutex<Option<Attempt>>,
    /// As they were counted last, and when.
    instances: Mutex<Option<(Instant, Instances)>>,
    listening: OnceCell<()>,
}

/// The latest reading, successful or not.
struct Attempt {
    ended: Instant,
    /// The durations of the latest readings, latest last.
    took: Vec<Duration>,
    problem: Option<ReadFailure>,
}

#[derive(Clone)]
struct ReadFailure {
    text: String,
    since: SystemTime,
}

/// The contents of the page's header.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Overview {
    pub(crate) namespace: String,
    pub(crate) now: f64,
    /// When the store was last read.
    pub(crate) as_of: Option<f64>,
    /// Seconds from one reading to the next.
    pub(crate) pace: f64,
    pub(crate) total: usize,
    pub(crate) states: std::collections::BTreeMap<&'static str, usize>,
    pub(crate) per_second: Rates,
    pub(crate) store: StoreView,
    pub(crate) instances: Option<Instances>,
    /// Instances that have opened a circuit only locally.
    pub(crate) isolated: usize,
}

/// Whether the store answers.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StoreView {
    /// `false` if the state is in this process only.
    pub(crate) shared: bool,
    pub(crate) up: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<f64>,
    /// How long the latest reading took.
    pub(crate) took_ms: f64,
}

impl Hub {
    pub(crate) fn new(source: Source) -> Hub {
        let instance = source.own().to_owned();
        Hub {
            source,
            figures: Mutex::default(),
            log: Mutex::new(EventLog::new(instance)),
            news: watch::Sender::new(1),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            reading: tokio::sync::Mutex::default(),
            last: Mutex::default(),
            instances: Mutex::default(),
            listening: OnceCell::new(),
        }
    }

    /// Reads the fleet's figures, unless they are fresh. The wait is short if there are older ones.
    pub(crate) async fn refresh(self: &Arc<Self>) {
        if lock(&self.figures).as_of().is_none() {
            return self.refresh_fully().await;
        }
        // A task of its own, which continues after this request has stopped waiting.
        let hub = self.clone();
        let reading = tokio::spawn(async move { hub.refresh_fully().await });
        let _ = tokio::time::timeout(WAIT, reading).await;
    }

    /// Reads the fleet's figures, unless they are fresh. Concurrent requests share one reading.
    pub(crate) async fn refresh_fully(self: &Arc<Self>) {
        self.listen().await;
        if self.is_fresh() {
            return;
        }
        let _one = self.reading.lock().await;
        if !self.is_fresh() {
            self.read().await;
            self.count_instances().await;
        }
    }

    async fn count_instances(&self) {
        // Which instances are alive is unknown then, however lately they were counted.
        if self.problem().is_some() {
            *lock(&self.instances) = None;
            return;
        }
        if lock(&self.instances).as_ref().is_some_and(|(counted, _)| counted.elapsed() < INSTANCES_PACE) {
            return;
        }
        // If that fails, the store is unreachable, which is shown instead of the old number.
        let counted = tokio::time::timeout(READ_LIMIT, self.source.instances()).await;
        let instances = counted.ok().and_then(Result::ok);
        if let Some(instances) = &instances {
            lock(&self.figures).set_instances(instances);
        }
        *lock(&self.instances) = instances.map(|instances| (Instant::now(), instances));
    }

    /// The fleet's instances, as they were counted last.
    pub(crate) fn instances(&self) -> Option<Instances> {
        lock(&self.instances).as_ref().map(|(_, instances)| instances.clone())
    }

    async fn read(&self) {
        let started = Instant::now();
        let answer = self.source.read().await;
        let took = started.elapsed();
        let problem = match answer {
            Ok(readings) => {
                lock(&self.figures).update(readings, Instant::now(), SystemTime::now());
                None
            }
            Err(error) => Some(error.to_string()),
        };
        // A slow reading is old, but right. The registry knows whether the store answers.
        let problem = match (problem, self.source.store_status()) {
            (Some(_), StoreStatus::Lost { error, .. }) => Some(error.to_string()),
            (problem @ Some(_), _) if self.is_outdated() => problem,
            _ => None,
        };
        let mut last = lock(&self.last);
        let mut spans = last.as_ref().map_or_else(Vec::new, |last| last.took.clone());
        spans.push(took);
        let spans = spans[spans.len().saturating_sub(LATEST)..].to_vec();
        let problem = problem.map(|text| {
            let since = last.as_ref().and_then(|last| last.problem.as_ref()).map(|problem| problem.since);
            ReadFailure { text, since: since.unwrap_or_else(SystemTime::now) }
        });
        if problem.is_some() {
            let mut figures = lock(&self.figures);
            let local = self.source.local_readings(|name| figures.state(name));
            figures.overlay(local, Instant::now());
        }
        *last = Some(Attempt { ended: Instant::now(), took: spans, problem });
    }

    /// Whether the figures are too old to be shown as current.
    fn is_outdated(&self) -> bool {
        let as_of = lock(&self.figures).as_of();
        as_of.is_none_or(|as_of| as_of.elapsed().is_ok_and(|age| age > SLOWEST + READ_LIMIT))
    }

    fn is_fresh(&self) -> bool {
        let last = lock(&self.last);
        last.as_ref().is_some_and(|last| last.ended.elapsed() < pace(&last.took))
    }

    /// The next request reads the fleet, because something was changed.
    pub(crate) fn expire(&self) {
        let mut last = lock(&self.last);
        if last.as_ref().is_some_and(|last| last.problem.is_none()) {
            *last = None;
        }
    }

    /// The reason for which the store cannot be read, if there is one.
    pub(crate) fn problem(&self) -> Option<String> {
        lock(&self.last).as_ref()?.problem.as_ref().map(|problem| problem.text.clone())
    }

    pub(crate) fn overview(&self) -> Overview {
        let (took, problem) = match &*lock(&self.last) {
            Some(last) => (last.took.clone(), last.problem.clone()),
            None => (Vec::new(), None),
        };
        let figures = lock(&self.figures);
        Overview {
            namespace: self.source.namespace().to_owned(),
            now: seconds(SystemTime::now()),
            as_of: figures.as_of().map(seconds),
            pace: pace(&took).as_secs_f64(),
            total: figures.len(),
            states: figures.counts(),
            per_second: figures.rates(),
            store: StoreView {
                shared: !matches!(self.source.store_status(), StoreStatus::InMemory),
                up: problem.is_none(),
                since: problem.as_ref().map(|problem| seconds(problem.since)),
                problem: problem.map(|problem| problem.text),
                took_ms: took.last().copied().unwrap_or_default().as_secs_f64() * 1000.0,
            },
            instances: self.instances(),
            isolated: figures.isolated(),
        }
    }

    /// Changes when there is a new event.
    pub(crate) async fn news(self: &Arc<Self>) -> watch::Receiver<u64> {
        self.listen().await;
        self.news.subscribe()
    }

    /// Records the registry's events from the first request on. Earlier events are read from the store once.
    async fn listen(self: &Arc<Self>) {
        let begin = async {
            // Subscribed before the history is read, so that no event is missed in between.
            let mut events = self.source.subscribe();
            if let Ok(Ok(past)) = tokio::time::timeout(READ_LIMIT, self.source.history(HISTORY)).await {
                let mut log = lock(&self.log);
                for change in past {
                    log.push("transition", transition("transition", &change), change.cursor.clone());
                }
            }
            let hub = Arc::downgrade(self);
            tokio::spawn(async move {
                while let Some(event) = events.recv().await {
                    let Some(hub) = Weak::upgrade(&hub) else { return };
                    hub.take_down(&event);
                }
            });
        };
        self.listening.get_or_init(|| begin).await;
    }

    fn take_down(&self, event: &Event) {
        let place = match event {
            Event::Transition(change) | Event::LocalTransition(change) => {
                let local = matches!(event, Event::LocalTransition(_));
                lock(&self.figures).apply(change, local, Instant::now());
                change.cursor.clone()
            }
            Event::StoreLost(_) | Event::StoreRestored => {
                lock(&self.last).take();
                None
            }
            // Frequent, and no changes: they would push the changes out of the log.
            Event::HealthCheck { .. } | Event::Error(_) => return,
            _ => None,
        };
        if let Some((kind, data)) = describe(event, SystemTime::now()) {
            let mut log = lock(&self.log);
            log.push(kind, data, place);
            self.news.send_replace(log.next());
        }
    }
}

/// From the end of a reading to the beginning of the next one, by the durations of the latest.
pub(crate) fn pace(took: &[Duration]) -> Duration {
    let quickest = took.iter().min().copied().unwrap_or_default();
    (quickest * SHARE).clamp(PACE, SLOWEST)
}
