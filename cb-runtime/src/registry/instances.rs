//! The fleet's instances, and what each of them judges by.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Registry;
use super::presence::{About, ReportedSettings, read_settings};
use crate::config::drift;
use crate::error::Error;
use crate::snapshot::{InstanceInfo, InstanceSettings};
use crate::store::Topic;

impl Registry {
    /// All instances of the namespace that have been alive within the last hour, by node and id.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn instances(&self) -> Result<Vec<InstanceInfo>, Error> {
        let (posts, now_us) =
            (self.posts(Topic::About).await?, self.context.unix_us(self.context.store_now()));
        let mut instances = Vec::with_capacity(posts.len());
        let mut gone = Vec::new();
        for (id, text) in posts {
            match About::read(&text, now_us) {
                Some(about) => instances.push(about.info(&id, now_us, self.instance())),
                None => gone.push(id),
            }
        }
        if !gone.is_empty() {
            let overview = self.shared.overview.clone();
            self.in_background("forgetting instances", async move { overview.forget(gone).await }).await?;
        }
        instances.sort_by(|a, b| (&a.node, &a.id).cmp(&(&b.node, &b.id)));
        Ok(instances)
    }

    /// What each instance judges a breaker by, and which of them differ from the others. A [keyed
    /// breaker](macro@crate::circuit_breaker#name) goes by the name in its attribute: `"tenant-{id}"`.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn settings(&self, breaker: &str) -> Result<Vec<InstanceSettings>, Error> {
        Ok(self.fleet_settings().await?.remove(breaker).unwrap_or_default())
    }

    /// What each instance judges each breaker by: [`settings`](Self::settings) of all breakers, by name, in
    /// one reading of the store.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn fleet_settings(&self) -> Result<BTreeMap<String, Vec<InstanceSettings>>, Error> {
        let nodes: HashMap<_, _> =
            self.instances().await?.into_iter().map(|instance| (instance.id, instance.node)).collect();
        let mut reported: BTreeMap<String, Vec<(String, String, ReportedSettings)>> = BTreeMap::new();
        for (id, text) in self.posts(Topic::Settings).await? {
            let Some(node) = nodes.get(&*id) else { continue };
            for (breaker, settings) in read_settings(&text) {
                reported.entry(breaker).or_default().push((id.to_string(), node.clone(), settings));
            }
        }
        Ok(reported.into_iter().map(|(breaker, reported)| (breaker, compared(reported))).collect())
    }

    /// The breakers whose settings differ between instances, by name.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn drifting(&self) -> Result<Vec<String>, Error> {
        let settings = self.fleet_settings().await?.into_iter();
        let drifting = settings.filter(|(_, instances)| instances.iter().any(|instance| instance.drift));
        Ok(drifting.map(|(breaker, _)| breaker).collect())
    }

    pub(super) async fn posts(&self, topic: Topic) -> Result<Vec<(Arc<str>, String)>, Error> {
        let overview = self.shared.overview.clone();
        self.in_background("reading the fleet's instances", async move { overview.posts(topic).await }).await
    }
}

/// One breaker's settings by node and instance, of which those that are not the most frequent ones differ.
fn compared(reported: Vec<(String, String, ReportedSettings)>) -> Vec<InstanceSettings> {
    let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
    for (.., settings) in &reported {
        *votes.entry(&settings.line).or_default() += 1;
    }
    let usual = votes.into_iter().max_by_key(|(_, votes)| *votes).map(|(line, _)| line.to_owned());
    let mut all: Vec<_> = reported
        .into_iter()
        .map(|(instance, node, ReportedSettings { line, origins, .. })| InstanceSettings {
            drift: usual.as_deref() != Some(&*line),
            settings: drift::parsed(&line),
            origins,
            instance,
            node,
        })
        .collect();
    all.sort_by(|a, b| (&a.node, &a.instance).cmp(&(&b.node, &b.instance)));
    all
}
