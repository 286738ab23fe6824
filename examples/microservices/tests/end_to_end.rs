//! What clients of the gateway get when things break, and what auth gets: seen from outside, over HTTP.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use cb_runtime::State;
use microservices::auth::Mood;
use microservices::demo::agreement::agreements;
use microservices::demo::fleet::{FAR, Fleet};
use microservices::demo::load::Tally;
use microservices::demo::process::Stopped;
use microservices::demo::stage::{Sight, Stage};
use microservices::profile::{PROBES, Profile, Source};
use microservices::service::{client, now_us};

type Outcome = anyhow::Result<()>;

fn executable() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_microservices"))
}

/// A fleet under load that is well.
async fn stage() -> anyhow::Result<Stage> {
    let stage = Stage::set(executable(), "").await?;
    all_well(&stage).await?;
    let start = stage.started_us;
    // Every user has been asked for, so that there is something to remember of each.
    while tally(&stage, start..now_us()).live < 60 {
        pause().await;
    }
    Ok(stage)
}

async fn all_well(stage: &Stage) -> Outcome {
    let well = |sight: &Sight| sight.all(|circuit| circuit.state == State::Closed && circuit.shared);
    stage.until("all circuits are closed, and Redis is reached", well).await
}

async fn all_open(stage: &Stage) -> Outcome {
    stage.until("all circuits are open", |sight| sight.all(|circuit| circuit.state == State::Open)).await
}

fn tally(stage: &Stage, span: Range<u64>) -> Tally {
    stage.load.sent_in(&span).iter().collect()
}

/// Between two looks at what is waited for.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

/// Answers of these kinds come in from now on; when it began, and when they had come.
async fn until_answered(stage: &Stage, what: &str, enough: impl Fn(&Tally) -> bool) -> Range<u64> {
    let start = now_us();
    let answered = async {
        while !enough(&tally(stage, start..now_us())) {
            pause().await;
        }
    };
    let limit = Duration::from_secs(20);
    let in_time = tokio::time::timeout(limit, answered).await.is_ok();
    assert!(in_time, "{what}: not within {limit:?}, but {:?}", tally(stage, start..now_us()));
    start..now_us()
}

#[tokio::test]
async fn while_auth_is_down_clients_get_answers_and_auth_gets_probes() -> Outcome {
    let stage = stage().await?;
    stage.fleet.set_mood(Mood::Down).await?;
    all_open(&stage).await?;
    let opened = now_us();
    until_answered(&stage, "calls that were under way have ended", |tally| tally.total() > 100).await;
    let asked = stage.fleet.auth_stats().await?.total();

    let cached = until_answered(&stage, "cached answers", |tally| tally.cached > 50).await;
    let fallback = until_answered(&stage, "the fallback's answers", |tally| tally.fallback > 300).await;
    let seen = tally(&stage, cached.start..fallback.end);
    assert_eq!((seen.live, seen.failed), (0, 0), "{seen:?}");

    let asked = stage.fleet.auth_stats().await?.total() - asked;
    // The half-open state whose probe has just been counted may not have been heard of yet.
    until_answered(&stage, "a few more answers", |tally| tally.total() > 20).await;
    let changes = agreements(&stage.fleet.circuits().await?);
    let trials = changes.iter().filter(|change| change.to == State::HalfOpen && change.first_us > opened);
    let most = trials.count() as u64 * u64::from(PROBES);
    assert!(asked <= most, "auth was asked {asked} times, where probes are {most} at most");

    let first_opening = changes.iter().find(|change| change.to == State::Open).expect("it has opened");
    let apart = first_opening.spread.expect("all three have heard of it");
    assert!(apart <= Duration::from_millis(50), "opened {apart:?} apart");

    stage.fleet.set_mood(Mood::Healthy).await?;
    all_well(&stage).await?;
    let recovered = until_answered(&stage, "live answers", |tally| tally.total() > 200).await;
    let seen = tally(&stage, recovered);
    assert_eq!(seen.live, seen.total(), "all is well again: {seen:?}");
    clean(&stage.clear().await?);
    Ok(())
}

#[tokio::test]
async fn a_slow_auth_does_not_make_the_gateway_slow() -> Outcome {
    let stage = stage().await?;
    stage.fleet.set_mood(Mood::Slow).await?;
    all_open(&stage).await?;
    let span = until_answered(&stage, "answers", |tally| tally.total() > 200).await;
    let answers = stage.load.sent_in(&span);
    // Without the breaker each of them would wait until the call times out. Now only probes do.
    let held_up = answers.iter().filter(|answer| answer.took > Duration::from_millis(400)).count();
    let seen: Tally = answers.iter().collect();
    assert!(held_up * 10 < seen.total() && seen.failed == 0, "{held_up} held up; {seen:?}");
    Ok(())
}

