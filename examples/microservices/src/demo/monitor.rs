//! The page of cb-monitor for the demo's fleet.

use anyhow::Context as _;
use cb_monitor::Monitor;
use cb_runtime::Registry;
use tokio::net::TcpListener;

use super::fleet::NAMESPACE;

/// Serves the page on a free port for as long as the demo runs, and says where. The token that may act is
/// another one at every start.
///
/// # Errors
/// If no port is free.
pub async fn serve(redis: &str) -> anyhow::Result<String> {
    let registry =
        Registry::builder().redis(redis).namespace(NAMESPACE).build().context("the page's registry")?;
    let token = format!("{:016x}", fastrand::u64(..));
    let router = Monitor::new(&registry).token(&token).into_router();
    let listener = TcpListener::bind("127.0.0.1:0").await.context("a port for the page")?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(format!("the fleet in a browser: http://{address}/circuits/    token to steer it: {token}"))
}
