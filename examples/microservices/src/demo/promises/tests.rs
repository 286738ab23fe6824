//! A run in which every promise holds, and for each promise a run in which only that one does not.

use std::time::Duration;

use cb_runtime::State;

use super::judge;
use crate::demo::load::Answer;
use crate::demo::process::Stopped;
use crate::demo::script::Notes;
use crate::profile::{Change, Circuit, Source};

const SECOND: u64 = 1_000_000;

fn answer(second: u64, source: Source, instance: &str) -> Answer {
    Answer { sent_us: second * SECOND, took: Duration::ZERO, by: Some((source, instance.into())) }
}

fn change(epoch: u64, second: u64, to: State) -> Change {
    Change { epoch, to, reason: String::new(), local: false, at_us: second * SECOND }
}

/// Healthy in second 0, open from 10 to 20, recovered in 20, one cut off in 30, no Redis in 40.
fn good() -> (Notes, Vec<Stopped>) {
    let span = |from: u64, to: u64| Some(from * SECOND..to * SECOND);
    let changes = vec![change(1, 9, State::Open), change(2, 15, State::HalfOpen), change(3, 16, State::Open)];
    let circuit = |instance: &str| Circuit {
        instance: instance.into(),
        state: State::Closed,
        epoch: 5,
        local: false,
        shared: true,
        rejected: 0,
        changes: changes.clone(),
    };
    let notes = Notes {
        healthy: span(0, 10),
        open: span(10, 20),
        asked_while_open: 2,
        recovered: span(20, 30),
        cut_off: span(30, 40),
        redis_away: span(40, 50),
        answers: vec![
            answer(1, Source::Live, "a"),
            answer(12, Source::Cached, "a"),
            answer(18, Source::Fallback, "b"),
            answer(25, Source::Live, "b"),
            answer(31, Source::Live, "a"),
            answer(32, Source::Cached, "c"),
            answer(41, Source::Live, "c"),
        ],
        circuits: ["a", "b", "c"].map(circuit).into(),
    };
    (notes, vec![Stopped { name: "a".into(), took: Duration::from_millis(5), clean: true }])
}

/// Asserts that exactly the promises whose text contains these words are broken.
#[track_caller]
fn breaks(words: &[&str], worsen: impl FnOnce(&mut Notes)) {
    let (mut notes, stopped) = good();
    worsen(&mut notes);
    breaks_of(words, &notes, &stopped);
}

#[track_caller]
fn breaks_of(words: &[&str], notes: &Notes, stopped: &[Stopped]) {
    let broken: Vec<_> = judge(notes, stopped).into_iter().filter(|promise| !promise.held).collect();
    assert_eq!(broken.len(), words.len(), "{broken:?}");
    for (promise, word) in broken.iter().zip(words) {
        assert!(promise.text.contains(word), "{word}: {broken:?}");
    }
}

#[test]
fn good_run_holds_all_promises() {
    breaks(&[], |_| {});
}

#[test]
fn cached_answer_while_healthy_breaks_a_promise() {
    breaks(&["healthy"], |run| run.answers[0] = answer(1, Source::Cached, "a"));
}

#[test]
fn late_or_missing_opening_breaks_a_promise() {
    breaks(&["50 ms"], |run| run.circuits[2].changes[0].at_us += 50_001);
    breaks(&["50 ms"], |run| drop(run.circuits[2].changes.remove(0)));
}

#[test]
fn error_while_open_breaks_a_promise() {
    breaks(&["no client gets an error"], |run| {
        run.answers.push(Answer { sent_us: 13 * SECOND, took: Duration::ZERO, by: None });
    });
}

#[test]
fn fallback_before_the_cache_breaks_a_promise() {
    breaks(&["then the fallback"], |run| {
        run.answers[1].sent_us = 18 * SECOND;
        run.answers[2].sent_us = 12 * SECOND;
    });
}

#[test]
fn probe_that_the_fallback_answers_late_breaks_no_promise() {
    breaks(&[], |run| {
        let took = Duration::from_secs(5);
        run.answers.push(Answer { took, ..answer(11, Source::Fallback, "a") });
    });
}

#[test]
fn more_requests_than_probes_break_a_promise() {
    breaks(&["only probes"], |run| run.asked_while_open = 3);
    breaks(&["only probes"], |run| {
        run.circuits.iter_mut().for_each(|circuit| drop(circuit.changes.remove(1)));
    });
}

#[test]
fn cached_answer_after_the_recovery_breaks_a_promise() {
    breaks(&["cached answers stop"], |run| run.answers.push(answer(26, Source::Cached, "b")));
}

#[test]
fn opening_of_other_instances_breaks_a_promise() {
    breaks(&["only it opens"], |run| run.answers.push(answer(33, Source::Fallback, "b")));
    breaks(&["only it opens"], |run| {
        run.circuits.iter_mut().for_each(|circuit| circuit.changes.push(change(4, 35, State::Open)));
    });
}

#[test]
fn cached_answer_without_redis_breaks_a_promise() {
    breaks(&["Redis"], |run| run.answers.push(answer(42, Source::Cached, "a")));
}

#[test]
fn late_or_unclean_exit_breaks_a_promise() {
    let (notes, stopped) = good();
    let late = Stopped { took: Duration::from_millis(1001), ..stopped[0].clone() };
    breaks_of(&["SIGTERM"], &notes, &[late]);
    let bad = Stopped { clean: false, ..stopped[0].clone() };
    breaks_of(&["SIGTERM"], &notes, &[bad]);
}

#[test]
fn scenes_that_were_not_reached_break_their_promises() {
    breaks(&["cached answers stop", "only it opens", "Redis"], |run| {
        run.recovered = None;
        run.cut_off = None;
        run.redis_away = None;
    });
}
