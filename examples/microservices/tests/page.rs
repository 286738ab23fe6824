//! The page that the demo serves, in a real browser.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use cb_testkit::{Browser, PATIENCE, wait_until};

/// The demo as a process. If a test fails, it is killed.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn page_at_the_printed_address_shows_the_fleet() {
    // First, so that the script of faults does not run ahead of the browser's start.
    let mut browser = Browser::start();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_microservices"))
        // Once open, the circuit stays open: the script waits for a minute for it to close.
        .env("AUTH_BREAKER", r#"{"reset_timeout": "1h"}"#)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the demo can be started");
    let output = BufReader::new(demo.stdout.take().expect("stdout is a pipe"));
    let mut demo = Demo(demo);
    let mut lines = output.lines().map_while(Result::ok);
    let address = lines.find(|line| line.contains("in a browser")).expect("the demo prints an address");
    // The demo goes on printing, so its output is read to the end.
    let rest = std::thread::spawn(move || lines.for_each(drop));
    let mut words = address.split_whitespace().skip_while(|word| !word.starts_with("http://"));
    let url = words.next().expect("a URL").to_owned();
    let token = words.last().expect("a token").to_owned();

    browser.open(&url);
    browser.until("#live", "Live");
    // Calls to auth time out, on all three instances.
    browser.until("#rows .row.open[data-name=auth]", "probe in");
    browser.until("#headline", "1 circuit is open");
    browser.until("#changes", "auth");
    // The printed token steers the circuit.
    let order = reqwest::Client::new()
        .post(format!("{url}breakers/auth/disable"))
        .bearer_auth(token)
        .header("content-type", "application/json")
        .body(r#"{"reason": "a test of the page"}"#);
    let answer = order.send().await.expect("the page's routes answer");
    assert_eq!(answer.status().as_u16(), 200, "{:?}", answer.text().await);
    browser.until("#rows .row.disabled[data-name=auth]", "a test of the page");
    browser.no_complaints();

    let pid = demo.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
    let mut end = None;
    wait_until(2 * PATIENCE, "the demo ends", || {
        end = demo.0.try_wait().expect("a child");
        end.is_some()
    });
    assert!(end.is_some_and(|end| end.success()), "{end:?}");
    rest.join().expect("the output ends with the demo");
}
