//! Reading the namespace's breakers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::keys::decode;
use super::plain_rows::ROWS_AT_ONCE;
use super::{RedisStore, fresh_incarnation, overview};
use crate::clock::micros;
use crate::error::Error;
use crate::snapshot::State;
use crate::store::{Detail, FleetRow, Load, Record};

impl RedisStore {
    /// The position of the stream, and the requested names as they are in keys.
    pub(super) async fn names(&self, doing: &'static str, asked: &str) -> Result<(Load, Vec<String>), Error> {
        let mut invocation = self.scripts.load.prepare_invoke();
        self.shared_keys(&mut invocation);
        invocation.key(self.keys.quiet()).key(self.keys.notices());
        invocation.arg(fresh_incarnation()).arg(self.keys.breaker_prefix()).arg(asked);
        self.run(self.timeouts.loss(), doing, &mut invocation, |mut answer| {
            let (now_us, position, warnings) = (answer.number()?, answer.position()?, answer.warnings()?);
            Ok((Load { now_us, position, warnings, ..Load::default() }, answer.list()?.texts()?))
        })
        .await
    }

    /// Reads breakers by name, without those that are gone. The result is not a consistent snapshot.
    pub(super) async fn rows(
        &self,
        doing: &'static str,
        mut encoded: Vec<String>,
    ) -> Result<Vec<(FleetRow, Detail)>, Error> {
        encoded.sort_unstable();
        encoded.dedup();
        let mut rows = Vec::with_capacity(encoded.len());
        for some in encoded.chunks(ROWS_AT_ONCE) {
            let (known, strange): (Vec<_>, Vec<_>) =
                some.iter().map(|encoded| (encoded, decode(encoded))).partition(|(_, name)| name.is_some());
            rows.extend(strange.into_iter().map(|(member, _)| self.no_name(member)));
            if known.is_empty() {
                continue;
            }
            let mut invocation = self.scripts.read.prepare_invoke();
            invocation.key(self.keys.quiet()).arg(self.keys.lease_prefix());
            for (encoded, _) in &known {
                invocation.key(self.keys.breaker(encoded)).arg(encoded.as_str());
            }
            self.run(self.timeouts.loss(), doing, &mut invocation, |mut answer| {
                let now_us = answer.number()?;
                let mut list = answer.list()?;
                for (_, name) in known {
                    let name = Arc::from(name.unwrap_or_default());
                    let (view, detail) = match list.row()? {
                        None => continue,
                        Some(Err(problem)) => (Err(problem), Detail::default()),
                        Some(Ok(mut row)) => {
                            let (counts, streak) = (row.counts()?, row.number()?);
                            (Ok((row.record()?, counts, streak)), overview::detail(&mut row, now_us)?)
                        }
                    };
                    rows.push((FleetRow { name, view }, detail));
                }
                Ok(())
            })
            .await?;
        }
        rows.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
        Ok(rows)
    }

    pub(super) async fn load(&self) -> Result<Load, Error> {
        let doing = "loading the namespace";
        let (mut load, encoded) = self.names(doing, "held").await?;
        let begun = Instant::now();
        let mut missing: BTreeSet<Arc<str>> =
            encoded.iter().filter_map(|name| decode(name).map(Arc::from)).collect();
        // Thousands are read one part after another, and the first are old by then.
        let (mut read, mut read_at) = (Vec::new(), begun);
        for some in encoded.chunks(ROWS_AT_ONCE) {
            let rows = self.rows(doing, some.to_vec()).await?;
            read_at = Instant::now();
            for (row, _) in rows {
                missing.remove(&row.name);
                match row.view {
                    Ok((record, ..)) if record.state == State::Closed => {}
                    view => read.push((row.name, view.map(|(record, ..)| (record, read_at)))),
                }
            }
        }
        let as_of_now = |(record, at): (Record, Instant)| record.aged(micros(read_at - at));
        load.held.extend(read.into_iter().map(|(name, view)| (name, view.map(as_of_now))));
        let gone = |name| (name, Err(format!("its key is gone, although {} lists it", self.keys.held())));
        load.held.extend(missing.into_iter().map(gone));
        load.held.sort_by(|one, other| one.0.cmp(&other.0));
        load.read_for = read_at - begun;
        Ok(load)
    }
}
