//! Batches as the scripts read them, and their answers as they come back.
//!
//! A batch travels as JSON. An answer travels as nested arrays: Lua's JSON would round numbers of more
//! than 14 digits, could not tell an empty list from an empty table, and would hand on whatever
//! bytes somebody has put into Redis.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use redis::{FromRedisValue, Value};
use serde::Serialize;

use super::keys::{decode, encode};
use crate::snapshot::State;
use crate::store::{
    Batch, Counts, Entry, LastView, LeaseAsk, LeaseId, MAX_COUNT, MAX_EPOCH, MAX_SETTINGS, MAX_SPAN_US,
    OutcomeKind, Position, Proposal, Record, Reported, Retention, RoleView, StreamEvent, View, WindowView,
    cut, cut_to,
};

#[derive(Serialize)]
pub(super) struct BatchOut<'a> {
    instance: &'a str,
    /// The node as it stands in lists of failing ones.
    pub(super) node: String,
    seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<u64>,
    /// What the incarnation is called if one begins with this batch.
    fresh: String,
    prefix: &'a str,
    /// What a window's shape and bucket are appended to.
    windows: &'a str,
    /// The key of the notices.
    notices: String,
    /// How many events are kept, and for how many seconds; left out where it is what the script has built in.
    #[serde(skip_serializing_if = "Option::is_none")]
    retention: Option<(usize, u64)>,
    pub(super) entries: Vec<EntryOut<'a>>,
}

type CountsOut = [u64; 3];

/// What is empty is left out: to parse a batch is a good part of what it costs the server.
#[expect(clippy::struct_excessive_bools, reason = "the fields of a message")]
#[derive(Serialize)]
pub(super) struct EntryOut<'a> {
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    known: Option<KnownOut<'a>>,
    #[serde(skip_serializing_if = "is_false")]
    something: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    counts: Option<CountsOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    success: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failures: Vec<(u64, u64)>,
    /// How many failures of the streak are kept apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    keep: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<WindowOut>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    buckets: Vec<(u64, u64, u64, u64)>,
    #[serde(skip_serializing_if = "is_false")]
    failing: bool,
    #[serde(skip_serializing_if = "is_false")]
    leaves: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<LastOut>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    calls: Vec<(char, u64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proposal: Option<ProposalOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leases: Option<LeasesOut>,
    #[serde(skip_serializing_if = "is_false")]
    notice: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<RoleOut>,
    #[serde(skip_serializing_if = "str::is_empty")]
    settings: &'a str,
}

#[derive(Serialize)]
struct LastOut {
    calls: u32,
    since: u64,
}

#[derive(Serialize)]
struct RoleOut {
    want: bool,
    term: u64,
}

#[derive(Serialize)]
struct LeasesOut {
    release: Vec<String>,
    renew: Vec<String>,
    want: Vec<String>,
    limit: u32,
    term: u64,
}

#[derive(Serialize)]
#[serde(untagged)]
enum KnownOut<'a> {
    /// Closed since ever: no store can have lost that.
    Never {
        epoch: u64,
    },
    Record(RecordOut<'a>),
}

#[derive(Serialize)]
struct RecordOut<'a> {
    epoch: u64,
    state: &'static str,
    reason: &'a str,
    by: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    actor: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    remaining: Option<u64>,
    since: u64,
    reset: u64,
    attempt: u32,
}

#[derive(Serialize)]
struct ProposalOut<'a> {
    state: &'static str,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    remaining: Option<u64>,
    reset: u64,
    attempt: u32,
    force: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<u64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    actor: &'a str,
    evidence: CountsOut,
}

#[derive(Serialize)]
struct WindowOut {
    length: u64,
    width: u64,
    since: u64,
}

impl<'a> BatchOut<'a> {
    pub(super) fn new(
        batch: &'a Batch,
        fresh: String,
        prefix: &'a str,
        windows: &'a str,
        notices: String,
        retention: Retention,
    ) -> Self {
        BatchOut {
            instance: &batch.instance,
            node: encode(batch.node()),
            seq: whole(batch.seq),
            as_of: batch.as_of_us.map(whole),
            fresh,
            prefix,
            windows,
            notices,
            retention: (retention != Retention::default())
                .then_some((retention.events, retention.age.as_secs())),
            entries: Vec::with_capacity(batch.entries.len()),
        }
    }
}

