//! Rows of closed breakers that have never opened, read by plain commands. They are most of a fleet with
//! many keyed breakers, and the script that reads any breaker costs Redis ten times as much for each.

use std::sync::Arc;

use super::{RedisStore, keys::encode};
use crate::error::Error;
use crate::store::{Counts, Detail, FleetRow, MAX_COUNT, Record};

/// The number of breakers that are read at once, so that the overview of a large fleet does not block the
/// server.
pub(super) const ROWS_AT_ONCE: usize = 100;

/// What is read of a breaker's hash. The last four are there only for breakers that the script must read.
const FIELDS: [&str; 12] = [
    "state",
    "epoch",
    "successes",
    "failures",
    "slow",
    "consecutive_failures",
    "run",
    "last_failure_at",
    "reason",
    "since_us",
    "opened_at",
    "leader",
];

/// The values of [`FIELDS`], as HMGET answers them.
type FieldValues = Vec<Option<Vec<u8>>>;

/// Rows with their details, and the names that the script must read.
pub(super) type PlainRows = (Vec<(FleetRow, Detail)>, Vec<Arc<str>>);

impl RedisStore {
    /// Some names at a time, so that other clients are served in between.
    pub(super) async fn plain_rows(
        &self,
        doing: &'static str,
        names: Vec<Arc<str>>,
    ) -> Result<PlainRows, Error> {
        let (mut rows, mut others) = (Vec::with_capacity(names.len()), Vec::new());
        for some in names.chunks(ROWS_AT_ONCE) {
            let encoded: Vec<_> = some.iter().map(|name| encode(name)).collect();
            let mut pipe = redis::pipe();
            pipe.cmd("HMGET").arg(self.keys.quiet()).arg(&encoded);
            for name in &encoded {
                pipe.cmd("HMGET").arg(self.keys.breaker(name)).arg(&FIELDS[..]);
            }
            let mut answers: Vec<FieldValues> = match self.request(doing, &pipe).await {
                Ok(answers) => answers,
                // The script tells which key it is, and reads the others.
                Err(error) if error.to_string().contains("WRONGTYPE") => {
                    others.extend_from_slice(some);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let hashes = answers.split_off(answers.len().min(1));
            let reported = answers.pop().unwrap_or_default();
            for ((name, fields), reported) in some.iter().zip(hashes).zip(reported) {
                match plain_row(&fields, reported.as_deref()) {
                    PlainRow::Row(counts, streak, detail) => {
                        let view = Ok((Record::closed(), counts, streak));
                        rows.push((FleetRow { name: name.clone(), view }, detail));
                    }
                    PlainRow::Absent => {}
                    PlainRow::Other => others.push(name.clone()),
                }
            }
        }
        Ok((rows, others))
    }
}

enum PlainRow {
    /// A closed breaker of epoch 0.
    Row(Counts, u64, Detail),
    /// Nothing is stored.
    Absent,
    /// Anything else, damaged values included.
    Other,
}

fn plain_row(fields: &FieldValues, reported: Option<&[u8]>) -> PlainRow {
    if reported.is_none() && fields.iter().all(Option::is_none) {
        return PlainRow::Absent;
    }
    read(fields, reported)
        .map_or(PlainRow::Other, |(counts, streak, detail)| PlainRow::Row(counts, streak, detail))
}

/// `None` if this is for the script.
fn read(fields: &FieldValues, reported: Option<&[u8]>) -> Option<(Counts, u64, Detail)> {
    let mut texts = [None; FIELDS.len()];
    for (text, field) in texts.iter_mut().zip(fields) {
        *text = field.as_deref().map(std::str::from_utf8).transpose().ok()?;
    }
    let [state, epoch, successes, failures, slow, streak, run, failed_at, rest @ ..] = texts;
    let never_opened = state.is_none_or(|state| state == "closed") && epoch.is_none_or(|epoch| epoch == "0");
    if !never_opened || rest.iter().any(Option::is_some) {
        return None;
    }
    let number = |text: Option<&str>| text.map_or(Some(0), stored_number);
    let mut counts =
        Counts { successes: number(successes)?, failures: number(failures)?, slow: number(slow)? };
    let streak = number(streak)?;
    if run.map_or(Some(0), failures_in)? != streak {
        return None;
    }
    let mut failed_at_us = None;
    if let Some(failed_at) = failed_at {
        failed_at_us = Some(stored_number(failed_at)?.saturating_mul(1000));
    }
    if let Some(reported) = reported {
        let reported = ReportedRow::parse(std::str::from_utf8(reported).ok()?)?;
        // A success that was reported may end the streak.
        if streak > 0 && reported.has_success {
            return None;
        }
        counts = counts.plus(reported.counts);
        failed_at_us = failed_at_us.max(reported.failed_at_us);
    }
    Some((counts, streak, Detail { last_failure_at_us: failed_at_us, ..Detail::default() }))
}

/// A number that this library can have written.
pub(super) fn stored_number(text: &str) -> Option<u64> {
    text.parse::<u64>().ok().filter(|number| *number <= MAX_COUNT)
}

/// The failures of a written streak: `<success>|<failure>*<count>;<failure>*<count>;`.
fn failures_in(run: &str) -> Option<u64> {
    let (_success, failures) = run.split_once('|')?;
    failures.split_inclusive(';').try_fold(0_u64, |sum, failure| {
        let (_at, count) = failure.strip_suffix(';')?.split_once('*')?;
        sum.checked_add(stored_number(count)?)
    })
}

/// What reports have added to a breaker in its first state: `0|<streak>|<success>|<failure>|<counts>`.
pub(super) struct ReportedRow {
    /// The breaker's hash holds failures after the latest success.
    pub(super) has_streak: bool,
    has_success: bool,
    pub(super) failed_at_us: Option<u64>,
    pub(super) counts: Counts,
}

impl ReportedRow {
    /// `None` for a breaker in another state, or what this library has not written.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("0|")?.split('|');
        let has_streak = match parts.next()? {
            "0" => false,
            "1" => true,
            _ => return None,
        };
        let (success, failure, counts) = (parts.next()?, parts.next()?, parts.next()?);
        // Zeros behind the successes are left out.
        let mut counts = counts.split(',').map(stored_number);
        let (successes, failures, slow) = (counts.next()??, counts.next(), counts.next());
        let counts =
            Counts { successes, failures: failures.unwrap_or(Some(0))?, slow: slow.unwrap_or(Some(0))? };
        Some(ReportedRow {
            has_streak,
            has_success: !success.is_empty(),
            failed_at_us: stored_number(failure),
            counts,
        })
    }
}

#[cfg(test)]
mod tests {
    use cb_testkit::RedisServer;

