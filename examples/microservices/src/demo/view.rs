//! The live view as lines of toned text. Pure; [`paint`](super::paint) and [`svg`](super::svg) render it.

use std::ops::Range;
use std::time::Duration;

use cb_runtime::State;

use super::agreement::agreements;
use super::fleet::INSTANCES;
use super::load::AnswerCounts;
use super::promises::{Promise, milliseconds};
use super::script::Scene;
use super::stage::{Observation, Stage};
use crate::auth::Mood;
use crate::profile::Circuit;
use crate::service::now_us;

/// The meaning of a text, which renderers map to colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Normal text.
    Plain,
    /// Less important.
    Dim,
    /// More important.
    Strong,
    /// A good condition.
    Good,
    /// A cached answer.
    Cached,
    /// Degraded, or on trial.
    Warning,
    /// A fault.
    Bad,
}

/// A line: pieces of text, each with its tone.
pub type Line = Vec<(String, Tone)>;

/// What the view shows in addition to the stage.
pub struct Frame<'a> {
    /// The current scene of the script.
    pub scene: Option<Scene>,
    /// One line about the current situation.
    pub caption: &'a str,
    /// The available keys, for the last line.
    pub keys: &'a str,
}

/// The number of columns of the timeline.
const COLUMNS: usize = 72;
/// The duration of a column of the timeline, in microseconds.
const COLUMN: u64 = 500_000;
/// The period of rates and shares, in microseconds.
const LATELY: u64 = 1_500_000;
/// The number of the latest transitions shown.
const CHANGES: usize = 5;

/// Draws the stage as it is now.
pub fn draw(stage: &Stage, frame: &Frame<'_>) -> Vec<Line> {
    let (now, observation) = (now_us(), stage.observation());
    let mut lines = vec![vec![], title(now - stage.started_us), vec![], scenes(frame.scene)];
    lines.push(vec![indent(), (frame.caption.into(), Tone::Plain)]);
    lines.push(vec![]);
    lines.extend(answers(stage, now.saturating_sub(LATELY)..now));
    lines.push(vec![]);
    lines.push(timeline(stage, now));
    lines.push(vec![]);
    for name in INSTANCES {
        lines.push(circuit(name, observation.of(name)));
    }
    lines.push(auth(&observation));
    lines.push(redis(stage));
    lines.push(vec![]);
    lines.extend(changes(&observation, stage.started_us));
    lines.push(vec![]);
    lines.push(vec![indent(), (frame.keys.into(), Tone::Dim)]);
    lines
}

/// The promises, and the number of those that held.
pub fn summary(promises: &[Promise]) -> Vec<Line> {
    let mut lines = vec![vec![]];
    for promise in promises {
        let (mark, tone) = if promise.held { ("✓", Tone::Good) } else { ("✗", Tone::Bad) };
        let text = format!("{:<56}", promise.text);
        let measured = (promise.measured.clone(), Tone::Dim);
        lines.push(vec![indent(), (format!("{mark} "), tone), (text, Tone::Plain), measured]);
    }
    let held = promises.iter().filter(|promise| promise.held).count();
    let tone = if held == promises.len() { Tone::Good } else { Tone::Bad };
    lines.push(vec![]);
    lines.push(vec![indent(), (format!("{held} of {} promises held", promises.len()), tone)]);
    lines.push(vec![]);
    lines
}

fn indent() -> (String, Tone) {
    ("  ".into(), Tone::Plain)
}

fn title(since_start: u64) -> Line {
    let text = format!("{:<62}", "client → gateway → profile a, b, c → breaker → auth");
    vec![indent(), (text, Tone::Strong), (format!("{:>8} s", seconds(since_start)), Tone::Dim)]
}

fn scenes(current: Option<Scene>) -> Line {
    let mut line = vec![indent()];
    for scene in Scene::ALL {
        if current == Some(scene) {
            line.push((format!("▶ {scene}"), Tone::Strong));
        } else {
            line.push((scene.to_string(), Tone::Dim));
        }
        line.push(("   ".into(), Tone::Plain));
    }
    line
}

fn answers(stage: &Stage, span: Range<u64>) -> Vec<Line> {
    let (mut counts, mut took) = (AnswerCounts::default(), Vec::new());
    stage.load.each_in(&span, |answer| {
        counts += answer;
        took.push(answer.took);
    });
    took.sort_unstable();
    let slowest = took.get(took.len() * 99 / 100).copied().unwrap_or(Duration::ZERO);
    let per_second = counts.total() as u64 * 1_000_000 / LATELY;
    let head = format!("{per_second:>4} requests/s     99 % of them within {}", milliseconds(slowest));
    let mut lines = vec![vec![indent(), (format!("{:<12}", "clients"), Tone::Strong), (head, Tone::Plain)]];
    let rows = [
        ("● live", counts.live, Tone::Good),
        ("◆ cached", counts.cached, Tone::Cached),
        ("○ fallback", counts.fallback, Tone::Warning),
        ("✗ failed", counts.failed, Tone::Bad),
    ];
    for (name, count, tone) in rows {
        let percent = (count * 100).checked_div(counts.total()).unwrap_or(0);
        let bar = "█".repeat(percent * 40 / 100);
        let percent = format!("{percent:>4} %  ");
        lines.push(vec![indent(), (format!("{name:<12}"), tone), (percent, Tone::Plain), (bar, tone)]);
    }
    lines
}

