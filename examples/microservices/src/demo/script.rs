//! The script: what is broken and mended in which order, and what is written down meanwhile.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use cb_runtime::State;

use super::fleet::FAR;
use super::load::Answer;
use super::stage::{Sight, Stage};
use crate::auth::Mood;
use crate::profile::Circuit;
use crate::service::now_us;

/// A part of the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// Nothing is broken.
    Healthy,
    /// Auth answers too late.
    Slow,
    /// Auth answers with errors.
    Down,
    /// Auth is well again.
    Recovery,
    /// One instance does not reach auth.
    CutOff,
    /// Redis is killed, and comes back empty.
    RedisAway,
}

impl Scene {
    /// All of them, in order.
    pub const ALL: [Scene; 6] =
        [Scene::Healthy, Scene::Slow, Scene::Down, Scene::Recovery, Scene::CutOff, Scene::RedisAway];

    /// What happens.
    pub fn explanation(self) -> &'static str {
        match self {
            Scene::Healthy => "All is well: auth answers every request.",
            Scene::Slow => "Auth takes 2 s. Calls time out, and open the circuit in all three instances.",
            Scene::Down => {
                "Auth answers 500. Nobody asks it but a few probes; cached answers, then the fallback."
            }
            Scene::Recovery => "Auth is well again: probes find out, and close the circuit everywhere.",
            Scene::CutOff => {
                "Instance c alone cannot reach auth: it opens for itself, the others stay closed."
            }
            Scene::RedisAway => "Redis is killed. Nobody notices. It comes back empty, and all join again.",
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

/// What is written down while the script is played. What it did not come to is `None`.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// All was well.
    pub healthy: Option<Span>,
    /// From the moment when all circuits were open until auth was mended.
    pub open: Option<Span>,
    /// Requests that auth got in that time, but for the first second of it.
    pub asked_while_open: u64,
    /// From the moment when all circuits were closed again.
    pub recovered: Option<Span>,
    /// From the moment when the instance that is cut off had opened until it reached auth again.
    pub cut_off: Option<Span>,
    /// From the death of Redis until all have joined it again.
    pub redis_away: Option<Span>,
    /// Every answer that a client of the gateway got.
    pub answers: Vec<Answer>,
    /// Every instance's view at the end, with the changes that it has heard of.
    pub circuits: Vec<Circuit>,
}

/// What takes a second to settle once all circuits are open: calls that were under way.
pub const SETTLING: Duration = Duration::from_secs(1);

/// Plays the script, and tells `announce` of every scene as it begins.
///
/// # Errors
/// If something that a scene waits for does not happen. The notes have what came before.
pub async fn play(stage: &Stage, notes: &mut Notes, announce: impl FnMut(Scene)) -> anyhow::Result<()> {
    let result = scenes(stage, notes, announce).await;
    notes.answers = stage.load.sent_in(&(stage.started_us..now_us()));
    notes.circuits = stage.sight().circuits;
    result
}

async fn scenes(stage: &Stage, notes: &mut Notes, mut announce: impl FnMut(Scene)) -> anyhow::Result<()> {
    mend(stage).await?;
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

/// Mends whatever may be broken.
async fn mend(stage: &Stage) -> anyhow::Result<()> {
    stage.fleet.set_mood(Mood::Healthy).await?;
    stage.fleet.cut(false).await?;
    if stage.fleet.redis.pid().is_none() {
        stage.fleet.set_redis(true).await?;
    }
    all_well(stage).await
}

async fn all_well(stage: &Stage) -> anyhow::Result<()> {
    let well = |sight: &Sight| sight.all(|circuit| circuit.state == State::Closed && circuit.shared);
    stage.until("all circuits are closed, and Redis is reached", well).await
}

async fn healthy() -> Span {
    let start = now_us();
    hold(2500).await;
    ended(start).await
}

async fn slow(stage: &Stage, notes: &mut Notes) -> anyhow::Result<()> {
    stage.fleet.set_mood(Mood::Slow).await?;
    stage.until("all circuits are open", |sight| sight.all(|circuit| circuit.state != State::Closed)).await?;
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
    // Time for everybody to hear of the half-open state whose probe has just been counted.
    hold(100).await;
    if let Some(open) = &mut notes.open {
        open.end = now_us();
    }
    Ok(())
}

async fn recovery(stage: &Stage) -> anyhow::Result<Span> {
    stage.fleet.set_mood(Mood::Healthy).await?;
    all_well(stage).await?;
    let closed = now_us();
    hold(2500).await;
    Ok(ended(closed).await)
}

async fn cut_off(stage: &Stage, notes: &mut Notes) -> anyhow::Result<()> {
    stage.fleet.cut(true).await?;
    let far_is_open = |sight: &Sight| sight.of(FAR).is_some_and(|far| far.state != State::Closed);
    stage.until("the instance that is cut off opens for itself", far_is_open).await?;
    let start = now_us();
    hold(4000).await;
    notes.cut_off = Some(start..now_us());
    stage.fleet.cut(false).await?;
    all_well(stage).await?;
    hold(1000).await;
    Ok(())
}

async fn redis_away(stage: &Stage) -> anyhow::Result<Span> {
    let start = now_us();
    stage.fleet.set_redis(false).await?;
    stage
        .until("all instances notice that Redis is away", |sight| sight.all(|circuit| !circuit.shared))
        .await?;
    hold(3000).await;
    stage.fleet.set_redis(true).await?;
    all_well(stage).await?;
    hold(1000).await;
    Ok(start..now_us())
}

/// A span that ends now; returns when calls that are under way can have ended, too, before the next thing breaks.
async fn ended(start: u64) -> Span {
    let span = start..now_us();
    hold(750).await;
    span
}

/// Lets people watch.
async fn hold(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}
