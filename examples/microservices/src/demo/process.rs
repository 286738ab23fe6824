//! A service as a process.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::service::LISTENS;

/// The limit of a wait for a process to listen or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running service. Dropping it kills the process.
pub struct Process {
    name: String,
    url: String,
    child: Child,
}

/// How a process ended after SIGTERM.
#[derive(Clone, Debug)]
pub struct Stopped {
    /// The process's name.
    pub name: String,
    /// The time from SIGTERM to its end.
    pub took: Duration,
    /// Whether the exit code was 0.
    pub clean: bool,
}

impl Process {
    /// Starts `executable` in a role on a free loopback port and waits until it accepts connections. Its
    /// error output goes to `log`.
    ///
    /// # Errors
    /// If the process cannot be started, or ends before it listens.
    pub async fn start(
        executable: &Path,
        role: &str,
        name: &str,
        settings: &[(&str, &str)],
        log: File,
    ) -> anyhow::Result<Process> {
        let mut child = Command::new(executable)
            .arg(role)
            .env("ADDRESS", "127.0.0.1:0")
            // Each process stands for a node of its own: quorums count nodes.
            .env("CB_INSTANCE", name)
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let mut lines = BufReader::new(child.stdout.take().context("its stdout")?).lines();
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
        let line = line.with_context(|| format!("{name} does not listen in time"))??;
        let Some(url) = line.as_deref().and_then(|line| line.strip_prefix(LISTENS)) else {
            bail!("{name} ended, or did not print its address: {line:?}");
        };
        Ok(Process { name: name.into(), url: url.into(), child })
    }

    /// The process's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process's address: `http://127.0.0.1:<port>`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends SIGTERM and waits for the process to end.
    ///
    /// # Errors
    /// If the process does not end.
    pub async fn stop(mut self) -> anyhow::Result<Stopped> {
        let start = Instant::now();
        if let Some(pid) = self.child.id() {
            Command::new("kill").args(["-TERM", &pid.to_string()]).status().await?;
        }
        let end = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let end = end.with_context(|| format!("{} does not end in time", self.name))??;
        Ok(Stopped { name: self.name, took: start.elapsed(), clean: end.success() })
    }
}