/// One glyph per half second: the most frequent kind of answer, or the error glyph if a request failed.
fn timeline(stage: &Stage, now: u64) -> Line {
    // Columns are aligned, so that glyphs do not change while the timeline moves.
    let end = (now - stage.started_us) / COLUMN * COLUMN + stage.started_us;
    let start = stage.started_us.max(end.saturating_sub(COLUMNS as u64 * COLUMN));
    let mut columns = vec![AnswerCounts::default(); COLUMNS];
    stage.load.each_in(&(start..end), |answer| {
        let column = usize::try_from((answer.sent_us - start) / COLUMN).unwrap_or(COLUMNS);
        if let Some(column) = columns.get_mut(column) {
            *column += answer;
        }
    });
    let mut line = vec![indent()];
    for counts in columns {
        let most = counts.live.max(counts.cached).max(counts.fallback);
        let (glyph, tone) = match counts {
            AnswerCounts { failed: 1.., .. } => ("✗", Tone::Bad),
            _ if most == 0 => (" ", Tone::Plain),
            _ if most == counts.fallback => ("○", Tone::Warning),
            _ if most == counts.cached => ("◆", Tone::Cached),
            _ => ("●", Tone::Good),
        };
        line.push((glyph.into(), tone));
    }
    line
}

fn circuit(name: &str, circuit: Option<&Circuit>) -> Line {
    let mut line = vec![indent(), (format!("{:<12}", format!("profile {name}")), Tone::Strong)];
    let Some(circuit) = circuit else { return line };
    line.push((format!("{:<14}", circuit.state), tone(circuit.state)));
    line.push((format!("epoch {:<5} rejected {:<8}", circuit.epoch, circuit.rejected), Tone::Dim));
    if !circuit.shared {
        line.push(("no store".into(), Tone::Warning));
    } else if circuit.local {
        line.push(("local".into(), Tone::Warning));
    }
    line
}

fn auth(observation: &Observation) -> Line {
    let tone = match observation.auth.mood {
        Mood::Healthy => Tone::Good,
        Mood::Slow => Tone::Warning,
        Mood::Down => Tone::Bad,
    };
    let rate = format!("{:.0} requests/s, {} in total", observation.auth_rate, observation.auth.total());
    let state = (format!("{:<14}", observation.auth.mood), tone);
    vec![indent(), (format!("{:<12}", "auth"), Tone::Strong), state, (rate, Tone::Dim)]
}

fn redis(stage: &Stage) -> Line {
    let server = &stage.fleet.redis;
    let (how, tone) = if server.pid().is_some() { ("up", Tone::Good) } else { ("killed", Tone::Bad) };
    let name = (format!("{:<12}", "Redis"), Tone::Strong);
    vec![indent(), name, (format!("{how:<14}"), tone), (server.url(), Tone::Dim)]
}

/// The fleet's transitions and the local ones.
fn changes(observation: &Observation, started_us: u64) -> Vec<Line> {
    let of_fleet = agreements(&observation.circuits).into_iter().map(|change| {
        let who = match change.spread {
            Some(spread) => format!("all within {}", milliseconds(spread)),
            None => "not observed by all".into(),
        };
        (change.first_us, change.to, who, change.reason)
    });
    let alone = observation.circuits.iter().flat_map(|circuit| {
        let who = format!("{} locally", circuit.instance);
        let local = circuit.changes.iter().filter(|change| change.local);
        local.map(move |change| (change.at_us, change.to, who.clone(), change.reason.clone()))
    });
    let mut all: Vec<_> = of_fleet.chain(alone).collect();
    all.sort_by_key(|(at_us, ..)| *at_us);
    let latest = all.split_off(all.len().saturating_sub(CHANGES)).into_iter();
    let mut lines: Vec<Line> = latest
        .map(|(at_us, to, who, reason)| {
            let at = format!("{:>6} s  ", seconds(at_us.saturating_sub(started_us)));
            let reason: String = reason.chars().take(42).collect();
            vec![
                (at, Tone::Dim),
                (format!("{to:<11}"), tone(to)),
                (format!("{who:<22}"), Tone::Plain),
                (reason, Tone::Dim),
            ]
        })
        .collect();
    lines.resize(CHANGES, vec![]);
    lines
}

fn tone(state: State) -> Tone {
    match state {
        State::Closed => Tone::Good,
        State::HalfOpen => Tone::Warning,
        _ => Tone::Bad,
    }
}

fn seconds(micros: u64) -> String {
    format!("{}.{}", micros / 1_000_000, micros / 100_000 % 10)
}
