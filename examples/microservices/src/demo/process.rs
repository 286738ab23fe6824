//! One service as a process of its own.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::service::LISTENS;

/// A process that has not said where it listens by then never will; nor will one end that is still there.
const PATIENCE: Duration = Duration::from_secs(30);

/// A service that runs. Killed when it is dropped.
pub struct Process {
    name: String,
    url: String,
    child: Child,
}

/// How a process has ended that was told to.
#[derive(Clone, Debug)]
pub struct Stopped {
    /// The process.
    pub name: String,
    /// How long after it was told.
    pub took: Duration,
    /// With exit code 0.
    pub clean: bool,
}

impl Process {
    /// Starts `executable` in the given role on a free loopback port, and waits until it accepts connections. What it
    /// complains of goes to `log`.
    ///
    /// # Errors
    /// If it cannot be started, or ends before it listens.
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
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let mut lines = BufReader::new(child.stdout.take().context("its stdout")?).lines();
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
        let line = line.with_context(|| format!("{name} has not come up"))??;
        let Some(url) = line.as_deref().and_then(|line| line.strip_prefix(LISTENS)) else {
            bail!("{name} has ended, or says something else than where it listens: {line:?}");
        };
        Ok(Process { name: name.into(), url: url.into(), child })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens: `http://127.0.0.1:<port>`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Tells it to stop (SIGTERM) and waits for its end.
    ///
    /// # Errors
    /// If it does not end at all.
    pub async fn stop(mut self) -> anyhow::Result<Stopped> {
        let start = Instant::now();
        if let Some(pid) = self.child.id() {
            Command::new("kill").args(["-TERM", &pid.to_string()]).status().await?;
        }
        let end = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let end = end.with_context(|| format!("{} has not ended", self.name))??;
        Ok(Stopped { name: self.name, took: start.elapsed(), clean: end.success() })
    }
}
