//! The results of the gateway's clients under faults, and the requests that reach auth; over HTTP.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use cb_runtime::{Registry, State};
use microservices::auth::Mood;
use microservices::demo::agreement::{Agreement, agreements};
use microservices::demo::fleet::{Fleet, ISOLATED};
use microservices::demo::load::AnswerCounts;
use microservices::demo::process::Stopped;
use microservices::demo::stage::{Observation, Stage};
use microservices::profile::{PROBES, Profile, Source};
use microservices::service::{client, now_us};

type Outcome = anyhow::Result<()>;

fn executable() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_microservices"))
}

/// Settings under which no call to auth times out: on a busy machine, that would be a fault of its own.
const PATIENT: &str = r#"{"call_timeout": "1m"}"#;

/// A healthy fleet under load. `breaker`: settings that replace those of the attribute.
async fn stage(breaker: &str) -> anyhow::Result<Stage> {
    let stage = Stage::set(executable(), breaker).await?;
    stage.until_all_healthy().await?;
    let start = stage.started_us;
    // Every user was requested, so that each has a cached result.
    while counts(&stage, start..now_us()).live < 60 {
        pause().await;
    }
    Ok(stage)
}

async fn all_open(stage: &Stage) -> Outcome {
    stage
        .until("all circuits are open", |observation| observation.all(|circuit| circuit.state == State::Open))
        .await
}

fn counts(stage: &Stage, span: Range<u64>) -> AnswerCounts {
    stage.load.sent_in(&span).iter().collect()
}

/// The number of probes that the half-open states since then allow.
async fn probes_since(stage: &Stage, begin_us: u64) -> anyhow::Result<u64> {
    let changes = agreements(&stage.fleet.circuits().await?);
    let is_trial = |change: &&Agreement| change.to == State::HalfOpen && change.first_us > begin_us;
    Ok(changes.iter().filter(is_trial).count() as u64 * u64::from(PROBES))
}

/// The pause between two polls.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

/// Waits until the answers since now satisfy `enough`. Returns the span in which they arrived.
async fn until_answered(stage: &Stage, what: &str, enough: impl Fn(&AnswerCounts) -> bool) -> Range<u64> {
    let start = now_us();
    let answered = async {
        while !enough(&counts(stage, start..now_us())) {
            pause().await;
        }
    };
    let limit = Duration::from_secs(60);
    let in_time = tokio::time::timeout(limit, answered).await.is_ok();
    assert!(in_time, "{what}: not within {limit:?}, but {:?}", counts(stage, start..now_us()));
    start..now_us()
}

#[tokio::test]
async fn clients_get_answers_and_auth_only_probes_while_it_is_down() -> Outcome {
    let stage = stage(PATIENT).await?;
    stage.fleet.set_mood(Mood::Down).await?;
    let down = now_us();
    all_open(&stage).await?;
    let opened = now_us();
    until_answered(&stage, "running calls have ended", |counts| counts.total() > 100).await;
    let asked = stage.fleet.auth_stats().await?.total();

    let fallback = until_answered(&stage, "the fallback's answers", |counts| counts.fallback > 300).await;
    let seen = counts(&stage, down..fallback.end);
    assert_eq!((seen.live, seen.failed), (0, 0), "{seen:?}");
    assert!(seen.cached > 0, "until the results are too old: {seen:?}");

    let asked = stage.fleet.auth_stats().await?.total() - asked;
    // The half-open state whose probe was just counted may not be observed yet.
    until_answered(&stage, "a few more answers", |counts| counts.total() > 20).await;
    let most = probes_since(&stage, opened).await?;
    assert!(asked <= most, "auth got {asked} requests, more than the {most} probes");

    let changes = agreements(&stage.fleet.circuits().await?);
    let first_opening = changes.iter().find(|change| change.to == State::Open).expect("the circuit opened");
    assert!(first_opening.spread.is_some(), "all three observed it");

    stage.fleet.set_mood(Mood::Healthy).await?;
    stage.until_all_healthy().await?;
    let recovered = until_answered(&stage, "live answers", |counts| counts.total() > 200).await;
    let seen = counts(&stage, recovered);
    assert_eq!(seen.live, seen.total(), "{seen:?}");
    clean(&stage.clear().await?);
    Ok(())
}

#[tokio::test]
async fn slow_auth_does_not_slow_the_gateway() -> Outcome {
    let stage = stage("").await?;
    let slow = now_us();
    stage.fleet.set_mood(Mood::Slow).await?;
    all_open(&stage).await?;
    until_answered(&stage, "running calls have ended", |counts| counts.total() > 100).await;
    let asked = stage.fleet.auth_stats().await?.total();
    let span = until_answered(&stage, "answers", |counts| counts.total() > 200).await;
    let asked = stage.fleet.auth_stats().await?.total() - asked;
    // Without the breaker, every call would wait for auth until its timeout. With it, only probes do, whose
    // number follows the time that the answers take on this machine.
    let seen = counts(&stage, span);
    assert_eq!(seen.failed, 0, "{seen:?}");
    until_answered(&stage, "a few more answers", |counts| counts.total() > 20).await;
    let most = probes_since(&stage, slow).await?;
    assert!(asked <= most, "auth got {asked} requests, more than the {most} probes");
    Ok(())
}

