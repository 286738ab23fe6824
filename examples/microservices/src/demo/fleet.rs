//! Redis, auth, three instances of the profile service and the gateway, with the faults that can be caused.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use cb_testkit::{Proxy, RedisServer};
use serde::de::DeserializeOwned;

use super::process::{Process, Stopped};
use crate::auth::{Mood, Stats};
use crate::profile::Circuit;
use crate::service::client;

/// The instances of the profile service.
pub const INSTANCES: [&str; 3] = ["a", "b", "c"];
/// The instance whose connection to auth can be cut.
pub const ISOLATED: &str = "c";
/// The fleet's namespace in Redis.
pub const NAMESPACE: &str = "microservices";

/// A running fleet. Dropping it ends all processes.
pub struct Fleet {
    /// The gateway.
    pub gateway: Process,
    /// The instances of the profile service, in the order of [`INSTANCES`].
    pub profiles: Vec<Process>,
    /// The auth service.
    pub auth: Process,
    /// The services' error output.
    pub log: Log,
    /// The Redis that the instances share.
    pub redis: Arc<RedisServer>,
    link: Arc<Proxy>,
    is_cut: AtomicBool,
    client: reqwest::Client,
}

/// The file with all services' error output. It is printed if a test fails.
#[derive(Clone)]
pub struct Log(PathBuf);

impl Log {
    fn file(&self) -> anyhow::Result<File> {
        OpenOptions::new().create(true).append(true).open(&self.0).context("the services' log")
    }

    /// The output so far.
    pub fn text(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap_or_default()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprint!("the services' log:\n{}", self.text());
        }
    }
}

impl Fleet {
    /// Starts all processes on free loopback ports. `breaker` is the value of `AUTH_BREAKER`.
    ///
    /// # Errors
    /// If no redis-server is installed (the error names the package), or a service does not start.
    pub async fn start(executable: &Path, breaker: &str) -> anyhow::Result<Fleet> {
        RedisServer::available().map_err(anyhow::Error::msg)?;
        let redis = Arc::new(RedisServer::start());
        let log = Log(redis.directory().join("services.log"));
        let auth = Process::start(executable, "auth-service", "auth", &[], log.file()?).await?;
        let port = auth.url().rsplit(':').next().and_then(|port| port.parse().ok());
        let link = Arc::new(Proxy::start(port.context("a URL with a port")?));
        let mut profiles = Vec::new();
        for instance in INSTANCES {
            let auth_url = match instance {
                ISOLATED => format!("http://127.0.0.1:{}", link.port()),
                _ => auth.url().to_owned(),
            };
            let settings = [
                ("INSTANCE", instance),
                ("AUTH_URL", &auth_url),
                ("CB_REDIS_URL", &redis.url()),
                ("CB_NAMESPACE", NAMESPACE),
                ("AUTH_BREAKER", breaker),
            ];
            profiles
                .push(Process::start(executable, "profile-service", instance, &settings, log.file()?).await?);
        }
        let urls: Vec<&str> = profiles.iter().map(Process::url).collect();
        let settings = [("PROFILE_URLS", &*urls.join(",")), ("AUTH_URL", auth.url())];
        let gateway = Process::start(executable, "gateway", "gateway", &settings, log.file()?).await?;
        let client = client(Duration::from_secs(10))?;
        Ok(Fleet { gateway, profiles, auth, log, redis, link, is_cut: AtomicBool::new(false), client })
    }

    /// Makes auth healthy, slow or broken.
    ///
    /// # Errors
    /// If auth does not answer.
    pub async fn set_mood(&self, mood: Mood) -> anyhow::Result<()> {
        let call = self.client.put(format!("{}/mood", self.auth.url())).body(mood.to_string());
        call.send().await?.error_for_status()?;
        Ok(())
    }

    /// The auth service's statistics.
    ///
    /// # Errors
    /// If auth does not answer.
    pub async fn auth_stats(&self) -> anyhow::Result<Stats> {
        self.get(&self.auth, "/stats").await
    }

    /// Each instance's view of the breaker, in the order of [`INSTANCES`].
    ///
    /// # Errors
    /// If an instance does not answer.
    pub async fn circuits(&self) -> anyhow::Result<Vec<Circuit>> {
        let mut circuits = Vec::new();
        for profile in &self.profiles {
            circuits.push(self.get(profile, "/circuit").await?);
        }
        Ok(circuits)
    }

    async fn get<T: DeserializeOwned>(&self, of: &Process, path: &str) -> anyhow::Result<T> {
        Ok(self.client.get(format!("{}{path}", of.url())).send().await?.error_for_status()?.json().await?)
    }

    /// Cuts the connection of the [isolated](ISOLATED) instance to auth, or restores it.
    ///
    /// # Errors
    /// If the test kit panics.
    pub async fn cut(&self, cut: bool) -> anyhow::Result<()> {
        let link = self.link.clone();
        tokio::task::spawn_blocking(move || if cut { link.cut() } else { link.heal() }).await?;
        self.is_cut.store(cut, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the [isolated](ISOLATED) instance's connection is cut.
    pub fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Relaxed)
    }

    /// Kills Redis, or starts it again without data.
    ///
    /// # Errors
    /// If Redis does not start.
    pub async fn set_redis(&self, up: bool) -> anyhow::Result<()> {
        let redis = self.redis.clone();
        tokio::task::spawn_blocking(move || if up { redis.restart() } else { redis.stop() }).await?;
        Ok(())
    }

    /// Stops every process, from the gateway inwards, and waits for its end.
    ///
    /// # Errors
    /// If a process does not end.
    pub async fn stop(self) -> anyhow::Result<Vec<Stopped>> {
        let mut stopped = vec![self.gateway.stop().await?];
        for profile in self.profiles {
            stopped.push(profile.stop().await?);
        }
        stopped.push(self.auth.stop().await?);
        Ok(stopped)
    }
}
