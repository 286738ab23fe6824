//! An HTTP server that closes connections whose requests do not arrive.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

/// The time for the head of a request. A connection that waits for its next request is closed after it, too.
pub(crate) const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// Serves until it is dropped.
///
/// `axum::serve` has no such limit: clients that send half a request would keep their connections, until
/// there are no file descriptors left for other clients.
pub(crate) async fn serve(mut listener: TcpListener, router: Router, head_limit: Duration) -> Infallible {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(head_limit);
    loop {
        let (stream, _) = Listener::accept(&mut listener).await;
        let service = TowerToHyperService::new(router.clone());
        // It fails if the client goes away or is too slow.
        tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::routing::get;
    use cb_testkit::PATIENCE;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::Notify;

    use super::*;

    /// Everything that is answered until the server closes the connection.
    async fn answered(mut connection: TcpStream) -> String {
        let mut answer = String::new();
        let closed = tokio::time::timeout(PATIENCE, connection.read_to_string(&mut answer));
        closed.await.expect("the server closes the connection").unwrap();
        answer
    }

    #[tokio::test]
    async fn connections_without_a_whole_request_are_closed_and_slow_answers_are_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let others_are_closed = Arc::new(Notify::new());
        let late = others_are_closed.clone();
        let router = Router::new().route("/", get(|| async { "at once" })).route(
            "/late",
            get(move || async move {
                late.notified().await;
                "late"
            }),
        );
        let server = tokio::spawn(serve(listener, router, Duration::from_secs(1)));
        let send = async |request: &str| {
            let mut connection = TcpStream::connect(address).await.unwrap();
            connection.write_all(request.as_bytes()).await.unwrap();
            connection
        };
        let late = send("GET /late HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let silent = send("").await;
        let half = send("GET / HTTP/1.1\r\nHost: localhost\r\n").await;
        let whole = send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(answered(silent).await, "");
        assert_eq!(answered(half).await, "");
        assert!(answered(whole).await.ends_with("at once"));
        others_are_closed.notify_one();
        assert!(answered(late).await.ends_with("late"));
        server.abort();
    }
}
