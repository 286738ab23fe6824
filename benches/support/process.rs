//! This program again as another process, which reads requests from stdin and answers on stdout, as lines of
//! JSON.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::Sender;
use std::time::SystemTime;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A process that runs this program. It is killed on drop.
pub struct Process {
    child: Child,
    requests: ChildStdin,
}

impl Process {
    /// Starts a process with these arguments, whose answers go to `answers`.
    pub fn start<A: DeserializeOwned + Send + 'static>(arguments: &[&str], answers: Sender<A>) -> Self {
        let program = std::env::current_exe().expect("this program is a file");
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started");
        let requests = child.stdin.take().expect("piped");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let answer = serde_json::from_str(&line).expect("the process writes nothing else");
                if answers.send(answer).is_err() {
                    return;
                }
            }
        });
        Process { child, requests }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn send(&mut self, request: &impl Serialize) {
        let line = serde_json::to_string(request).expect("it can be written");
        writeln!(self.requests, "{line}").and_then(|()| self.requests.flush()).expect("it is listening");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Nanoseconds on the machine's clock, which all processes share.
pub fn now() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().expect("the clock stands after 1970");
    u64::try_from(since.as_nanos()).expect("and before 2554")
}
