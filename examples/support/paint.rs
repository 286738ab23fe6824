//! Draws the life of a circuit: one glyph per call, one line per state. `anstream` removes colours where the
//! terminal has none, or NO_COLOR is set.

use std::io::Write;
use std::time::{Duration, Instant};

use cb_runtime::State;
use owo_colors::{OwoColorize, Style};

/// The origin of an answer.
#[derive(Clone, Copy)]
pub(crate) enum Look {
    Live,
    Cached,
    Fallback,
    Error,
}

impl Look {
    fn glyph(self) -> (&'static str, Style) {
        match self {
            Look::Live => ("●", Style::new().green()),
            Look::Cached => ("◆", Style::new().cyan()),
            Look::Fallback => ("○", Style::new().yellow()),
            Look::Error => ("✗", Style::new().red()),
        }
    }
}

fn style(state: State) -> Style {
    match state {
        State::Closed => Style::new().green().bold(),
        State::HalfOpen => Style::new().yellow().bold(),
        _ => Style::new().red().bold(),
    }
}

pub(crate) struct Screen {
    start: Instant,
    out: anstream::AutoStream<std::io::Stdout>,
    state: State,
    transitions: u64,
    in_line: usize,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Screen {
            start: Instant::now(),
            out: anstream::AutoStream::auto(std::io::stdout()),
            state: State::Closed,
            transitions: 0,
            in_line: 0,
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    pub(crate) fn transitions(&self) -> u64 {
        self.transitions
    }

    pub(crate) fn title(&mut self, how: &str) {
        self.line(&format!("\n  {}  {}\n", "The life of a circuit".bold(), how.dimmed()));
        let legend = [
            (Look::Live, "live"),
            (Look::Cached, "cached"),
            (Look::Fallback, "fallback"),
            (Look::Error, "error"),
        ]
        .map(|(look, name)| {
            let (glyph, style) = look.glyph();
            format!("{} {name}", glyph.style(style))
        })
        .join("   ");
        self.line(&format!("  {legend}   {} {}\n", "‾".dimmed(), "= the upstream was called"));
    }

    /// Prints an event outside the breaker.
    pub(crate) fn say(&mut self, what: &str) {
        self.end_calls();
        let at = self.at();
        self.line(&format!("{at}  {}", what.italic()));
    }

    /// Draws a call's answer. `reached`: whether the upstream was called.
    pub(crate) fn call(&mut self, look: Look, reached: bool) {
        if self.in_line == 0 {
            let at = self.at();
            let state = format!("{:<10}", self.state);
            self.print(&format!("{at}    {}", state.style(style(self.state))));
        }
        let (glyph, style) = look.glyph();
        let mark = if reached { "‾".dimmed().to_string() } else { " ".into() };
        self.print(&format!(" {}{mark}", glyph.style(style)));
        self.in_line += 1;
        if self.in_line == 24 {
            self.end_calls();
        }
    }

    pub(crate) fn transition(&mut self, to: State, reason: &str, open_for: Option<Duration>) {
        self.end_calls();
        self.state = to;
        self.transitions += 1;
        let at = self.at();
        let span =
            open_for.map(|span| format!(", for {}", humantime::format_duration(span))).unwrap_or_default();
        let name = format!("→ {to}");
        self.line(&format!("{at}  {}  {}{}", name.style(style(to)), reason, span.dimmed()));
    }

    pub(crate) fn summary(&mut self, what: &str) {
        self.end_calls();
        self.line(&format!("\n  {}\n", what.bold()));
    }

    fn at(&self) -> String {
        format!("{:>6.2} s", self.start.elapsed().as_secs_f64()).dimmed().to_string()
    }

    fn end_calls(&mut self) {
        if self.in_line > 0 {
            self.in_line = 0;
            self.line("");
        }
    }

    fn line(&mut self, text: &str) {
        let _ = writeln!(self.out, "{text}");
    }

    fn print(&mut self, text: &str) {
        let _ = write!(self.out, "{text}");
        let _ = self.out.flush();
    }
}