impl<'a> EntryOut<'a> {
    pub(super) fn new(entry: &'a Entry) -> Self {
        let delta = &entry.delta;
        let failures: Vec<_> =
            delta.streak.failures.iter().filter(|(_, count)| *count > 0).copied().collect();
        let buckets =
            delta.buckets.iter().filter(|(_, counts)| entry.window.is_some() && !counts.is_nothing());
        let calls = delta.calls.iter().filter(|(_, count)| entry.last.is_some() && *count > 0);
        EntryOut {
            name: encode(&entry.name),
            known: entry.known().map(KnownOut::new),
            something: entry.has_something_to_merge(),
            counts: (!delta.counts.is_nothing()).then(|| counts_out(&delta.counts)),
            success: delta.streak.success_age_us.map(whole),
            keep: (!failures.is_empty()).then(|| entry.streak_pairs()),
            failures: failures.into_iter().map(|(age, count)| (whole(age), whole(count))).collect(),
            window: entry.window.map(|ask| WindowOut {
                length: whole(ask.length_us),
                width: whole(ask.width_us),
                since: whole(ask.since),
            }),
            buckets: buckets
                .map(|(age, counts)| {
                    let [successes, failures, slow] = counts_out(counts);
                    (whole(*age), successes, failures, slow)
                })
                .collect(),
            failing: entry.failing,
            leaves: entry.leaves,
            last: entry.last.map(|ask| LastOut { calls: ask.calls, since: whole(ask.since) }),
            calls: calls.map(|&(kind, count)| (letter(kind), whole(count))).collect(),
            proposal: entry.proposal.as_ref().map(ProposalOut::new),
            leases: LeasesOut::new(&entry.leases),
            notice: entry.notice,
            role: entry.role.map(|ask| RoleOut { want: ask.want, term: span(ask.term_us) }),
            settings: cut_to(&entry.settings, MAX_SETTINGS),
        }
    }
}

impl LeasesOut {
    fn new(ask: &LeaseAsk) -> Option<Self> {
        let ids = |ids: &[LeaseId]| ids.iter().map(ToString::to_string).collect();
        let asked = !(ask.release.is_empty() && ask.renew.is_empty() && ask.want.is_empty());
        asked.then(|| LeasesOut {
            release: ids(&ask.release),
            renew: ids(&ask.renew),
            want: ids(&ask.want),
            limit: ask.limit,
            term: span(ask.term_us),
        })
    }
}

impl<'a> KnownOut<'a> {
    fn new(record: &'a Record) -> Self {
        match record.epoch {
            0 => KnownOut::Never { epoch: 0 },
            _ => KnownOut::Record(RecordOut::new(record)),
        }
    }
}

impl<'a> RecordOut<'a> {
    fn new(record: &'a Record) -> Self {
        RecordOut {
            epoch: whole(record.epoch),
            state: record.state.as_str(),
            reason: cut(&record.reason),
            by: &record.originator,
            actor: cut(&record.actor),
            remaining: record.remaining_us.map(span),
            since: whole(record.since_us),
            reset: span(record.reset_timeout_us),
            attempt: record.attempt,
        }
    }
}

impl<'a> ProposalOut<'a> {
    fn new(proposal: &'a Proposal) -> Self {
        let to = &proposal.to;
        ProposalOut {
            state: to.state.as_str(),
            reason: cut(&to.reason),
            remaining: to.remaining_us.map(span),
            reset: span(to.reset_timeout_us),
            attempt: to.attempt,
            force: proposal.force,
            token: proposal.token.map(whole),
            actor: cut(&to.actor),
            evidence: counts_out(&proposal.evidence),
        }
    }
}

// As serde wants it.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(truth: &bool) -> bool {
    !truth
}

fn whole(number: u64) -> u64 {
    number.min(MAX_COUNT)
}

fn span(us: u64) -> u64 {
    us.min(MAX_SPAN_US)
}

/// A call among the last ones, as it stands in Redis.
fn letter(kind: OutcomeKind) -> char {
    match (kind.failed, kind.slow) {
        (false, false) => 's',
        (true, false) => 'f',
        (false, true) => 'S',
        (true, true) => 'F',
    }
}

