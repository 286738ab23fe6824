//! The demo: starts all services, keeps a steady load on them, plays a script of faults, and shows the
//! results.

pub mod agreement;
pub mod fleet;
pub mod load;
pub mod paint;
pub mod process;
pub mod promises;
pub mod script;
pub mod stage;
pub mod svg;
pub mod view;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::auth::Mood;
use crate::service::setting;
use paint::Screen;
use script::{Notes, Scene};
use stage::Stage;
use svg::Recording;
use view::Frame;

/// The demo's mode.
pub enum Mode {
    /// Interactive: the script is played, and keys cause faults manually.
    Interactive,
    /// Unattended: the script is played once.
    Once {
        /// The file for an SVG of the live view.
        record: Option<PathBuf>,
    },
}

const REDRAW: Duration = Duration::from_millis(200);
const KEYS: &str = "auth: h healthy  s slow  d down    c cut c off    r kill Redis    p play    q quit";
const VALID_KEYS: &str = "hsdcrpq";
const MANUAL: &str = "Manual mode. Cause and end faults with the keys, or play the script with p.";

/// Runs the demo and returns whether every promise held. If it is quit before the script has ended, no
/// promise is judged; the result is then `true` in interactive mode only.
///
/// # Errors
/// If no redis-server is installed, or a service does not start or end.
pub async fn run(mode: Mode) -> anyhow::Result<bool> {
    let executable = std::env::current_exe().context("finding this executable")?;
    let stage = Stage::set(&executable, &setting("AUTH_BREAKER").unwrap_or_default()).await?;
    let record = match &mode {
        Mode::Once { record: Some(file) } => Some(file.clone()),
        _ => None,
    };
    let mut show = Show {
        screen: Screen::take(),
        recording: record.map(|file| (file, Recording::default())),
        scene: watch::Sender::new(None),
    };
    let (notes, problem) = match &mode {
        Mode::Interactive => show.watched(&stage).await?,
        Mode::Once { .. } => show.once(&stage).await?,
    };
    let Some(notes) = notes else {
        drop(show);
        stage.clear().await?;
        return Ok(matches!(mode, Mode::Interactive));
    };
    let log = stage.fleet.log.text();
    let promises = promises::judge(&notes, &stage.clear().await?);
    let summary = view::summary(&promises);
    drop(show.screen.take());
    paint::print(&summary);
    if let Some(problem) = problem {
        eprintln!("  the script has stopped: {problem:#}\n\n{log}");
    }
    if let Some((file, mut recording)) = show.recording {
        recording.end_with(summary);
        std::fs::write(&file, recording.svg()).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(promises.iter().all(|promise| promise.held))
}

/// The script's notes, unless it was quit, and the error that stopped it.
type Played = (Option<Notes>, Option<anyhow::Error>);

struct Show {
    screen: Option<Screen>,
    recording: Option<(PathBuf, Recording)>,
    scene: watch::Sender<Option<Scene>>,
}

impl Show {
    /// Plays the script once. Quitting ends it without notes.
    async fn once(&mut self, stage: &Stage) -> anyhow::Result<Played> {
        let mut quit = Quit::new(self.screen.as_ref())?;
        let mut notes = Notes::default();
        let announce = announcer(self.screen.is_none(), self.scene.clone());
        let result = {
            let script = script::play(stage, &mut notes, announce);
            tokio::pin!(script);
            let mut ticks = tokio::time::interval(REDRAW);
            loop {
                tokio::select! {
                    result = &mut script => break result,
                    key = quit.key() => if key == 'q' { return Ok((None, None)) },
                    _ = ticks.tick() => self.draw(stage, "q quit"),
                }
            }
        };
        Ok((Some(notes), result.err()))
    }

    /// Plays the script and handles keys until `q` is pressed.
    async fn watched(&mut self, stage: &Stage) -> anyhow::Result<Played> {
        let mut quit = Quit::new(self.screen.as_ref())?;
        let announce = announcer(self.screen.is_none(), self.scene.clone());
        let mut played = (None, None);
        let mut playing = true;
        let mut ticks = tokio::time::interval(REDRAW);
        loop {
            let mut notes = Notes::default();
            let key = {
                let script = script::play(stage, &mut notes, &announce);
                tokio::pin!(script);
                loop {
                    tokio::select! {
                        result = &mut script, if playing => break Err(result),
                        key = quit.key() => if VALID_KEYS.contains(key) { break Ok(key) },
                        _ = ticks.tick() => self.draw(stage, KEYS),
                    }
                }
            };
            match key {
                Ok('q') => return Ok(played),
                Ok('p') => {
                    playing = true;
                    continue;
                }
                Ok(key) => handle_key(stage, key).await?,
                Err(result) => {
                    played = (Some(notes), result.err());
                    if self.screen.is_none() {
                        return Ok(played);
                    }
                }
            }
            playing = false;
            self.scene.send_replace(None);
        }
    }

    fn draw(&mut self, stage: &Stage, keys: &str) {
        if self.screen.is_none() && self.recording.is_none() {
            return;
        }
        let scene = *self.scene.borrow();
        let caption = scene.map_or(MANUAL, Scene::explanation);
        let lines = view::draw(stage, &Frame { scene, caption, keys });
        if let Some(screen) = &self.screen {
            screen.show(&lines);
        }
        if let Some((_, recording)) = &mut self.recording {
            recording.add(lines);
        }
    }
}

/// Causes or ends the fault that belongs to a key.
async fn handle_key(stage: &Stage, key: char) -> anyhow::Result<()> {
    let fleet = &stage.fleet;
    match key {
        'h' => fleet.set_mood(Mood::Healthy).await?,
        's' => fleet.set_mood(Mood::Slow).await?,
        'd' => fleet.set_mood(Mood::Down).await?,
        'c' => fleet.cut(!fleet.is_cut()).await?,
        'r' => fleet.set_redis(fleet.redis.pid().is_none()).await?,
        _ => {}
    }
    Ok(())
}

/// Shows a scene in the view, or prints it where there is no view.
fn announcer(print: bool, scene: watch::Sender<Option<Scene>>) -> impl Fn(Scene) {
    move |now| {
        scene.send_replace(Some(now));
        if print {
            println!("  {now:<12} {}", now.explanation());
        }
    }
}

/// Keys. Signals count as the key that quits.
struct Quit {
    keys: mpsc::UnboundedReceiver<char>,
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Quit {
    fn new(screen: Option<&Screen>) -> anyhow::Result<Quit> {
        let keys = screen.map_or_else(|| mpsc::unbounded_channel().1, Screen::keys);
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Quit { keys, terminate, interrupt })
    }

    async fn key(&mut self) -> char {
        tokio::select! {
            Some(key) = self.keys.recv() => key,
            _ = self.terminate.recv() => 'q',
            _ = self.interrupt.recv() => 'q',
        }
    }
}
