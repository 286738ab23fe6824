//! Calls whose cost depends on an argument: it is the key of a cached result, or a part of a breaker's name.

use std::hint::black_box;

use cb_runtime::circuit_breaker;

use super::super::answers::{Answer, Returned};
use super::super::{BROKEN, Bare, Circuit, Guard, own_numbers};
use super::circuit;

ours! {
    Cached(cached) -> Answer: "cache_ttl, fresh", "closed; the result is kept already, as the key says",
    attribute("cached", failure_threshold = 5, reset_timeout = "1h", cache_ttl = 300)
}

#[circuit_breaker(name = "cached-new", failure_threshold = 5, reset_timeout = "1h", cache_ttl = 300)]
async fn cached_new_key(id: u64) -> Answer {
    if id == BROKEN { Returned::bad() } else { Returned::good(black_box(id)) }
}

/// Every call's result is cached.
pub struct CachedNewKey;

impl Guard for CachedNewKey {
    const OURS: bool = true;
    const NAME: &'static str = "circuit_breaker, cache_ttl, new key";
    const HOW: &'static str = "closed; a new key each time, so every result is kept";
    const DEPENDS_ON_CACHES: bool = true;
    type Returned = Answer;
    type Bare = Bare<Answer>;
    type Caller = u64;

    fn caller(&self) -> u64 {
        own_numbers()
    }

    #[inline]
    fn call(&self, turn: &mut u64, id: u64) -> impl Future<Output = Answer> {
        *turn += 1;
        cached_new_key(if id == BROKEN { id } else { *turn })
    }

    fn circuit(&self) -> Circuit {
        circuit("cached-new")
    }
}

#[circuit_breaker(name = "tenant-{tenant}", failure_threshold = 5, reset_timeout = "1h")]
async fn keyed(tenant: u64, id: u64) -> Answer {
    if id == BROKEN { Returned::bad() } else { Returned::good(black_box(id ^ tenant)) }
}

/// The tenant whose breaker is tripped at the end.
const TENANT: u64 = 7;

pub struct KeyedHot;

impl Guard for KeyedHot {
    const OURS: bool = true;
    const NAME: &'static str = "circuit_breaker, keyed, one key";
    const HOW: &'static str = "closed; name = \"tenant-{tenant}\", always the same tenant";
    type Returned = Answer;
    type Bare = Bare<Answer>;
    type Caller = ();

    fn caller(&self) {}

    #[inline]
    fn call(&self, (): &mut (), id: u64) -> impl Future<Output = Answer> {
        keyed(black_box(TENANT), id)
    }

    fn circuit(&self) -> Circuit {
        circuit("tenant-7")
    }
}

#[circuit_breaker(name = "customer-{customer}", failure_threshold = 5, reset_timeout = "1h")]
async fn keyed_thousand(customer: u64, id: u64) -> Answer {
    if id == BROKEN { Returned::bad() } else { Returned::good(black_box(id ^ customer)) }
}

pub struct KeyedThousand;

impl Guard for KeyedThousand {
    const OURS: bool = true;
    const NAME: &'static str = "circuit_breaker, keyed, 1,000 keys";
    const HOW: &'static str = "closed; name = \"customer-{customer}\", a thousand customers in turn";
    const DEPENDS_ON_CACHES: bool = true;
    type Returned = Answer;
    type Bare = Bare<Answer>;
    type Caller = u64;

    fn caller(&self) -> u64 {
        0
    }

    #[inline]
    fn call(&self, turn: &mut u64, id: u64) -> impl Future<Output = Answer> {
        *turn = (*turn + 1) % 1000;
        keyed_thousand(if id == BROKEN { TENANT } else { *turn }, id)
    }

    fn circuit(&self) -> Circuit {
        circuit("customer-7")
    }
}
