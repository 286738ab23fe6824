//! A steady load on the gateway, and its results.

use std::collections::VecDeque;
use std::ops::{AddAssign, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::profile::{Profile, Source};
use crate::service::{client, now_us};

/// Requests per second.
pub const RATE: u32 = 100;
/// The number of users that are requested in turn.
const USERS: u64 = 30;
/// The timeout of a request: longer than any service may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The number of results that are kept: those of a quarter of an hour.
const REMEMBERED: usize = 90_000;

/// The result of one request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// When the request was sent, in microseconds of the wall clock.
    pub sent_us: u64,
    /// The duration of the request.
    pub took: Duration,
    /// The answer's origin and instance. `None` if the request failed.
    pub by: Option<(Source, String)>,
}

/// The number of answers of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnswerCounts {
    /// Answered by auth.
    pub live: usize,
    /// Answered from the cache.
    pub cached: usize,
    /// Answered by the fallback.
    pub fallback: usize,
    /// Failed.
    pub failed: usize,
}

impl AnswerCounts {
    /// The sum of all kinds.
    pub fn total(&self) -> usize {
        self.live + self.cached + self.fallback + self.failed
    }
}

impl AddAssign<&Answer> for AnswerCounts {
    fn add_assign(&mut self, answer: &Answer) {
        match answer.by {
            Some((Source::Live, _)) => self.live += 1,
            Some((Source::Cached, _)) => self.cached += 1,
            Some((Source::Fallback, _)) => self.fallback += 1,
            None => self.failed += 1,
        }
    }
}

impl<'a> FromIterator<&'a Answer> for AnswerCounts {
    fn from_iter<I: IntoIterator<Item = &'a Answer>>(answers: I) -> AnswerCounts {
        let mut counts = AnswerCounts::default();
        answers.into_iter().for_each(|answer| counts += answer);
        counts
    }
}

/// A load that lasts until it is dropped.
pub struct Load {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    sender: JoinHandle<()>,
}

impl Load {
    /// Starts to send [`RATE`] requests a second.
    ///
    /// # Errors
    /// If no HTTP client can be created.
    pub fn start(gateway: &str) -> anyhow::Result<Load> {
        let answers = Arc::new(Mutex::new(VecDeque::new()));
        let (client, into, gateway) = (client(PATIENCE)?, answers.clone(), gateway.to_owned());
        let sender = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            for user in (0..USERS).cycle() {
                ticks.tick().await;
                let (client, url, into) = (client.clone(), format!("{gateway}/profile/{user}"), into.clone());
                tokio::spawn(async move {
                    let answer = ask(&client, &url).await;
                    let mut answers = lock(&into);
                    if answers.len() == REMEMBERED {
                        answers.pop_front();
                    }
                    answers.push_back(answer);
                });
            }
        });
        Ok(Load { answers, sender })
    }

    /// Calls `look` with each answer to a request sent in this span, in reverse order of arrival.
    pub fn each_in(&self, span: &Range<u64>, look: impl FnMut(&Answer)) {
        let answers = lock(&self.answers);
        // Answers are kept in the order of arrival, so a request of the span can be later by its timeout at
        // most.
        let late = u64::try_from(PATIENCE.as_micros()).unwrap_or(u64::MAX);
        let recent = answers.iter().rev().take_while(|answer| answer.sent_us + late >= span.start);
        recent.filter(|answer| span.contains(&answer.sent_us)).for_each(look);
    }

    /// The answers to requests sent in this span.
    pub fn sent_in(&self, span: &Range<u64>) -> Vec<Answer> {
        let mut found = Vec::new();
        self.each_in(span, |answer| found.push(answer.clone()));
        found
    }

    /// Ends the load.
    pub fn stop(self) {}
}

impl Drop for Load {
    fn drop(&mut self) {
        self.sender.abort();
    }
}

async fn ask(client: &reqwest::Client, url: &str) -> Answer {
    let (sent_us, start) = (now_us(), Instant::now());
    let profile = async { client.get(url).send().await?.error_for_status()?.json::<Profile>().await };
    let by = profile.await.ok().map(|profile| (profile.source, profile.instance));
    Answer { sent_us, took: start.elapsed(), by }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