fn kind(letter: u8) -> OutcomeKind {
    OutcomeKind { failed: letter.eq_ignore_ascii_case(&b'f'), slow: letter.is_ascii_uppercase() }
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

fn counts_out(counts: &Counts) -> CountsOut {
    [whole(counts.successes), whole(counts.failures), whole(counts.slow)]
}

/// The length and width of a window, and whether a breaker judges by its streak.
type ReportGroup = (Option<(u64, u64)>, bool);

/// The arguments of a report's entries, as `report.lua` takes them: in groups of one window and one kind of
/// rule. Returns the entries' places in the report, in the order of the arguments.
pub(super) fn report_arguments(entries: &[Reported], put: &mut impl FnMut(String)) -> Vec<usize> {
    let mut groups = BTreeMap::<ReportGroup, Vec<usize>>::new();
    for (place, entry) in entries.iter().enumerate() {
        let shape = entry.window.map(|ask| (whole(ask.length_us), whole(ask.width_us)));
        groups.entry((shape, entry.by_streak)).or_default().push(place);
    }
    let or_none = |number: Option<u64>| number.map_or(String::new(), |number| number.to_string());
    for ((shape, by_streak), places) in &groups {
        put(or_none(shape.map(|(length, _)| length)));
        put(or_none(shape.map(|(_, width)| width)));
        put(u8::from(*by_streak).to_string());
        put(places.len().to_string());
        for entry in places.iter().map(|place| &entries[*place]) {
            put(encode(&entry.name));
            put(whole(entry.epoch).to_string());
            put(counts_text(&entry.counts));
            put(or_none(entry.success_age_us.map(whole)));
            put(or_none(entry.failure_age_us.map(whole)));
            put(buckets_text(entry));
        }
    }
    groups.into_values().flatten().collect()
}

fn buckets_text(entry: &Reported) -> String {
    match &entry.buckets[..] {
        _ if entry.window.is_none() => String::new(),
        [(age, counts)] if *counts == entry.counts && !counts.is_nothing() => whole(*age).to_string(),
        all => {
            let all = all.iter().filter(|(_, counts)| !counts.is_nothing());
            all.fold(String::new(), |text, (age, counts)| {
                text + &format!("{}:{};", whole(*age), counts_text(counts))
            })
        }
    }
}

/// Counts as they stand in Redis.
fn counts_text(counts: &Counts) -> String {
    match counts_out(counts) {
        [successes, 0, 0] => successes.to_string(),
        [successes, failures, slow] => format!("{successes},{failures},{slow}"),
    }
}

/// An answer that is not of the form that the scripts give it. Only a script that is not ours could do that.
#[derive(Debug)]
pub(super) struct DecodeError(pub(super) &'static str);

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the script's answer has no {} where it should have", self.0)
    }
}

/// Takes an array's elements one by one.
pub(super) struct ReplyReader(std::vec::IntoIter<Value>);

impl ReplyReader {
    pub(super) fn of(value: Value) -> Result<ReplyReader, DecodeError> {
        match value {
            Value::Array(items) => Ok(ReplyReader(items.into_iter())),
            _ => Err(DecodeError("list")),
        }
    }

    fn next(&mut self) -> Result<Value, DecodeError> {
        self.0.next().ok_or(DecodeError("further element"))
    }

    pub(super) fn list(&mut self) -> Result<ReplyReader, DecodeError> {
        ReplyReader::of(self.next()?)
    }

    pub(super) fn number(&mut self) -> Result<u64, DecodeError> {
        self.signed()?.ok_or(DecodeError("number of at least 0"))
    }

    /// A number; negative means none.
    fn signed(&mut self) -> Result<Option<u64>, DecodeError> {
        match self.next()? {
            Value::Int(number) => Ok(u64::try_from(number).ok()),
            _ => Err(DecodeError("number")),
        }
    }

