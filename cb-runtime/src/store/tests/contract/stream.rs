//! Events, the states that a new instance loads, and cached results.

use std::time::Duration;

use super::{Bench, Entry, SECOND, about, counts, delta, proposal, propose, rules, seconds};
use crate::snapshot::State;
use crate::store::{MAX_EVENTS, NOTICE_PAUSE, News, Position, Record};

rules! {
    event_describes_the_transition
    events_are_numbered_without_gaps
    answer_has_the_streams_position
    watching_waits_for_the_next_event
    watch_ends_without_events
    new_stream_has_another_incarnation
    trimmed_stream_has_a_gap_in_its_numbers
    new_instance_loads_all_states_but_closed
    a_notice_reaches_all_and_is_given_once_in_a_while
    notices_that_come_too_soon_are_given_together
    new_instance_receives_the_age_of_an_earlier_notice
}

async fn event_describes_the_transition(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let known = a.ask("odd {name}\n").await.record;
    let answer = a.exchange(vec![propose("odd {name}\n", &known, proposal(State::Open))]).await;
    let events = bench.events().await;
    assert_eq!(events.len(), 1);
    let event = &events[0];
    assert_eq!((&*event.name, event.from), ("odd {name}\n", Some(State::Closed)));
    let expected = Record {
        epoch: 1,
        state: State::Open,
        reason: "test".into(),
        originator: "a".into(),
        actor: String::new(),
        remaining_us: Some(30 * SECOND),
        since_us: 0,
        reset_timeout_us: 30 * SECOND,
        attempt: 1,
    };
    assert_eq!((&event.record, event.evidence), (&expected, counts(6, 4)));
    assert_eq!((event.at_us, &event.position), (answer.now_us, &answer.position));
}

async fn events_are_numbered_without_gaps(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    for i in 0..5 {
        a.force(if i % 2 == 0 { "x" } else { "y" }, State::Open, &i.to_string()).await;
    }
    let events = bench.events().await;
    let received: Vec<_> =
        events.iter().map(|e| (e.position.number, e.record.reason.as_str(), e.record.epoch)).collect();
    assert_eq!(received, [(1, "0", 1), (2, "1", 1), (3, "2", 2), (4, "3", 2), (5, "4", 3)]);
    assert_eq!(events[2].from, Some(State::Open));
    let rest = bench.watch(events[2].position.clone(), Duration::ZERO).await;
    assert_eq!(rest, events[3..]);
}

async fn answer_has_the_streams_position(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let start = bench.store.load().await.unwrap().position;
    assert_eq!((start.id.as_str(), start.number), ("0-0", 0));
    assert!(!start.incarnation.is_empty());
    assert_eq!(a.exchange(vec![]).await.position, start);
    a.force("x", State::Open, "test").await;
    let stands = a.exchange(vec![]).await.position;
    assert_eq!((stands.number, &stands.incarnation), (1, &start.incarnation));
    assert_eq!(bench.events().await[0].position, stands);
    assert_eq!(bench.store.load().await.unwrap().position, stands);
}

async fn watching_waits_for_the_next_event(bench: &Bench<'_>) {
    let from = bench.store.load().await.unwrap().position;
    let watching = bench.watch(from, seconds(60));
    let acting = async {
        // A watcher that was polled once either waits already or reads what is there.
        tokio::task::yield_now().await;
        bench.instance("a").force("x", State::Open, "test").await;
    };
    let (events, ()) = tokio::join!(watching, acting);
    assert_eq!(events.len(), 1);
}

async fn watch_ends_without_events(bench: &Bench<'_>) {
    bench.instance("a").force("x", State::Open, "test").await;
    let from = bench.store.load().await.unwrap().position;
    for patience in [Duration::ZERO, Duration::from_micros(1), Duration::from_millis(30)] {
        assert_eq!(bench.watch(from.clone(), patience).await, []);
    }
}

async fn new_stream_has_another_incarnation(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    for reason in ["1", "2", "3"] {
        a.force("x", State::Open, reason).await;
    }
    let before = bench.store.load().await.unwrap().position;
    (bench.lose_everything)();
    a.force("y", State::Open, "anew").await;
    let events = bench.watch(before.clone(), seconds(60)).await;
    assert_eq!(events.len(), 1);
    assert_eq!((&*events[0].name, events[0].position.number), ("y", 1));
    assert_ne!(events[0].position.incarnation, before.incarnation);
    assert_eq!(a.exchange(vec![]).await.position, events[0].position);
}