    use super::*;
    use crate::store::Overview;
    use crate::store::redis::Target;

    /// Every kind of content, as a breaker's hash and as its report.
    const KEPT: [(&str, &[&str], Option<&str>); 13] = [
        ("counted", &["state", "closed", "epoch", "0", "successes", "7", "failures", "2", "run", "5|"], None),
        (
            "streak",
            &["consecutive_failures", "3", "run", "5|6*1;7*2;", "last_failure_at", "1700000000000"],
            None,
        ),
        ("reported", &[], Some("0|0|5|1700000000000000|4,1,0")),
        ("both", &["successes", "7", "slow", "1"], Some("0|0|5||4,1,1")),
        ("both-with-a-streak", &["consecutive_failures", "1", "run", "|6*1;"], Some("0|1|9||4")),
        ("streak-reported-on", &["consecutive_failures", "1", "run", "|6*1;"], Some("0|1||8|0,1,0")),
        (
            "recovered",
            &["state", "closed", "epoch", "4", "since_us", "5", "reason", "probes succeeded"],
            None,
        ),
        ("recovered-and-reported", &["state", "closed", "epoch", "4", "since_us", "5"], Some("4|0|5||3")),
        ("of-another-epoch", &["state", "closed", "epoch", "0", "successes", "2"], Some("4|0|5||3")),
        ("open", &["state", "open", "epoch", "1", "since_us", "5", "until_us", "9999999999999999"], None),
        ("sum-is-wrong", &["consecutive_failures", "3", "run", "5|6*1;"], None),
        ("no-number", &["successes", "many"], None),
        ("report-is-damaged", &["successes", "2"], Some("0|0|5")),
    ];

    #[tokio::test]
    async fn plain_rows_are_what_the_script_reads() {
        let server = RedisServer::start();
        let store = RedisStore::new(Target::Single(server.url()), "test").unwrap().patient();
        for (name, fields, reported) in KEPT {
            if !fields.is_empty() {
                let key = format!("cb1:{{test}}:b:{name}");
                server.cli(&[&["HSET", &key][..], fields].concat());
            }
            if let Some(reported) = reported {
                server.cli(&["HSET", "cb1:{test}:quiet", name, reported]);
            }
        }
        let names = || KEPT.iter().map(|(name, ..)| Arc::from(*name)).chain([Arc::from("absent")]).collect();
        let by_name = |mut rows: Vec<(FleetRow, Detail)>| {
            rows.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
            // An age goes on between two readings.
            for (row, _) in &mut rows {
                if let Ok((record, ..)) = &mut row.view {
                    (record.since_us, record.remaining_us) = (0, None);
                }
            }
            rows
        };
        let encoded = KEPT.iter().map(|(name, ..)| encode(name)).chain([encode("absent")]).collect();
        let by_script = by_name(store.rows("testing", encoded).await.unwrap());
        assert_eq!(by_script.len(), KEPT.len());
        assert_eq!(by_name(store.read(names()).await.unwrap()), by_script);
        let (plain, others) = store.plain_rows("testing", names()).await.unwrap();
        assert_eq!((plain.len(), others.len()), (5, KEPT.len() - 5), "{others:?}");

        server.cli(&["SET", "cb1:{test}:b:text", "of another type"]);
        let rows = store.read(vec!["counted".into(), "text".into()]).await.unwrap();
        assert_eq!(rows.iter().filter(|(row, _)| row.view.is_ok()).count(), 1);
        assert_eq!(rows.len(), 2);
    }
}
