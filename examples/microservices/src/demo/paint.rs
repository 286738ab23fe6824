//! Shows the view in a terminal.

use std::io::{IsTerminal as _, Write};

use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::{cursor, execute, terminal};
use owo_colors::{OwoColorize as _, Style};
use tokio::sync::mpsc;

use super::view::{Line, Tone};

/// A line with ANSI colours.
pub fn coloured(line: &Line) -> String {
    let style = |tone| match tone {
        Tone::Plain => Style::new(),
        Tone::Dim => Style::new().dimmed(),
        Tone::Strong => Style::new().bold(),
        Tone::Good => Style::new().green(),
        Tone::Cached => Style::new().cyan(),
        Tone::Warning => Style::new().yellow(),
        Tone::Bad => Style::new().red(),
    };
    line.iter().map(|(text, tone)| text.style(style(*tone)).to_string()).collect()
}

/// Prints lines, without colours where the output does not support them.
pub fn print(lines: &[Line]) {
    let mut out = anstream::stdout();
    for line in lines {
        // A closed output does not stop the script.
        let _ = writeln!(out, "{}", coloured(line));
    }
}

/// The terminal in raw mode, for the view. Dropping it restores the terminal.
pub struct Screen(());

impl Screen {
    /// `None` if the output is not a terminal.
    pub fn take() -> Option<Screen> {
        let is_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
        if !is_terminal || terminal::enable_raw_mode().is_err() {
            return None;
        }
        let screen = Screen(());
        execute!(std::io::stdout(), terminal::EnterAlternateScreen, terminal::DisableLineWrap, cursor::Hide)
            .ok()?;
        Some(screen)
    }

    /// Replaces the screen's content with these lines, cut to its size.
    pub fn show(&self, lines: &[Line]) {
        let rows = terminal::size().map_or(usize::MAX, |(_, rows)| rows.into());
        let lines: Vec<String> = lines.iter().take(rows).map(|line| coloured(line) + "\x1b[K").collect();
        let text = format!("\x1b[H{}\x1b[J", lines.join("\r\n"));
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(text.as_bytes());
        let _ = out.flush();
    }

    /// The keys pressed from now on. Ctrl-C counts as `q`.
    pub fn keys(&self) -> mpsc::UnboundedReceiver<char> {
        let (sender, keys) = mpsc::unbounded_channel();
        // The thread ends with the process, because nothing can wake a thread that waits for a key.
        std::thread::spawn(move || {
            while let Ok(event) = crossterm::event::read() {
                let Event::Key(key) = event else { continue };
                let pressed = match key.code {
                    KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => 'q',
                    KeyCode::Char(character) => character,
                    _ => continue,
                };
                if key.kind == KeyEventKind::Press && sender.send(pressed).is_err() {
                    return;
                }
            }
        });
        keys
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = execute!(
            std::io::stdout(),
            cursor::Show,
            terminal::EnableLineWrap,
            terminal::LeaveAlternateScreen
        );
        let _ = terminal::disable_raw_mode();
    }
}
