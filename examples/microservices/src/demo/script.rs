//! The script: the order of faults, and the notes taken meanwhile.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use cb_runtime::State;

use super::fleet::ISOLATED;
use super::load::Answer;
use super::stage::{Observation, Stage};
use crate::auth::Mood;
use crate::profile::Circuit;
use crate::service::now_us;

/// A part of the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// No fault.
    Healthy,
    /// Auth answers too late.
    Slow,
    /// Auth answers with errors.
    Down,
    /// Auth is healthy again.
    Recovery,
    /// One instance cannot reach auth.
    CutOff,
    /// Redis is killed and restarts without data.
    RedisAway,
}

impl Scene {
    /// All scenes, in order.
    pub const ALL: [Scene; 6] =
        [Scene::Healthy, Scene::Slow, Scene::Down, Scene::Recovery, Scene::CutOff, Scene::RedisAway];

    /// The scene in one sentence.
    pub fn explanation(self) -> &'static str {
        match self {
            Scene::Healthy => "Auth answers every request.",
            Scene::Slow => "Auth takes 2 s. Calls time out and open the circuit on all three instances.",
            Scene::Down => {
                "Auth answers 500. Only probes reach it. Clients get cached answers, then the fallback."
            }
            Scene::Recovery => "Auth is healthy again. Probes succeed and close the circuit everywhere.",
            Scene::CutOff => "Only instance c cannot reach auth: it opens locally, the others stay closed.",
            Scene::RedisAway => "Redis is killed and restarts without data. Clients are not affected.",
        }
    }
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Scene::Healthy => "healthy",
            Scene::Slow => "auth slow",
            Scene::Down => "auth down",
            Scene::Recovery => "recovery",
            Scene::CutOff => "one cut off",
            Scene::RedisAway => "Redis away",
        })
    }
}

/// A span of the wall clock, in microseconds.
pub type Span = Range<u64>;

/// The notes taken while the script is played. Scenes that were not reached are `None`.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// The time without a fault.
    pub healthy: Option<Span>,
    /// From the moment when all circuits were open until auth was healthy again.
    pub open: Option<Span>,
    /// The requests that auth got in that time, without its first second.
    pub asked_while_open: u64,
    /// From the moment when all circuits were closed again.
    pub recovered: Option<Span>,
    /// From the opening of the isolated instance until it reached auth again.
    pub cut_off: Option<Span>,
    /// From the end of Redis until all instances have joined it again.
    pub redis_away: Option<Span>,
    /// Every answer that a client of the gateway got.
    pub answers: Vec<Answer>,
    /// Each instance's view at the end, with the transitions that it observed.
    pub circuits: Vec<Circuit>,
}

/// The time in which calls that were already running end, once all circuits are open.
pub const SETTLING: Duration = Duration::from_secs(1);

/// Plays the script and calls `announce` at the start of each scene.
///
/// # Errors
/// If a scene's condition is not reached in time. The notes then end before it.
pub async fn play(stage: &Stage, notes: &mut Notes, announce: impl FnMut(Scene)) -> anyhow::Result<()> {
    let result = scenes(stage, notes, announce).await;
    notes.answers = stage.load.sent_in(&(stage.started_us..now_us()));
    notes.circuits = stage.observation().circuits;
    result
}

async fn scenes(stage: &Stage, notes: &mut Notes, mut announce: impl FnMut(Scene)) -> anyhow::Result<()> {
    end_faults(stage).await?;
    for scene in Scene::ALL {
        announce(scene);
        match scene {
            Scene::Healthy => notes.healthy = Some(healthy().await),
            Scene::Slow => slow(stage, notes).await?,
            Scene::Down => down(stage, notes).await?,
            Scene::Recovery => notes.recovered = Some(recovery(stage).await?),
            Scene::CutOff => cut_off(stage, notes).await?,
            Scene::RedisAway => notes.redis_away = Some(redis_away(stage).await?),
        }
    }
    Ok(())
}

/// Ends all faults.
async fn end_faults(stage: &Stage) -> anyhow::Result<()> {
    stage.fleet.set_mood(Mood::Healthy).await?;
    stage.fleet.cut(false).await?;
    if stage.fleet.redis.pid().is_none() {
        stage.fleet.set_redis(true).await?;
    }
    stage.until_all_healthy().await
}

async fn healthy() -> Span {
    let start = now_us();
    hold(2500).await;
    ended(start).await
}

async fn slow(stage: &Stage, notes: &mut Notes) -> anyhow::Result<()> {
    stage.fleet.set_mood(Mood::Slow).await?;
    stage
        .until("all circuits are open", |observation| {
            observation.all(|circuit| circuit.state != State::Closed)
        })
        .await?;
    let opened = now_us();
    tokio::time::sleep(SETTLING).await;
    notes.asked_while_open = stage.fleet.auth_stats().await?.total();
    notes.open = Some(opened..opened);
    hold(1500).await;
    Ok(())
}

async fn down(stage: &Stage, notes: &mut Notes) -> anyhow::Result<()> {
    stage.fleet.set_mood(Mood::Down).await?;
    hold(5000).await;
    notes.asked_while_open = stage.fleet.auth_stats().await?.total() - notes.asked_while_open;
    // All instances must observe the half-open state whose probe was just counted.
    hold(100).await;
    if let Some(open) = &mut notes.open {
        open.end = now_us();
    }
    Ok(())
}

async fn recovery(stage: &Stage) -> anyhow::Result<Span> {
    stage.fleet.set_mood(Mood::Healthy).await?;
    stage.until_all_healthy().await?;
    let closed = now_us();
    hold(2500).await;
    Ok(ended(closed).await)
}

async fn cut_off(stage: &Stage, notes: &mut Notes) -> anyhow::Result<()> {
    stage.fleet.cut(true).await?;
    let is_open =
        |observation: &Observation| observation.of(ISOLATED).is_some_and(|far| far.state != State::Closed);
    stage.until("the isolated instance opens locally", is_open).await?;
    let start = now_us();
    hold(4000).await;
    notes.cut_off = Some(start..now_us());
    stage.fleet.cut(false).await?;
    stage.until_all_healthy().await?;
    hold(1000).await;
    Ok(())
}

async fn redis_away(stage: &Stage) -> anyhow::Result<Span> {
    let start = now_us();
    stage.fleet.set_redis(false).await?;
    stage
        .until("all instances notice the loss of Redis", |observation| {
            observation.all(|circuit| !circuit.shared)
        })
        .await?;
    hold(3000).await;
    stage.fleet.set_redis(true).await?;
    stage.until_all_healthy().await?;
    hold(1000).await;
    Ok(start..now_us())
}

/// Ends a span now, and then waits for running calls to end before the next fault.
async fn ended(start: u64) -> Span {
    let span = start..now_us();
    hold(750).await;
    span
}

/// Keeps the current situation for some time.
async fn hold(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}
