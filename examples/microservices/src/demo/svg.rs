//! The live view as an animated SVG.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::view::{Line, Tone};

/// The least time between two frames.
const EVERY: Duration = Duration::from_secs(1);
/// The duration of the last frame.
const LAST: Duration = Duration::from_secs(8);
const COLUMNS: usize = 122;
/// The size of a character cell, in units of the picture.
const CELL: (f64, f64) = (7.3, 17.0);

/// The recorded frames.
#[derive(Default)]
pub struct Recording {
    frames: Vec<(Instant, Vec<Line>)>,
}

impl Recording {
    /// Records a frame, unless the previous one is too recent.
    pub fn add(&mut self, lines: Vec<Line>) {
        let now = Instant::now();
        if self.frames.last().is_none_or(|(at, _)| now.duration_since(*at) >= EVERY) {
            self.frames.push((now, lines));
        }
    }

    /// Records the last frame.
    pub fn end_with(&mut self, lines: Vec<Line>) {
        self.frames.push((Instant::now(), lines));
    }

    /// The recording as an animated SVG that repeats. Each distinct line is defined once.
    pub fn svg(&self) -> String {
        let Some((start, _)) = self.frames.first() else { return String::new() };
        let begins: Vec<f64> = self.frames.iter().map(|(at, _)| (*at - *start).as_secs_f64()).collect();
        let length = begins.last().copied().unwrap_or_default() + LAST.as_secs_f64();
        let rows = self.frames.iter().map(|(_, lines)| lines.len()).max().unwrap_or_default();
        #[allow(clippy::cast_precision_loss, reason = "columns and rows of a terminal")]
        let (width, height) = (COLUMNS as f64 * CELL.0, (rows + 1) as f64 * CELL.1);
        let mut defined: HashMap<String, usize> = HashMap::new();
        let (mut definitions, mut style, mut frames) = (String::new(), String::new(), String::new());
        // Without animation, a frame from the middle of the recording is shown.
        let still = self.frames.len() * 2 / 5;
        for (number, (_, lines)) in self.frames.iter().enumerate() {
            let begin = begins[number] / length * 100.0;
            let end = begins.get(number + 1).map_or(100.0, |next| next / length * 100.0);
            let _ = write!(
                style,
                "@keyframes k{number}{{0%{{visibility:hidden}}{begin:.3}%{{visibility:visible}}\
                 {end:.3}%{{visibility:hidden}}}}\n#f{number}{{animation-name:k{number}}}\n"
            );
            let _ = writeln!(frames, r#"<g id="f{number}" class="f">"#);
            for (row, line) in lines.iter().enumerate() {
                let text = text(line);
                if text.is_empty() {
                    continue;
                }
                let next = defined.len();
                let id = *defined.entry(text.clone()).or_insert_with(|| {
                    let _ = writeln!(definitions, r#"<text id="l{next}" xml:space="preserve">{text}</text>"#);
                    next
                });
                #[allow(clippy::cast_precision_loss, reason = "a row of a terminal")]
                let y = (row + 1) as f64 * CELL.1;
                let _ = writeln!(frames, r##"<use href="#l{id}" x="8" y="{y}"/>"##);
            }
            frames.push_str("</g>\n");
        }
        format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0} {height:.0}" width="{width:.0}">
<style>
text{{font:12px ui-monospace,SFMono-Regular,Menlo,"DejaVu Sans Mono",monospace;fill:#c9d1d9}}
.f{{visibility:hidden;animation:{length:.1}s step-end infinite}}
#f{still}{{visibility:visible}}
.d{{fill:#7d8590}}.b{{font-weight:bold;fill:#f0f6fc}}.g{{fill:#3fb950}}.c{{fill:#39c5cf}}.m{{fill:#d29922}}.x{{fill:#f85149}}
{style}</style>
<rect width="100%" height="100%" rx="8" fill="#0d1117"/>
<defs>
{definitions}</defs>
{frames}</svg>
"##
        )
    }
}

/// A line's text with its tones. Adjacent pieces of one tone are merged.
fn text(line: &Line) -> String {
    let mut pieces: Vec<(String, Tone)> = Vec::new();
    for (text, tone) in line {
        match pieces.last_mut() {
            Some((before, same)) if same == tone || text.trim().is_empty() => before.push_str(text),
            _ => pieces.push((text.clone(), *tone)),
        }
    }
    if let Some((last, _)) = pieces.last_mut() {
        last.truncate(last.trim_end().len());
    }
    let mut svg = String::new();
    for (text, tone) in &pieces {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let class = match tone {
            Tone::Plain => "",
            Tone::Dim => "d",
            Tone::Strong => "b",
            Tone::Good => "g",
            Tone::Cached => "c",
            Tone::Warning => "m",
            Tone::Bad => "x",
        };
        let _ = match class {
            _ if text.is_empty() => Ok(()),
            "" => write!(svg, "{text}"),
            class => write!(svg, r#"<tspan class="{class}">{text}</tspan>"#),
        };
    }
    svg
}
