use super::*;

fn at(serial: u64, number: u64) -> Position {
    Position { incarnation: "one".into(), id: format!("{serial}-0"), number }
}

#[test]
fn answer_with_fewer_events_than_the_one_before_shows_a_loss_of_data() {
    let at = |incarnation: &str, number: u64| Position {
        incarnation: incarnation.into(),
        id: format!("{number}-0"),
        number,
    };
    let stream = Stream::default();
    let is_lost = |answered: &Position| (stream.note_answered(answered), stream.take_continuity());
    for position in [at("one", 5), at("one", 5), at("one", 6), at("two", 1)] {
        assert_eq!(is_lost(&position), (false, Continuity::Unbroken));
    }
    assert_eq!(is_lost(&at("two", 0)), (true, Continuity::Lost));
    assert_eq!(is_lost(&at("two", 0)), (false, Continuity::Unbroken));
}

#[test]
fn event_that_an_answer_tells_of_is_the_latest_before_it_is_read() {
    let stream = Stream::default();
    assert_eq!(stream.latest_number(), 0);
    stream.note_answered(&Position { incarnation: "one".into(), id: "6-0".into(), number: 6 });
    assert_eq!((stream.number(), stream.latest_number()), (0, 6));
}

#[test]
fn another_event_with_the_number_of_an_unread_one_shows_a_loss_of_data() {
    let stream = Stream::default();
    stream.place(&at(6, 6), &stream.position());
    assert!(!stream.note_answered(&at(7, 7)) && !stream.has_lost_since(&at(7, 7)));
    assert!(stream.has_lost_since(&at(9, 7)) && stream.note_answered(&at(9, 7)));
    assert_eq!(stream.take_continuity(), Continuity::Lost);
    // The store was restored to the sixth event, and has two further ones when it answers again.
    assert!(!stream.note_answered(&at(12, 8)));
    assert!(stream.note_reached(&at(11, 7)), "the answer told of another seventh event");
    assert!(!stream.note_reached(&at(12, 8)));
    // One that is read before it is answered.
    assert!(!stream.note_reached(&at(13, 9)) && !stream.note_reached(&at(14, 10)));
}

#[test]
fn another_event_with_the_number_of_the_latest_unread_one_shows_a_loss_of_data() {
    let stream = Stream::default();
    stream.place(&at(1, 1), &stream.position());
    assert!(!stream.note_answered(&at(3, 3)) && !stream.note_answered(&at(4, 4)));
    // The store was restored to the third event, and has gone on, before the reader reads on.
    assert!(stream.read(&at(2, 2)) && stream.read(&at(3, 3)));
    assert!(!stream.read(&at(5, 4)), "an answer told of another fourth event");
    assert_eq!(stream.take_continuity(), Continuity::Lost);
}

/// The store was restored while the answer was under way, and the events after it have overtaken the answer.
#[test]
fn answer_that_tells_of_another_event_than_was_read_shows_a_loss_of_data() {
    let stream = Stream::default();
    stream.place(&at(7, 7), &stream.position());
    assert!(stream.read(&at(9, 8)) && stream.read(&at(10, 9)) && stream.read(&at(11, 10)));
    assert!(!stream.has_lost_since(&at(9, 8)) && !stream.note_answered(&at(9, 8)));
    let stream = Stream::default();
    stream.place(&at(7, 7), &stream.position());
    assert!(!stream.note_answered(&at(7, 7)));
    assert!(stream.read(&at(9, 8)) && stream.read(&at(10, 9)) && stream.read(&at(11, 10)));
    assert!(stream.has_lost_since(&at(8, 8)) && stream.note_answered(&at(8, 8)));
    assert_eq!(stream.take_continuity(), Continuity::Lost);
    assert!(!stream.note_answered(&at(11, 10)), "it is noticed once");
}

#[test]
fn events_that_were_read_before_a_loss_of_data_are_not_compared_with_answers() {
    let stream = Stream::default();
    stream.place(&at(1, 1), &stream.position());
    assert!(stream.read(&at(2, 2)) && stream.read(&at(3, 3)));
    assert!(!stream.read(&at(5, 2)), "the store was restored to the first event");
    assert!(!stream.note_answered(&at(5, 2)) && !stream.note_answered(&at(6, 3)));
    assert!(stream.read(&at(6, 3)));
    stream.place(&at(7, 1), &stream.position());
    assert!(lock(&stream.recent).is_empty(), "a load has set the position");
}

#[test]
fn few_events_are_kept() {
    let stream = Stream::default();
    for number in 1..1000 {
        stream.read(&at(number, number));
    }
    let recent = lock(&stream.recent);
    assert_eq!((recent.len(), recent[0].number), (RECENT, 1000 - RECENT as u64));
}

#[test]
fn another_event_with_the_number_of_the_latest_shows_a_loss_of_data() {
    let at = |id: &str| Position { incarnation: "one".into(), id: id.into(), number: 2 };
    let stream = Stream::default();
    stream.place(&at("7-0"), &stream.position());
    assert!(!stream.is_another(&at("7-0"), &stream.position()));
    assert!(stream.is_another(&at("9-0"), &stream.position()));
    stream.place(&at("9-0"), &at("7-0"));
    assert_eq!(stream.position(), at("9-0"), "the next answer would show the loss again");
}

#[test]
fn load_does_not_set_a_reader_back_that_has_read_on() {
    let at = |number: u64| Position { incarnation: "one".into(), id: format!("{number}-0"), number };
    let stream = Stream::default();
    stream.place(&at(5), &stream.position());
    // An event arrives while the answer to a load is under way.
    *lock(&stream.position) = at(6);
    stream.place(&at(5), &at(5));
    assert_eq!(stream.position(), at(6), "the event would be read twice");
    stream.place(&at(2), &at(6));
    assert_eq!(stream.position(), at(2), "the store has lost events");
}