async fn trimmed_stream_has_a_gap_in_its_numbers(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    a.force("x", State::Open, "first").await;
    let first = bench.store.load().await.unwrap().position;
    // Redis trims in nodes of about a hundred entries.
    for i in 0..MAX_EVENTS + 300 {
        a.force("x", State::Open, &i.to_string()).await;
    }
    let next = bench.watch(first.clone(), Duration::ZERO).await;
    assert!(next[0].position.number > 2, "{:?}", next[0].position);
    assert_eq!(next[0].position.incarnation, first.incarnation);
    // The remaining events can be read in order.
    let (mut at, mut kept) = (first, 0);
    loop {
        let events = bench.watch(at.clone(), Duration::ZERO).await;
        let Some(last) = events.last() else { break };
        assert!(events.is_sorted_by_key(|event| event.position.number));
        assert!(kept == 0 || events[0].position.number == at.number + 1);
        (at, kept) = (last.position.clone(), kept + events.len());
    }
    assert_eq!(at.number, MAX_EVENTS as u64 + 301);
    assert!((MAX_EVENTS..MAX_EVENTS + 300).contains(&kept), "{kept}");
}

async fn new_instance_loads_all_states_but_closed(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    for state in State::ALL {
        a.force(state.as_str(), state, "test").await;
    }
    a.force("was open", State::Open, "test").await;
    a.force("was open", State::Closed, "test").await;
    let load = bench.store.load().await.unwrap();
    let held: Vec<_> =
        load.held.iter().map(|(name, record)| (&**name, record.as_ref().unwrap().state.as_str())).collect();
    let expected = ["disabled", "forced-open", "half-open", "metrics-only", "open"].map(|name| (name, name));
    assert_eq!(held, expected);
    assert_eq!(load.position.number, 8);
    assert_eq!(load.now_us, a.exchange(vec![]).await.now_us);
    for (name, record) in load.held {
        assert_eq!(a.ask(&name).await.record, record.unwrap());
    }
}

fn noticing(name: &str) -> Entry {
    Entry { delta: delta(1, 1), notice: true, ..about(name) }
}

/// What has come since this notice.
async fn notices(bench: &Bench<'_>, after: &str) -> News {
    bench.store.watch(Position::default(), after.into(), Duration::ZERO).await.unwrap()
}

async fn a_notice_reaches_all_and_is_given_once_in_a_while(bench: &Bench<'_>) {
    let (mut a, mut b) = (bench.instance("a"), bench.instance("b"));
    a.say(noticing("odd {name}\n")).await;
    let first = notices(bench, "0-0").await;
    assert_eq!((first.events.len(), &first.notices[..]), (0, &["odd {name}\n".into()][..]));
    bench.pass(seconds(4));
    b.say(noticing("odd {name}\n")).await;
    assert_eq!(notices(bench, &first.notice).await.notices.len(), 0, "one serves the fleet");
    bench.pass(seconds(1));
    b.say(noticing("odd {name}\n")).await;
    let second = notices(bench, &first.notice).await;
    assert_eq!((second.notices.len(), second.notice != first.notice), (1, true));
    a.force("odd {name}\n", State::Open, "test").await;
    bench.pass(seconds(60));
    a.say(noticing("odd {name}\n")).await;
    let after = notices(bench, &second.notice).await;
    assert_eq!((after.events.len(), after.notices.len()), (1, 0), "an open breaker needs none");
}

async fn notices_that_come_too_soon_are_given_together(bench: &Bench<'_>) {
    let (mut a, mut b) = (bench.instance("a"), bench.instance("b"));
    let names = |news: &News| news.notices.iter().map(ToString::to_string).collect::<Vec<_>>();
    a.exchange(vec![noticing("1"), noticing("2")]).await;
    let first = notices(bench, "0-0").await;
    assert_eq!(names(&first), ["1", "2"], "one for the whole batch");
    bench.pass(NOTICE_PAUSE / 2);
    a.exchange(vec![noticing("3")]).await;
    b.exchange(vec![noticing("4"), noticing("3")]).await;
    assert_eq!(names(&notices(bench, &first.notice).await), [""; 0]);
    bench.pass(NOTICE_PAUSE / 2);
    b.exchange(vec![]).await;
    let second = notices(bench, &first.notice).await;
    assert_eq!(names(&second), ["3", "4"]);
}

async fn new_instance_receives_the_age_of_an_earlier_notice(bench: &Bench<'_>) {
    let (mut a, mut b) = (bench.instance("a"), bench.instance("b"));
    assert_eq!(a.say(about("b")).await.notice_age_us, None);
    assert_eq!(a.say(noticing("b")).await.notice_age_us, Some(0));
    assert_eq!(a.say(noticing("waits")).await.notice_age_us, None);
    bench.pass(seconds(3));
    let first = b.say(about("b")).await;
    assert_eq!(first.notice_age_us, Some(3_000_000));
    let next = Entry { known: Some(first.record), ..about("b") };
    assert_eq!(b.say(next).await.notice_age_us, None, "it was not asked for");
}
