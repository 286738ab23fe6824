//! The scripts' answers: nested arrays. Lua's JSON would round numbers of more than 14 digits, could not tell
//! an empty list from an empty table, and would pass on any bytes that are in Redis.

use redis::Value;

use crate::store::redis::hint::on_denial;
use crate::store::redis::plain_rows::stored_number;
use crate::store::{
    CountWindowView, Counts, LeaderView, LeaseId, OutcomeKind, Position, Record, View, WindowView, cut,
};

/// An answer that does not have the form of the scripts' answers.
#[derive(Debug)]
pub(in crate::store::redis) struct DecodeError(pub(super) &'static str);

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the script's answer has no {} where it should have", self.0)
    }
}

/// Takes an array's elements one by one.
pub(in crate::store::redis) struct ReplyReader(std::vec::IntoIter<Value>);

impl ReplyReader {
    pub(in crate::store::redis) fn of(value: Value) -> Result<ReplyReader, DecodeError> {
        match value {
            Value::Array(items) => Ok(ReplyReader(items.into_iter())),
            _ => Err(DecodeError("list")),
        }
    }

    fn next(&mut self) -> Result<Value, DecodeError> {
        self.0.next().ok_or(DecodeError("further element"))
    }

    pub(in crate::store::redis) fn list(&mut self) -> Result<ReplyReader, DecodeError> {
        ReplyReader::of(self.next()?)
    }

    pub(in crate::store::redis) fn number(&mut self) -> Result<u64, DecodeError> {
        self.signed()?.ok_or(DecodeError("number of at least 0"))
    }

    /// A number; negative means none.
    fn signed(&mut self) -> Result<Option<u64>, DecodeError> {
        match self.next()? {
            Value::Int(number) => Ok(u64::try_from(number).ok()),
            _ => Err(DecodeError("number")),
        }
    }

