//! stub
use super::*;
use crate::clock::Clock;
pub(crate) struct MemoryStore;
impl MemoryStore {
    pub(crate) fn new(_: Clock) -> Self {
        MemoryStore
    }
}
impl Store for MemoryStore {
    fn exchange(&self, _: Batch) -> BoxFuture<'_, Result<Answer, Error>> {
        todo!()
    }
    fn load(&self) -> BoxFuture<'_, Result<Load, Error>> {
        todo!()
    }
    fn watch(&self, _: Position, _: Duration) -> BoxFuture<'_, Result<Vec<StreamEvent>, Error>> {
        todo!()
    }
    fn fleet(&self) -> BoxFuture<'_, Result<Vec<FleetRow>, Error>> {
        todo!()
    }
    fn cache_get(&self, _: String) -> BoxFuture<'_, Result<Option<Cached>, Error>> {
        todo!()
    }
    fn cache_put(&self, _: String, _: Vec<u8>, _: Duration) -> BoxFuture<'_, Result<(), Error>> {
        todo!()
    }
}
pub(crate) struct MemoryStore2;
impl MemoryStore2 {
    pub(crate) fn new(_: super::redis::Target, _: &str) -> Result<MemoryStore, Error> {
        Ok(MemoryStore)
    }
}