    /// Bytes that are not UTF-8 are replaced: somebody else has written them.
    pub(super) fn text(&mut self) -> Result<String, DecodeError> {
        match self.next()? {
            Value::BulkString(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Value::SimpleString(text) => Ok(text),
            _ => Err(DecodeError("text")),
        }
    }

    pub(super) fn texts(self) -> Result<Vec<String>, DecodeError> {
        let mut items = self;
        let mut texts = Vec::with_capacity(items.0.len());
        while !items.0.as_slice().is_empty() {
            texts.push(items.text()?);
        }
        Ok(texts)
    }

    pub(super) fn numbers(self) -> Result<Vec<u64>, DecodeError> {
        let mut items = self;
        let mut numbers = Vec::with_capacity(items.0.len());
        while !items.0.as_slice().is_empty() {
            numbers.push(items.number()?);
        }
        Ok(numbers)
    }

    pub(super) fn counts(&mut self) -> Result<Counts, DecodeError> {
        Ok(Counts { successes: self.number()?, failures: self.number()?, slow: self.number()? })
    }

    pub(super) fn position(&mut self) -> Result<Position, DecodeError> {
        let mut items = self.list()?;
        Ok(Position { incarnation: items.text()?, id: items.text()?, number: items.number()? })
    }

    /// One row of an answer: a list, the text of an error, or nothing.
    pub(super) fn row(&mut self) -> Result<Option<Result<ReplyReader, String>>, DecodeError> {
        Ok(match self.next()? {
            Value::Nil => None,
            Value::Array(items) => Some(Ok(ReplyReader(items.into_iter()))),
            Value::BulkString(text) => Some(Err(String::from_utf8_lossy(&text).into_owned())),
            _ => return Err(DecodeError("row")),
        })
    }

    pub(super) fn record(&mut self) -> Result<Record, DecodeError> {
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

    /// The next entry's part of an answer, or the text of an error. `own`: the asking node, encoded.
    pub(super) fn view(&mut self, now_us: u64, own: &str) -> Result<Result<View, String>, DecodeError> {
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
            window: self.optional_text()?.map(|buckets| window(&buckets)).transpose()?,
            failing: match self.optional_text()? {
                Some(list) => of_others(&list, own, now_us).into_iter().map(|at| now_us - at).collect(),
                None => Vec::new(),
            },
            last: self.optional(|mut last| last.last(own))?,
            role: self.optional(|mut role| role.role())?,
            other_settings: self.optional_text()?,
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

    fn last(&mut self, own: &str) -> Result<LastView, DecodeError> {
        let place = self.number()?;
        let letters = self.text()?;
        let runs = letters.as_bytes().chunk_by(|one, next| one == next);
        let outcomes = runs.map(|run| (kind(run[0]), run.len() as u64)).collect();
        let failing = self.optional_text()?.map_or(Vec::new(), |list| of_others(&list, own, place));
        Ok(LastView { place, outcomes, failing })
    }

    fn role(&mut self) -> Result<RoleView, DecodeError> {
        Ok(RoleView { mine: self.number()? == 1, token: self.number()?, remaining_us: self.number()? })
    }
}

/// "<bucket>:<successes>,<failures>,<slow>;" for each.
fn window(text: &str) -> Result<WindowView, DecodeError> {
    let bucket = |text: &str| {
        let (number, counts) = text.split_once(':')?;
        let mut counts = counts.split(',').map(|count| count.parse().ok());
        let counts = Counts { successes: counts.next()??, failures: counts.next()??, slow: counts.next()?? };
        Some((number.parse().ok()?, counts))
    };
    let buckets = text.split_terminator(';').map(|text| bucket(text).ok_or(DecodeError("bucket")));
    Ok(WindowView { buckets: buckets.collect::<Result<_, _>>()? })
}

/// An entry of the event stream; the error says what is wrong with it.
pub(super) fn event(id: String, fields: &HashMap<String, Value>) -> Result<StreamEvent, String> {
    let text = |field: &str| {
        let value = fields.get(field).ok_or_else(|| format!("{field} is missing"))?;
        String::from_redis_value_ref(value).map_err(|_| format!("{field} is not a text"))
    };
    let number = |field: &str| {
        let value = text(field)?;
        let number = value.parse::<u64>().ok().filter(|number| *number <= MAX_COUNT);
        number.ok_or_else(|| format!("{field} {} is no number", shown(&value)))
    };
    let state = |field: &str| text(field)?.parse::<State>().map_err(|problem| format!("{field}: {problem}"));
    let encoded = text("name")?;
    let name = decode(&encoded).ok_or_else(|| format!("name {} is no breaker's", shown(&encoded)))?;
    let to = state("state")?;
    let reset_timeout_us = number("reset_timeout_us")?.min(MAX_SPAN_US);
    let remaining_us = if text("remaining_us")?.is_empty() { None } else { Some(number("remaining_us")?) };
    Ok(StreamEvent {
        position: Position { incarnation: text("incarnation")?, id, number: number("number")? },
        name: Arc::from(name),
        from: if text("from")?.is_empty() { None } else { Some(state("from")?) },
        record: Record {
            epoch: Some(number("epoch")?).filter(|epoch| *epoch <= MAX_EPOCH).ok_or("epoch is too large")?,
            state: to,
            reason: cut(&text("reason")?).to_owned(),
            originator: text("by")?,
            // An instance of an earlier layout does not tell.
            actor: if fields.contains_key("actor") { cut(&text("actor")?).to_owned() } else { String::new() },
            remaining_us: to.remaining(remaining_us, reset_timeout_us),
            since_us: 0,
            reset_timeout_us,
            attempt: u32::try_from(number("attempt")?).map_err(|_| "attempt is too large".to_owned())?,
        },
        evidence: Counts {
            successes: number("successes")?,
            failures: number("failures")?,
            slow: number("slow")?,
        },
        at_us: number("at_us")?,
    })
}

fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(40).collect::<String>())
}
