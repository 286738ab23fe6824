use cb_runtime::{BreakerConfig, Registry};

fn work() -> Result<u64, std::num::ParseIntError> {
    "7".parse()
}

pub async fn call() {
    let breaker = Registry::global().get_or_create("a", BreakerConfig::default());
    let _ = breaker.call(|| work()).await;
}

fn main() {}
