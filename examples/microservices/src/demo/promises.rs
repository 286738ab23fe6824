//! The demo's promises, and whether the measurements hold them. Pure: notes in, judgements out.

use std::time::Duration;

use cb_runtime::State;

use super::agreement::{Agreement, agreements};
use super::fleet::ISOLATED;
use super::load::{Answer, AnswerCounts};
use super::process::Stopped;
use super::script::{Notes, SETTLING, Span};
use crate::profile::{PROBES, Source};

/// The limit between the first and the last instance's opening.
const TOGETHER: Duration = Duration::from_millis(50);
/// The limit between SIGTERM and a process's end.
const STOP: Duration = Duration::from_secs(1);

/// A promise and its result.
#[derive(Clone, Debug)]
pub struct Promise {
    /// The promise.
    pub text: &'static str,
    /// The measurement.
    pub measured: String,
    /// Whether the promise held.
    pub held: bool,
}

/// Judges every promise.
pub fn judge(notes: &Notes, stopped: &[Stopped]) -> Vec<Promise> {
    let changes = agreements(&notes.circuits);
    let settled = notes.open.clone().map(|open| open.start + micros(SETTLING)..open.end);
    vec![
        promise("healthy: every answer is live", notes.healthy.as_ref(), |span| all_live(notes, span)),
        together(&changes, notes.circuits.len()),
        promise("auth slow or down: no client gets an error", settled.as_ref(), |span| no_error(notes, span)),
        promise("auth down: cached answers first, then the fallback", settled.as_ref(), |span| {
            cached_then_fallback(notes, span)
        }),
        promise("auth slow or down: only probes reach it", notes.open.as_ref(), |span| {
            probes_alone(&changes, notes.asked_while_open, span)
        }),
        promise("recovery: all close, and cached answers stop", notes.recovered.as_ref(), |span| {
            all_live(notes, span)
        }),
        promise("one cut off: only it opens, its clients get no error", notes.cut_off.as_ref(), |span| {
            it_alone(notes, span)
        }),
        promise("Redis killed and restarted: every answer is live", notes.redis_away.as_ref(), |span| {
            all_live(notes, span)
        }),
        ended(stopped),
    ]
}

fn promise(text: &'static str, span: Option<&Span>, judge: impl FnOnce(&Span) -> (bool, String)) -> Promise {
    let (held, measured) = span.map_or((false, "not reached".into()), judge);
    Promise { text, measured, held }
}

fn together(changes: &[Agreement], instances: usize) -> Promise {
    let opened: Vec<&Agreement> = changes.iter().filter(|change| change.to == State::Open).collect();
    let slowest = opened.iter().map(|change| change.spread).collect::<Option<Vec<_>>>();
    let slowest = slowest.and_then(|spreads| spreads.into_iter().max());
    let measured = match slowest {
        Some(spread) => format!("{} times, at most {} apart", opened.len(), milliseconds(spread)),
        None if opened.is_empty() => "never opened".into(),
        None => format!("not all {instances} instances observed every opening"),
    };
    let held = slowest.is_some_and(|spread| spread <= TOGETHER);
    Promise { text: "all instances open within 50 ms of each other", measured, held }
}

/// The times of the answers count: a probe is answered long after it was sent, and by the fallback if the
/// cached result has expired meanwhile.
fn cached_then_fallback(notes: &Notes, span: &Span) -> (bool, String) {
    let answered = |wanted| {
        let by = move |answer: &&Answer| answer.by.as_ref().is_some_and(|(source, _)| *source == wanted);
        let sent = notes.answers.iter().filter(|answer| span.contains(&answer.sent_us)).filter(by);
        let (first, last) = sent.fold((u64::MAX, 0), |(first, last), answer| {
            let at = answer.sent_us + micros(answer.took);
            (first.min(at), last.max(at))
        });
        (first <= last).then_some((first, last))
    };
    let in_order = match (answered(Source::Cached), answered(Source::Fallback)) {
        (Some(cached), Some(fallback)) => cached.0 < fallback.0 && cached.1 < fallback.1,
        _ => false,
    };
    (in_order, shown(&counts(notes, span, |_| true)))
}

fn probes_alone(changes: &[Agreement], asked: u64, span: &Span) -> (bool, String) {
    let trials = changes
        .iter()
        .filter(|change| change.to == State::HalfOpen && span.contains(&change.first_us))
        .count();
    let most = trials as u64 * u64::from(PROBES);
    (trials > 0 && asked <= most, format!("{asked} requests; {trials} half-open states allow {most}"))
}

fn it_alone(notes: &Notes, span: &Span) -> (bool, String) {
    let far = |answer: &Answer| answer.by.as_ref().is_some_and(|(_, instance)| instance == ISOLATED);
    let its = counts(notes, span, far);
    let others = counts(notes, span, |answer| !far(answer));
    let kept = its.failed == 0 && its.cached + its.fallback > 0;
    let others_kept = others.total() > 0 && others.live == others.total();
    let measured = format!("{ISOLATED}: {}; a, b: {}", shown(&its), shown(&others));
    let fleet_opened = notes.circuits.iter().filter(|circuit| circuit.instance != ISOLATED);
    let others_left_closed = fleet_opened
        .flat_map(|circuit| &circuit.changes)
        .any(|change| change.to == State::Open && span.contains(&change.at_us));
    (kept && others_kept && !others_left_closed, measured)
}

fn ended(all: &[Stopped]) -> Promise {
    let slowest = all.iter().map(|one| one.took).max().unwrap_or_default();
    let unclean: Vec<&str> = all.iter().filter(|one| !one.clean).map(|one| &*one.name).collect();
    let measured = match unclean[..] {
        [] => format!("{} processes, the slowest in {}", all.len(), milliseconds(slowest)),
        _ => format!("not clean: {}", unclean.join(", ")),
    };
    let held = !all.is_empty() && unclean.is_empty() && slowest <= STOP;
    Promise { text: "SIGTERM: every process ends within a second", measured, held }
}

fn no_error(notes: &Notes, span: &Span) -> (bool, String) {
    let counts = counts(notes, span, |_| true);
    (counts.total() > 0 && counts.failed == 0, shown(&counts))
}

fn all_live(notes: &Notes, span: &Span) -> (bool, String) {
    let counts = counts(notes, span, |_| true);
    (counts.total() > 0 && counts.live == counts.total(), shown(&counts))
}

fn counts(notes: &Notes, span: &Span, of: impl Fn(&Answer) -> bool) -> AnswerCounts {
    notes.answers.iter().filter(|answer| span.contains(&answer.sent_us) && of(answer)).collect()
}

fn shown(counts: &AnswerCounts) -> String {
    let kinds = [(counts.live, "live"), (counts.cached, "cached"), (counts.fallback, "fallback")];
    let shown = kinds.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}"));
    let shown: Vec<String> = shown.chain([format!("{} failed", counts.failed)]).collect();
    shown.join(", ")
}

/// A duration in milliseconds, with one decimal.
pub fn milliseconds(span: Duration) -> String {
    format!("{:.1} ms", span.as_secs_f64() * 1000.0)
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
