//! What instances say of their settings, and who ordered a change.

use std::time::Duration;

use super::{Bench, Entry, StoreClient, about, delta, forced, forced_by, rules};
use crate::snapshot::State;
use crate::store::{MAX_REASON, MAX_SETTINGS, Record, SAID_FOR};

rules! {
    differing_settings_are_answered_to_both_instances
    differing_instances_learn_of_each_other_in_any_order
    unreported_settings_are_forgotten
    settings_are_kept_beside_a_breaker_and_do_not_make_one
    settings_outlive_epochs
    long_settings_are_cut_between_two_characters
    actor_of_an_override_is_answered
    actor_belongs_to_the_epoch
    actor_is_written_back
}

fn saying(settings: &str) -> Entry {
    Entry { settings: settings.into(), ..about("x") }
}

async fn say(instance: &mut StoreClient<'_>, settings: &str) -> Option<String> {
    instance.say(saying(settings)).await.other_settings
}

async fn make(bench: &Bench<'_>) {
    bench.instance("maker").say(Entry { delta: delta(1, 0), ..about("x") }).await;
}

async fn differing_settings_are_answered_to_both_instances(bench: &Bench<'_>) {
    make(bench).await;
    let (mut a, mut b) = (bench.instance("a"), bench.instance("b"));
    assert_eq!(say(&mut a, "limit 3").await, None);
    assert_eq!(say(&mut a, "limit 3").await, None);
    assert_eq!(say(&mut b, "").await, None, "who says nothing is told nothing");
    assert_eq!(say(&mut b, "limit 5").await.as_deref(), Some("limit 3"));
    assert_eq!(say(&mut a, "limit 3").await.as_deref(), Some("limit 5"));
}

async fn differing_instances_learn_of_each_other_in_any_order(bench: &Bench<'_>) {
    make(bench).await;
    let fleet = [("a", "old"), ("b", "old"), ("c", "new"), ("d", "new")];
    let mut heard = Vec::new();
    for round in 1..=2 {
        for (name, says) in fleet {
            let mut instance = bench.instance(name);
            instance.seq = round;
            heard.push(say(&mut instance, says).await);
        }
    }
    let (old, new) = (Some("old".to_owned()), Some("new".to_owned()));
    assert_eq!(heard, [None, None, old.clone(), old.clone(), new.clone(), new, old.clone(), old]);
}

async fn unreported_settings_are_forgotten(bench: &Bench<'_>) {
    make(bench).await;
    let mut a = bench.instance("a");
    say(&mut a, "old").await;
    say(&mut a, "new").await;
    bench.pass(SAID_FOR / 2);
    assert_eq!(say(&mut a, "new").await.as_deref(), Some("old"));
    bench.pass((SAID_FOR / 2).saturating_sub(Duration::from_micros(1)));
    assert_eq!(say(&mut a, "new").await.as_deref(), Some("old"));
    bench.pass(Duration::from_micros(1));
    assert_eq!(say(&mut a, "new").await, None);
}

async fn settings_are_kept_beside_a_breaker_and_do_not_make_one(bench: &Bench<'_>) {
    let (mut a, mut b) = (bench.instance("a"), bench.instance("b"));
    for _ in 0..2 {
        assert_eq!(say(&mut a, "one").await, None);
        assert_eq!(say(&mut b, "another").await, None);
    }
    assert!(bench.fleet().await.is_empty());
    let odd = "limit = \"3\" {ß} \n \u{0} %s \\";
    a.say(Entry { delta: delta(1, 0), ..saying(odd) }).await;
    assert_eq!(say(&mut b, "another").await.as_deref(), Some(odd), "from the exchange on that made it");
}

async fn settings_outlive_epochs(bench: &Bench<'_>) {
    let (mut a, mut b) = (bench.instance("a"), bench.instance("b"));
    a.say(Entry { proposal: Some(forced(State::Open, "test")), ..saying("one") }).await;
    a.force("x", State::Closed, "test").await;
    assert_eq!(say(&mut b, "another").await.as_deref(), Some("one"));
}

async fn long_settings_are_cut_between_two_characters(bench: &Bench<'_>) {
    make(bench).await;
    let kept = "a".repeat(MAX_SETTINGS - 1);
    let (mut a, mut b) = (bench.instance("a"), bench.instance("b"));
    for _ in 0..2 {
        assert_eq!(say(&mut a, &format!("{kept}ß and more")).await, None, "the same, as far as it is kept");
    }
    assert_eq!(say(&mut b, "b").await, Some(kept));
}

async fn actor_of_an_override_is_answered(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    for (i, actor) in ["alice", "größe \"\\ \n |5|", ""].into_iter().enumerate() {
        let ordered = forced_by(actor, State::ForcedOpen, &i.to_string());
        let view = a.say(Entry { proposal: Some(ordered), ..about("x") }).await;
        assert!(view.won);
        assert_eq!(view.record.actor, actor);
        assert_eq!(bench.instance("b").ask("x").await.record.actor, actor);
        let load = bench.store.load().await.unwrap();
        assert_eq!(load.held[0].1.as_ref().unwrap().actor, actor);
        assert_eq!(bench.fleet().await[0].view.as_ref().unwrap().0.actor, actor);
        assert_eq!(bench.events().await[i].record.actor, actor);
    }
    let long = format!("{}ß and more", "a".repeat(MAX_REASON - 1));
    let ordered = forced_by(&long, State::Disabled, "test");
    let view = a.say(Entry { proposal: Some(ordered), ..about("x") }).await;
    assert_eq!(view.record.actor, "a".repeat(MAX_REASON - 1));
}

async fn actor_belongs_to_the_epoch(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let ordered = forced_by("alice", State::ForcedOpen, "test");
    a.say(Entry { proposal: Some(ordered), ..about("x") }).await;
    assert_eq!(a.force("x", State::Closed, "test").await.record.actor, "");
    assert_eq!(bench.events().await[1].record.actor, "");
}

async fn actor_is_written_back(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let ordered = forced_by("alice", State::ForcedOpen, "test");
    let known: Record = a.say(Entry { proposal: Some(ordered), ..about("x") }).await.record;
    (bench.lose_everything)();
    let view = bench.instance("b").say(Entry { known: Some(known.clone()), ..about("x") }).await;
    assert_eq!(view.record, known);
    assert_eq!(bench.events().await[0].record.actor, "alice");
}
