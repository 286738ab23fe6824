use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

/// Debian's chromium with one page, driven by playwright-core; `scripts/browser` installs both. Dropping it
/// ends the browser.
///
/// The tests of a process take turns: two browsers at once would be slow, not parallel, on a small machine.
pub struct Browser {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Browser {
    /// Waits for its turn and starts the browser.
    ///
    /// # Panics
    /// If something is not installed; the message says what to run.
    #[track_caller]
    pub fn start() -> Browser {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cb-monitor/tests/browser");
        let found = ["chromium", "chromium-browser", "google-chrome"].iter().find_map(|name| {
            let path = Path::new("/usr/bin").join(name);
            path.exists().then_some(path)
        });
        let chromium = found.expect("chromium is missing: run scripts/browser");
        assert!(
            folder.join("node_modules/playwright-core").exists()
                && folder.join("node_modules/axe-core").exists(),
            "playwright-core and axe-core are missing: run scripts/browser"
        );
        let mut process = Command::new("node")
            .arg(folder.join("drive.mjs"))
            .env("CHROMIUM", chromium)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is missing: run scripts/browser");
        let orders = process.stdin.take().expect("stdin is a pipe");
        let answers = BufReader::new(process.stdout.take().expect("stdout is a pipe"));
        let mut browser = Browser { process, orders, answers, _turn: turn };
        browser.answer("the browser starts");
        browser
    }

    #[track_caller]
    fn answer(&mut self, what: &str) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the browser's answer can be read");
        let answer: Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{what}: {error}: {line}"));
        assert!(answer.get("error").is_none(), "{what}: {}", answer["error"]);
        answer["ok"].clone()
    }

    /// Carries out one of the orders of `drive.mjs`, and returns its result.
    ///
    /// # Panics
    /// If the order fails. The message has the page's text.
    #[track_caller]
    pub fn order(&mut self, order: &str, mut fields: Value) -> Value {
        fields["order"] = json!(order);
        writeln!(self.orders, "{fields}").expect("the browser takes orders");
        self.answer(&fields.to_string())
    }

    /// Opens a URL in a new page.
    #[track_caller]
    pub fn open(&mut self, url: &str) {
        self.order("open", json!({ "url": url }));
    }

    /// Waits until the element has this text, and returns the duration in milliseconds.
    ///
    /// # Panics
    /// If the text does not appear within a minute.
    #[track_caller]
    pub fn until(&mut self, selector: &str, text: &str) -> f64 {
        let took = self.order("until", json!({ "selector": selector, "text": text }));
        took.as_f64().expect("a number")
    }

    /// Clicks on the first such element.
    #[track_caller]
    pub fn click(&mut self, selector: &str) {
        self.order("click", json!({ "selector": selector }));
    }

    /// Replaces the text of an input.
    #[track_caller]
    pub fn fill(&mut self, selector: &str, text: &str) {
        self.order("fill", json!({ "selector": selector, "text": text }));
    }

    /// Presses a key.
    #[track_caller]
    pub fn press(&mut self, key: &str) {
        self.order("press", json!({ "key": key }));
    }

    /// The text of these elements.
    #[track_caller]
    pub fn text(&mut self, selector: &str) -> String {
        self.order("text", json!({ "selector": selector })).as_str().expect("a text").to_owned()
    }

    /// Asserts that the page has logged no error and no warning, and has requested nothing from elsewhere.
    ///
    /// # Panics
    /// If it has.
    #[track_caller]
    pub fn no_complaints(&mut self) {
        assert_eq!(self.order("complaints", json!({})), json!([]), "what the browser complained about");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