    /// Bytes that are not UTF-8 are replaced: another program has written them.
    pub(in crate::store::redis) fn text(&mut self) -> Result<String, DecodeError> {
        match self.next()? {
            Value::BulkString(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Value::SimpleString(text) => Ok(text),
            _ => Err(DecodeError("text")),
        }
    }

    pub(in crate::store::redis) fn texts(self) -> Result<Vec<String>, DecodeError> {
        self.rest(ReplyReader::text)
    }

    pub(in crate::store::redis) fn numbers(self) -> Result<Vec<u64>, DecodeError> {
        self.rest(ReplyReader::number)
    }

    fn rest<T>(mut self, read: fn(&mut Self) -> Result<T, DecodeError>) -> Result<Vec<T>, DecodeError> {
        (0..self.0.len()).map(|_| read(&mut self)).collect()
    }

    pub(in crate::store::redis) fn counts(&mut self) -> Result<Counts, DecodeError> {
        Ok(Counts { successes: self.number()?, failures: self.number()?, slow: self.number()? })
    }

    pub(in crate::store::redis) fn position(&mut self) -> Result<Position, DecodeError> {
        let mut items = self.list()?;
        Ok(Position { incarnation: items.text()?, id: items.text()?, number: items.number()? })
    }

    /// What a script could not read or write.
    pub(in crate::store::redis) fn warnings(&mut self) -> Result<Vec<String>, DecodeError> {
        let mut warnings = self.list()?.texts()?;
        for warning in &mut warnings {
            *warning += on_denial(warning);
        }
        Ok(warnings)
    }

    /// One row of an answer: a list, the text of an error, or nothing.
    pub(in crate::store::redis) fn row(
        &mut self,
    ) -> Result<Option<Result<ReplyReader, String>>, DecodeError> {
        Ok(match self.next()? {
            Value::Nil => None,
            Value::Array(items) => Some(Ok(ReplyReader(items.into_iter()))),
            Value::BulkString(text) => Some(Err(String::from_utf8_lossy(&text).into_owned())),
            _ => return Err(DecodeError("row")),
        })
    }

    pub(in crate::store::redis) fn record(&mut self) -> Result<Record, DecodeError> {
        Ok(Record {
            epoch: self.number()?,
            state: self.text()?.parse().map_err(|_| DecodeError("state"))?,
            reason: cut(&self.text()?).to_owned(),
            originator: self.text()?,
            actor: cut(&self.text()?).to_owned(),
            remaining_us: self.signed()?,
            since_us: self.number()?,
            reset_timeout_us: self.number()?,
            attempt: u32::try_from(self.number()?).map_err(|_| DecodeError("number of 32 bits"))?,
        })
    }

    /// The next counted entry's part of an answer: after 2 or, if it has ever been open, 3. `None` (0): it
    /// comes after all others.
    pub(in crate::store::redis) fn counted_view(&mut self) -> Result<Option<View>, DecodeError> {
        let kind = self.number()?;
        if !matches!(kind, 0 | 2 | 3) {
            return Err(DecodeError("counted view"));
        } else if kind == 0 {
            return Ok(None);
        }
        Ok(Some(View {
            won: false,
            granted: Vec::new(),
            lease_wait_us: None,
            success_age_us: self.signed()?,
            window: self.optional_text()?.map(|buckets| window(&buckets)),
            failing: Vec::new(),
            last: None,
            role: None,
            other_settings: None,
            notice_age_us: None,
            counts: self.counts()?,
            streak: self.number()?,
            record: if kind == 2 { Record::closed() } else { self.record()? },
        }))
    }

    /// The next entry's part of an answer, or the text of an error. `own`: the asking node, encoded.
    pub(in crate::store::redis) fn view(
        &mut self,
        now_us: u64,
        own: &str,
    ) -> Result<Result<View, String>, DecodeError> {
        match self.next()? {
            Value::Int(1) => {}
            Value::BulkString(text) => return Ok(Err(String::from_utf8_lossy(&text).into_owned())),
            _ => return Err(DecodeError("view")),
        }
        // In the order in which they come.
        Ok(Ok(View {
            won: self.number()? == 1,
            granted: self.granted()?,
            lease_wait_us: self.signed()?,
            success_age_us: self.signed()?,
            window: self.optional_text()?.map(|buckets| window(&buckets)),
            failing: match self.optional_text()? {
                Some(list) => of_others(&list, own, now_us).into_iter().map(|at| now_us - at).collect(),
                None => Vec::new(),
            },
            last: self.optional(|mut last| last.last(own))?,
            role: self.optional(|mut role| role.role())?,
            other_settings: self.optional_text()?,
            notice_age_us: self.signed()?,
            counts: self.counts()?,
            streak: self.number()?,
            record: self.record()?,
        }))
    }

    fn granted(&mut self) -> Result<Vec<LeaseId>, DecodeError> {
        let ids = self.text()?;
        let ids = ids.split(',').filter(|id| !id.is_empty());
        ids.map(|id| id.parse().map_err(|_| DecodeError("id of a lease"))).collect()
    }

    fn optional_text(&mut self) -> Result<Option<String>, DecodeError> {
        match self.next()? {
            Value::Nil => Ok(None),
            Value::BulkString(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            _ => Err(DecodeError("text")),
        }
    }

    /// A list, or nothing.
    fn optional<T>(
        &mut self,
        read: impl FnOnce(ReplyReader) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        match self.next()? {
            Value::Nil => Ok(None),
            list => read(ReplyReader::of(list)?).map(Some),
        }
    }

    fn last(&mut self, own: &str) -> Result<CountWindowView, DecodeError> {
        let place = self.number()?;
        let letters = self.text()?;
        let runs = letters.as_bytes().chunk_by(|one, next| one == next);
        let outcomes = runs.map(|run| (OutcomeKind::of_letter(run[0]), run.len() as u64)).collect();
        let failing = self.optional_text()?.map_or(Vec::new(), |list| of_others(&list, own, place));
        Ok(CountWindowView { place, outcomes, failing })
    }

    fn role(&mut self) -> Result<LeaderView, DecodeError> {
        Ok(LeaderView { mine: self.number()? == 1, token: self.number()?, remaining_us: self.number()? })
    }
}

/// `<bucket>:<counts>;` for each. Counts are `<successes>,<failures>,<slow>`, or `<successes>` alone. Others
/// than this library may have written them: what cannot be read is lost.
fn window(text: &str) -> WindowView {
    let bucket = |text: &str| {
        let (number, counts) = text.split_once(':')?;
        Some((number.parse().ok()?, stored_counts(counts)?))
    };
    WindowView { buckets: text.split_terminator(';').filter_map(bucket).collect() }
}

fn stored_counts(text: &str) -> Option<Counts> {
    let mut counts = text.split(',').map(stored_number);
    let successes = counts.next()??;
    let (failures, slow) = match counts.next() {
        Some(failures) => (failures?, counts.next()??),
        None => (0, 0),
    };
    counts.next().is_none().then_some(Counts { successes, failures, slow })
}

/// From a list of failing instances, which the script has found to be in order, what it says of others than
/// `own`. The latest first, none later than `latest`.
fn of_others(list: &str, own: &str, latest: u64) -> Vec<u64> {
    let pairs = list.split(' ').filter_map(|pair| pair.split_once('*'));
    let others = pairs.filter(|(instance, _)| *instance != own);
    // More digits than a number can have are more than anything.
    let mut ats: Vec<u64> = others.map(|(_, at)| at.parse().unwrap_or(u64::MAX).min(latest)).collect();
    ats.sort_unstable_by(|one, other| other.cmp(one));
    ats
}
