//! The process of a server: started, frozen, killed, and started again.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::RedisServer;
use crate::PATIENCE;

pub(super) const MISSING: &str = "this needs a real redis-server and none was found; install it with \
     `apt-get install redis-server` (Debian, Ubuntu) or `brew install redis` (macOS)";

impl RedisServer {
    /// Kills the server. Its data is lost, and clients' connections break.
    pub fn stop(&self) {
        self.kill();
        // A dump from an earlier `restart_keeping_data` must not be loaded again.
        let _ = std::fs::remove_file(self.directory.path().join("dump.rdb"));
    }

    /// Restarts the server without its data, on the same port and socket. A stopped server is started.
    pub fn restart(&self) {
        self.stop();
        self.launch_again();
    }

    /// Restarts the server with its data.
    pub fn restart_keeping_data(&self) {
        self.cli(&["SAVE"]);
        self.restart_from_snapshot();
    }

    /// Kills the server and starts it with what the latest `SAVE` has written: later writes are lost.
    pub fn restart_from_snapshot(&self) {
        self.kill();
        self.launch_again();
    }

    /// Stops the process with SIGSTOP: it accepts connections and does not answer.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Resumes a frozen process with SIGCONT.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// The process id, while the server runs.
    pub fn pid(&self) -> Option<u32> {
        self.process().as_ref().map(Child::id)
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn launch_again(&self) {
        let start = Instant::now();
        while !self.launch() {
            assert!(start.elapsed() < PATIENCE, "redis-server does not start again:\n{}", self.log());
        }
    }

    /// Starts the process and waits until it answers, and not another one on its port. `false` if it ended.
    pub(super) fn launch(&self) -> bool {
        *self.control.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let directory = self.directory.path();
        let mut command = Command::new(&self.program);
        if self.moves_clock {
            command
                .env("LD_PRELOAD", installed("libfaketime.so"))
                .env("FAKETIME_TIMESTAMP_FILE", self.clock_file())
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        // A configuration file comes before all options.
        let (files, options) =
            self.args.split_at(self.args.iter().take_while(|arg| !arg.starts_with('-')).count());
        command
            .args(files)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--unixsocket", &self.socket().to_string_lossy()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .args(["--dir", &directory.to_string_lossy()])
            .args(["--logfile", &directory.join("log").to_string_lossy()])
            .args(self.tls_port.into_iter().flat_map(|port| ["--tls-port".to_owned(), port.to_string()]))
            .args(options)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound => panic!("{MISSING}"),
            Err(error) => panic!("redis-server cannot be started: {error}"),
        };
        let start = Instant::now();
        loop {
            if let Ok(Some(_ended)) = child.try_wait() {
                return false;
            }
            if self.answers_as(child.id()) {
                *self.process() = Some(child);
                return true;
            }
            if start.elapsed() > PATIENCE {
                end(&mut child);
                panic!("redis-server does not answer; its log says:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn answers_as(&self, pid: u32) -> bool {
        let Ok(mut wire) = self.try_connect(Duration::from_secs(5)) else { return false };
        match wire.command(&["INFO", "server"]) {
            Ok(info) => info.text().lines().any(|line| line.trim() == format!("process_id:{pid}")),
            Err(_) => false,
        }
    }

    fn kill(&self) {
        if let Some(mut child) = self.process().take() {
            end(&mut child);
        }
        *self.control.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn signal(&self, signal: &str) {
        let pid = self.pid().expect("the server runs").to_string();
        let status = Command::new("kill").args([signal, &pid]).status().expect("kill can be run");
        assert!(status.success(), "kill {signal} {pid}");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn end(child: &mut Child) {
    // SIGKILL also ends a stopped process. Both fail only if the process has already ended.
    let _ = child.kill();
    let _ = child.wait();
}

/// What `scripts/servers` has put into `target/servers`.
pub(super) fn installed(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/servers").join(name);
    assert!(path.exists(), "this needs {name} in target/servers and it is not there; run scripts/servers");
    path
}