#[tokio::test]
async fn clients_are_not_affected_by_a_killed_redis() -> Outcome {
    let stage = stage(PATIENT).await?;
    let start = now_us();
    stage.fleet.set_redis(false).await?;
    stage.until("all notice the loss", |observation| observation.all(|circuit| !circuit.shared)).await?;
    until_answered(&stage, "answers without Redis", |counts| counts.live > 200).await;
    stage.fleet.set_redis(true).await?;
    stage.until_all_healthy().await?;
    let back = until_answered(&stage, "answers with Redis", |counts| counts.live > 50).await;
    let seen = counts(&stage, start..back.end);
    assert_eq!(seen.live, seen.total(), "clients are not affected: {seen:?}");

    // State is shared again.
    stage.fleet.set_mood(Mood::Down).await?;
    all_open(&stage).await?;
    Ok(())
}

#[tokio::test]
async fn isolated_instance_opens_locally() -> Outcome {
    let stage = stage(PATIENT).await?;
    stage.fleet.cut(true).await?;
    let opens =
        |observation: &Observation| observation.of(ISOLATED).is_some_and(|far| far.state != State::Closed);
    stage.until("the isolated instance opens locally", opens).await?;
    let span = until_answered(&stage, "answers", |counts| counts.cached + counts.fallback > 60).await;
    let by = |is_far: bool| -> AnswerCounts {
        let answers = stage.load.sent_in(&span);
        let of = |instance: &str| (instance == ISOLATED) == is_far;
        answers.iter().filter(|answer| answer.by.as_ref().is_none_or(|(_, by)| of(by))).collect()
    };
    let (far, others) = (by(true), by(false));
    assert_eq!((far.live, far.failed), (0, 0), "its clients get cached answers: {far:?}");
    assert_eq!(others.live, others.total(), "the others are not affected: {others:?}");
    for circuit in stage.fleet.circuits().await? {
        let opened = circuit.changes.iter().any(|change| change.to == State::Open);
        assert!(circuit.instance == ISOLATED || !opened, "{circuit:?}");
    }
    stage.fleet.cut(false).await?;
    stage.until_all_healthy().await
}

#[tokio::test]
async fn stopping_instance_causes_no_client_error() -> Outcome {
    let Stage { fleet, load, watcher, .. } = stage(PATIENT).await?;
    watcher.stop().await;
    let mut fleet = std::sync::Arc::into_inner(fleet).expect("the watcher has released its reference");
    let start = now_us();
    clean(&[fleet.profiles.remove(1).stop().await?]);
    let seen = || load.sent_in(&(start..now_us())).iter().collect::<AnswerCounts>();
    while seen().total() < 100 {
        pause().await;
    }
    let seen = seen();
    assert_eq!(seen.live, seen.total(), "the gateway uses the other instances: {seen:?}");
    drop(load);
    clean(&fleet.stop().await?);
    Ok(())
}

#[tokio::test]
async fn graceful_stop_reports_all_counts() -> Outcome {
    let fleet = Fleet::start(executable(), "").await?;
    let client = client(Duration::from_secs(60))?;
    for user in 0..100 {
        let profile: Profile = get(&client, &format!("{}/profile/{user}", fleet.gateway.url())).await?;
        assert_eq!(profile.source, Source::Live);
    }
    let redis = fleet.redis.clone();
    clean(&fleet.stop().await?);
    let registry = Registry::builder().redis(redis.url()).namespace("microservices").build()?;
    let rows = registry.fleet().await?;
    assert_eq!(rows.iter().find(|row| row.name == "auth").map(|row| row.successes), Some(100));
    Ok(())
}

#[tokio::test]
async fn stopping_instance_returns_its_probe() -> Outcome {
    // One probe at a time, without a practical timeout.
    let breaker = r#"{"failure_threshold": 5, "min_failing_instances": 1, "reset_timeout": "300ms",
        "half_open_max_calls": 1, "success_threshold": 1, "call_timeout": "1m"}"#;
    let mut fleet = Fleet::start(executable(), breaker).await?;
    let client = client(Duration::from_secs(60))?;
    let (a, b) = (fleet.profiles.remove(0), fleet.profiles[0].url().to_owned());
    let of_a = format!("{}/profile/1", a.url());
    fleet.set_mood(Mood::Down).await?;
    for _ in 0..5 {
        let profile: Profile = get(&client, &of_a).await?;
        assert_eq!(profile.source, Source::Fallback, "nothing is cached for this user");
    }

    // `a` calls until one of its calls is a probe, which then waits for auth.
    fleet.set_mood(Mood::Slow).await?;
    let asked = fleet.auth_stats().await?.total();
    let probe = tokio::spawn({
        let (client, url) = (client.clone(), of_a.clone());
        async move {
            loop {
                let answer = client.get(&url).send().await?;
                if answer.status() != 200 {
                    return anyhow::Ok(answer.status());
                }
            }
        }
    });
    while fleet.auth_stats().await?.total() == asked {
        pause().await;
    }
    let leases = || fleet.redis.cli(&["ZCARD", "cb1:{microservices}:l:auth"]);
    assert_eq!(leases(), "1", "the call is a probe");

    clean(&[a.stop().await?]);
    assert_eq!(probe.await??, 503, "its client gets an answer");
    assert_eq!(leases(), "0", "the lease is returned, not left to expire");
    fleet.set_mood(Mood::Healthy).await?;
    while get::<Profile>(&client, &format!("{b}/profile/1")).await?.source != Source::Live {
        pause().await;
    }
    Ok(())
}

async fn get<T: serde::de::DeserializeOwned>(client: &reqwest::Client, url: &str) -> anyhow::Result<T> {
    Ok(client.get(url).send().await?.error_for_status()?.json().await?)
}

/// Asserts that every process ended by itself, with exit code 0.
#[track_caller]
fn clean(stopped: &[Stopped]) {
    for one in stopped {
        assert!(one.clean, "{one:?}");
    }
}
