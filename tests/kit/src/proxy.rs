use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{PATIENCE, wait_until};

/// A TCP proxy on a port of its own that injects network faults.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Traffic {
    Flows,
    /// Connections are accepted and kept open; bytes wait.
    Stalled,
    /// Requests arrive; answers wait.
    AnswersStalled,
    /// Requests and answers arrive one byte at a time.
    Trickles,
    /// Requests arrive, answers are discarded, connections stay open.
    AnswersSwallowed,
    Cut,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Requests,
    Answers,
}

struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
}

struct Inner {
    traffic: Traffic,
    /// Where new connections lead, one after another; the last one is for all that follow.
    targets: VecDeque<SocketAddr>,
    open: Vec<TcpStream>,
    accepted: u64,
    /// The additional latency of each answer.
    delay: Duration,
}

impl Inner {
    /// `None` while the proxy is cut.
    fn next_target(&mut self) -> Option<SocketAddr> {
        match (self.traffic, self.targets.len()) {
            (Traffic::Cut, _) => None,
            (_, 2..) => self.targets.pop_front(),
            _ => self.targets.front().copied(),
        }
    }

    /// Whether bytes that arrived then have to wait.
    fn holds(&self, direction: Direction, arrived: Instant) -> bool {
        match direction {
            Direction::Requests => self.traffic == Traffic::Stalled,
            Direction::Answers => {
                matches!(self.traffic, Traffic::Stalled | Traffic::AnswersStalled)
                    || arrived.elapsed() < self.delay
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and passes everything on to `target_port`.
    pub fn start(target_port: u16) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let targets = [(Ipv4Addr::LOCALHOST, target_port).into()].into();
        let inner =
            Inner { traffic: Traffic::Flows, targets, open: Vec::new(), accepted: 0, delay: Duration::ZERO };
        let proxy = Proxy {
            port,
            shared: Arc::new(Shared { inner: Mutex::new(inner), changed: Condvar::new() }),
            acceptor: Mutex::new(None),
        };
        proxy.accept_on(listener);
        proxy
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `redis://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// How many connections have been accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.lock().accepted
    }

    /// Closes all connections; new ones are refused.
    pub fn cut(&self) {
        let mut inner = self.shared.lock();
        if inner.traffic == Traffic::Cut {
            return;
        }
        inner.traffic = Traffic::Cut;
        close(&mut inner);
        drop(inner);
        self.shared.changed.notify_all();
        // A connection wakes the acceptor out of accept(), so that it ends.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(acceptor) = self.acceptor.lock().unwrap_or_else(PoisonError::into_inner).take() {
            acceptor.join().expect("the proxy's acceptor ends");
        }
    }

    /// Keeps connections open and accepts new ones, but passes nothing on until [`heal`](Proxy::heal).
    pub fn stall(&self) {
        self.set(Traffic::Stalled);
    }

    /// Passes requests on and holds the answers back. A [`cut`](Proxy::cut) after it loses the answers.
    pub fn stall_answers(&self) {
        self.set(Traffic::AnswersStalled);
    }

    /// Passes everything on one byte at a time, so that readers meet every partial message.
    pub fn trickle(&self) {
        self.set(Traffic::Trickles);
    }

    /// Passes requests on and discards the answers. Connections stay open: only a deadline notices.
    pub fn swallow_answers(&self) {
        self.set(Traffic::AnswersSwallowed);
    }

    /// Closes the answering half of every connection; requests may still be sent.
    pub fn half_close(&self) {
        for stream in self.shared.lock().open.drain(..) {
            // Fails only where the connection has been closed already.
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    /// Delays every answer from now on.
    pub fn slow(&self, delay: Duration) {
        self.shared.lock().delay = delay;
        self.shared.changed.notify_all();
    }

    /// Leads new connections to these servers, one after another, and all that follow to the last one. Those
    /// that are open stay where they are, as they do after a change of a name's address.
    pub fn redirect(&self, ports: &[u16]) {
        let address = |port: &u16| SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
        self.shared.lock().targets = ports.iter().map(address).collect();
    }

    /// Ends all faults: held bytes are passed on, and clients can connect again.
    pub fn heal(&self) {
        if self.shared.lock().traffic != Traffic::Cut {
            self.set(Traffic::Flows);
            return;
        }
        let mut listener = None;
        wait_until(PATIENCE, "the proxy has its port back", || {
            listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).ok();
            listener.is_some()
        });
        self.set(Traffic::Flows);
        self.accept_on(listener.expect("waited for"));
    }

    fn set(&self, traffic: Traffic) {
        self.shared.lock().traffic = traffic;
        self.shared.changed.notify_all();
    }

    fn accept_on(&self, listener: TcpListener) {
        let shared = self.shared.clone();
        let acceptor = std::thread::spawn(move || {
            for client in listener.incoming() {
                let Some(target) = shared.lock().next_target() else { return };
                if let Ok(client) = client {
                    // If the target is down, the client's connection closes, as it would without the proxy.
                    let _ = connect_through(&shared, client, target);
                }
            }
        });
        *self.acceptor.lock().unwrap_or_else(PoisonError::into_inner) = Some(acceptor);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
    }
}

fn close(inner: &mut Inner) {
    for stream in inner.open.drain(..) {
        // Fails only if the other end has already closed it.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn connect_through(shared: &Arc<Shared>, client: TcpStream, target: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect_timeout(&target, PATIENCE)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let mut inner = shared.lock();
    if inner.traffic == Traffic::Cut {
        return Ok(());
    }
    inner.accepted += 1;
    inner.open.retain(|stream| stream.peer_addr().is_ok());
    inner.open.push(client.try_clone()?);
    inner.open.push(server.try_clone()?);
    drop(inner);
    let (client_too, server_too) = (client.try_clone()?, server.try_clone()?);
    pump(shared.clone(), client, server, Direction::Requests);
    pump(shared.clone(), server_too, client_too, Direction::Answers);
    Ok(())
}

/// Copies one direction of a connection until either end closes. One thread reads and one writes, so that a
/// delay is a longer way rather than a narrower one: bytes that arrive together leave together.
fn pump(shared: Arc<Shared>, from: TcpStream, mut to: TcpStream, direction: Direction) {
    let (arrivals, held) = std::sync::mpsc::channel::<(Instant, Vec<u8>)>();
    let Ok(mut source) = from.try_clone() else { return };
    std::thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(length @ 1..) = source.read(&mut buffer) {
            if arrivals.send((Instant::now(), buffer[..length].to_vec())).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        for (arrived, bytes) in held {
            let mut inner = shared.lock();
            while inner.traffic != Traffic::Cut && inner.holds(direction, arrived) {
                let left = match inner.delay.saturating_sub(arrived.elapsed()) {
                    Duration::ZERO => PATIENCE,
                    left => left,
                };
                let waited = shared.changed.wait_timeout(inner, left);
                inner = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            let traffic = inner.traffic;
            drop(inner);
            let written = match traffic {
                Traffic::Cut => break,
                Traffic::AnswersSwallowed if direction == Direction::Answers => Ok(()),
                // Nagle's algorithm is off: each byte is a segment of its own.
                Traffic::Trickles => bytes.chunks(1).try_for_each(|byte| to.write_all(byte)),
                _ => to.write_all(&bytes),
            };
            if written.is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}