#[tokio::test]
async fn nobody_notices_that_redis_is_killed_and_comes_back_empty() -> Outcome {
    let stage = stage().await?;
    let start = now_us();
    stage.fleet.set_redis(false).await?;
    stage.until("all notice", |sight| sight.all(|circuit| !circuit.shared)).await?;
    until_answered(&stage, "answers without Redis", |tally| tally.live > 200).await;
    stage.fleet.set_redis(true).await?;
    all_well(&stage).await?;
    let back = until_answered(&stage, "answers with Redis", |tally| tally.live > 50).await;
    let seen = tally(&stage, start..back.end);
    assert_eq!(seen.live, seen.total(), "as if nothing had happened: {seen:?}");

    // And it is a fleet again.
    stage.fleet.set_mood(Mood::Down).await?;
    all_open(&stage).await?;
    Ok(())
}

#[tokio::test]
async fn an_instance_that_is_cut_off_from_auth_opens_for_itself_only() -> Outcome {
    let stage = stage().await?;
    stage.fleet.cut(true).await?;
    let opens = |sight: &Sight| sight.of(FAR).is_some_and(|far| far.state != State::Closed);
    stage.until("it opens for itself", opens).await?;
    let span = until_answered(&stage, "answers", |tally| tally.cached + tally.fallback > 60).await;
    let by = |is_far: bool| -> Tally {
        let answers = stage.load.sent_in(&span);
        let of = |instance: &str| (instance == FAR) == is_far;
        answers.iter().filter(|answer| answer.by.as_ref().is_none_or(|(_, by)| of(by))).collect()
    };
    let (far, others) = (by(true), by(false));
    assert_eq!((far.live, far.failed), (0, 0), "its clients get what it remembers: {far:?}");
    assert_eq!(others.live, others.total(), "the others go on as before: {others:?}");
    for circuit in stage.fleet.circuits().await? {
        let opened = circuit.changes.iter().any(|change| change.to == State::Open);
        assert!(circuit.instance == FAR || !opened, "{circuit:?}");
    }
    stage.fleet.cut(false).await?;
    all_well(&stage).await
}

#[tokio::test]
async fn a_stopping_instance_costs_no_client_an_error() -> Outcome {
    let Stage { fleet, load, watcher, .. } = stage().await?;
    watcher.stop().await;
    let mut fleet = std::sync::Arc::into_inner(fleet).expect("the watcher has ended");
    let start = now_us();
    clean(&[fleet.profiles.remove(1).stop().await?]);
    let seen = || load.sent_in(&(start..now_us())).iter().collect::<Tally>();
    while seen().total() < 100 {
        pause().await;
    }
    let seen = seen();
    assert_eq!(seen.live, seen.total(), "the gateway asks the others: {seen:?}");
    drop(load);
    clean(&fleet.stop().await?);
    Ok(())
}

#[tokio::test]
async fn a_graceful_stop_loses_no_counts() -> Outcome {
    let fleet = Fleet::start(executable(), "").await?;
    let client = client(Duration::from_secs(20))?;
    for user in 0..100 {
        let profile: Profile = get(&client, &format!("{}/profile/{user}", fleet.gateway.url())).await?;
        assert_eq!(profile.source, Source::Live);
    }
    let redis = fleet.redis.clone();
    clean(&fleet.stop().await?);
    assert_eq!(redis.cli(&["HGET", "cb1:{microservices}:b:auth", "successes"]), "100");
    Ok(())
}

#[tokio::test]
async fn an_instance_that_is_told_to_stop_hands_its_probe_over() -> Outcome {
    // One probe at a time, which may take as long as it likes.
    let breaker = r#"{"failure_threshold": 5, "min_failing_instances": 1, "reset_timeout": "300ms",
        "half_open_max_calls": 1, "success_threshold": 1, "call_timeout": "1m"}"#;
    let mut fleet = Fleet::start(executable(), breaker).await?;
    let client = client(Duration::from_secs(20))?;
    let (a, b) = (fleet.profiles.remove(0), fleet.profiles[0].url().to_owned());
    let of_a = format!("{}/profile/1", a.url());
    fleet.set_mood(Mood::Down).await?;
    for _ in 0..5 {
        let profile: Profile = get(&client, &of_a).await?;
        assert_eq!(profile.source, Source::Fallback, "nobody knows anything of this user yet");
    }

    // `a` asks on until one of its calls is a probe, which auth keeps waiting.
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
    assert_eq!(leases(), "1", "it is a probe");

    clean(&[a.stop().await?]);
    assert_eq!(probe.await??, 503, "its client was told");
    assert_eq!(leases(), "0", "the probe was given back, not left to lapse");
    fleet.set_mood(Mood::Healthy).await?;
    while get::<Profile>(&client, &format!("{b}/profile/1")).await?.source != Source::Live {
        pause().await;
    }
    Ok(())
}

async fn get<T: serde::de::DeserializeOwned>(client: &reqwest::Client, url: &str) -> anyhow::Result<T> {
    Ok(client.get(url).send().await?.error_for_status()?.json().await?)
}

/// Every one of them has ended within a second, with exit code 0.
#[track_caller]
fn clean(stopped: &[Stopped]) {
    for one in stopped {
        assert!(one.clean && one.took <= Duration::from_secs(1), "{one:?}");
    }
}
