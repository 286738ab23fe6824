//! A fleet in trouble, to look at: a Redis of its own, twelve services' circuits under load, and the page.
//!
//! `cargo run -p cb-monitor --example showcase`, then open the address that it prints. The token is in the
//! output, too. With a number as its argument, there are that many circuits of tenants beside them.

use std::time::Duration;

use cb_monitor::Monitor;
use cb_runtime::{Breaker, BreakerConfig, Error, Registry};
use cb_testkit::RedisServer;

const TOKEN: &str = "showcase-token-0123456789";

/// A circuit's name, calls a second, and the share of them that fail.
const CIRCUITS: [(&str, f64, f64); 12] = [
    ("payments-gateway", 40.0, 1.0),
    ("inventory-service", 25.0, 0.34),
    ("recommendations", 60.0, 0.12),
    ("user-service", 90.0, 0.01),
    ("search", 70.0, 0.02),
    ("email-delivery", 12.0, 0.0),
    ("fraud-check", 30.0, 0.22),
    ("shipping-quotes", 18.0, 0.6),
    ("legacy-billing", 6.0, 0.0),
    ("geo-lookup", 45.0, 0.0),
    ("image-resizer", 22.0, 0.0),
    ("feature-flags", 120.0, 0.0),
];

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let tenants: usize = std::env::args().nth(1).map_or(Ok(0), |number| number.parse())?;
    let redis = RedisServer::start();
    let nodes = ["checkout-1", "checkout-2", "checkout-3", "checkout-4"];
    let instances = nodes.map(|node| registry(&redis, node)).into_iter().collect::<Result<Vec<_>, _>>()?;
    for (name, per_second, failing) in CIRCUITS {
        for (number, registry) in instances.iter().enumerate() {
            // A deploy that is half done: one instance judges by another limit.
            let half_done = name == "recommendations" && number == 3;
            let config = if half_done { config().failure_rate_threshold(0.2) } else { config() };
            tokio::spawn(load(registry.get_or_create(name, config), per_second / 4.0, failing));
        }
    }
    for tenant in 0..tenants {
        let breaker = instances[0].get_or_create(&format!("tenant-{tenant:05}"), config());
        call(&breaker, tenant % 50 == 0).await;
    }
    let steer = |name: &str| instances[0].control(name).by("maria");
    steer("legacy-billing")
        .expires_in(Duration::from_secs(5400))
        .force_open("database migration, see OPS-212")
        .await?;
    steer("image-resizer").disable("new version is being rolled out").await?;
    steer("shipping-quotes").metrics_only("watching the new limits first").await?;

    let router = Monitor::new(registry(&redis, "monitor")?).token(TOKEN).into_router();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/circuits/ token {TOKEN}", listener.local_addr()?);
    axum::serve(listener, router).await?;
    Ok(())
}

fn registry(redis: &RedisServer, node: &str) -> Result<Registry, Error> {
    Registry::builder().redis(redis.url()).namespace("showcase").node(node).build()
}

fn config() -> BreakerConfig {
    BreakerConfig::default()
        .failure_rate_threshold(0.5)
        .minimum_calls(20)
        .reset_timeout(Duration::from_secs(30))
}

async fn load(breaker: Breaker, per_second: f64, failing: f64) {
    loop {
        call(&breaker, fastrand::f64() < failing).await;
        tokio::time::sleep(Duration::from_secs_f64(1.0 / per_second)).await;
    }
}

async fn call(breaker: &Breaker, fails: bool) {
    let _ = breaker.call(async || if fails { Err("down") } else { Ok(()) }).await;
}
