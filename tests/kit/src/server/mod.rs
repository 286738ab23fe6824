//! A redis-server: its addresses, commands to it, and what it says of itself.

mod process;
mod start;

use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use crate::PATIENCE;
use crate::monitor::Monitor;
use crate::resp::{Reply, Wire};

/// A redis-server on a free port and a unix socket, in a temporary directory, without persistence. Dropping
/// it kills the process.
pub struct RedisServer {
    program: PathBuf,
    args: Vec<String>,
    /// Its clock can be moved.
    moves_clock: bool,
    port: u16,
    /// The TLS port, if it has one.
    tls_port: Option<u16>,
    directory: TempDir,
    process: Mutex<Option<Child>>,
    control: Mutex<Option<Wire>>,
}

impl RedisServer {
    /// Sets the server's clock to the real time plus this many seconds.
    ///
    /// # Panics
    /// If the server was not started with a movable clock.
    pub fn move_clock(&self, seconds: i64) {
        assert!(self.moves_clock, "start it with start_with_movable_clock");
        // Renamed into its place: the server never reads half of it.
        let new = self.directory.path().join("clock.new");
        std::fs::write(&new, format!("{seconds:+}\n")).expect("the clock's file can be written");
        std::fs::rename(new, self.clock_file()).expect("the clock's file can be put in its place");
    }

    fn clock_file(&self) -> PathBuf {
        self.directory.path().join("clock")
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `redis://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The TLS port on 127.0.0.1.
    ///
    /// # Panics
    /// If the server was started without TLS.
    pub fn tls_port(&self) -> u16 {
        self.tls_port.expect("the server was started with TLS")
    }

    /// `rediss://127.0.0.1:<TLS port>`.
    pub fn tls_url(&self) -> String {
        format!("rediss://127.0.0.1:{}", self.tls_port())
    }

    /// `unix:///…/redis.sock`.
    pub fn unix_url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Sends a command on the kit's own connection and returns the reply's text, like `redis-cli --raw`.
    ///
    /// # Panics
    /// If the server answers with an error, or not at all.
    #[track_caller]
    pub fn cli<A: AsRef<[u8]>>(&self, args: &[A]) -> String {
        match self.command(args) {
            Reply::Error(error) => panic!("{}: {error}", shown(args)),
            reply => reply.text(),
        }
    }

    /// Sends a command on the kit's own connection and returns the reply.
    ///
    /// # Panics
    /// If the server does not answer.
    #[track_caller]
    pub fn command<A: AsRef<[u8]>>(&self, args: &[A]) -> Reply {
        self.try_command(args).unwrap_or_else(|error| panic!("{}: {error}", shown(args)))
    }

    /// Sends a command to a server that may close its connections at any time, as in a failover.
    ///
    /// # Errors
    /// If the server does not answer.
    pub fn try_command<A: AsRef<[u8]>>(&self, args: &[A]) -> io::Result<Reply> {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wire = match control.take() {
            Some(wire) if wire.is_open() => wire,
            _ => self.try_connect(PATIENCE)?,
        };
        let reply = wire.command(args)?;
        *control = Some(wire);
        Ok(reply)
    }

    /// The number of commands processed since the start, including those that scripts call.
    pub fn commands_processed(&self) -> u64 {
        self.info("stats", "total_commands_processed").parse().expect("a number")
    }

    /// One field of `INFO section`.
    pub fn info(&self, section: &str, field: &str) -> String {
        let info = self.cli(&["INFO", section]);
        let found = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        found.unwrap_or_else(|| panic!("INFO {section} has no {field}")).trim().to_owned()
    }

    /// The number of connected clients without the kit's own.
    pub fn connected_clients(&self) -> usize {
        let own = |line: &&str| line.contains(&format!(" name={CLIENT_NAME} "));
        self.cli(&["CLIENT", "LIST"]).lines().filter(|line| !line.is_empty() && !own(line)).count()
    }

    /// The number of clients that are subscribed to a channel.
    pub fn subscribed_clients(&self) -> usize {
        self.cli(&["CLIENT", "LIST", "TYPE", "pubsub"]).lines().filter(|line| !line.is_empty()).count()
    }

    /// Starts to record the commands that clients send.
    pub fn monitor(&self) -> Monitor<'_> {
        Monitor::start(self)
    }

    /// Runs `work` and counts the commands that clients send meanwhile, without those that scripts call.
    pub fn client_commands<T>(&self, work: impl FnOnce() -> T) -> (T, usize) {
        let monitor = self.monitor();
        let result = work();
        (result, monitor.finish().len())
    }

    /// The server's log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// The server's temporary directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    /// Sends a command with `text`, which MONITOR shows, and returns the sender's address as MONITOR shows
    /// it.
    pub(crate) fn fence(&self, text: &str) -> String {
        self.cli(&["ECHO", text]);
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        control.as_ref().expect("just used").local_address().expect("a connected socket has an address")
    }

    pub(crate) fn connect(&self) -> Wire {
        self.try_connect(PATIENCE).unwrap_or_else(|error| {
            panic!("redis-server on port {} cannot be reached: {error}\n{}", self.port, self.log())
        })
    }

    fn try_connect(&self, patience: Duration) -> io::Result<Wire> {
        let mut wire = Wire::connect((Ipv4Addr::LOCALHOST, self.port).into(), patience)?;
        if let Some(at) = self.args.iter().position(|arg| arg == "--requirepass") {
            wire.command(&["AUTH", &self.args[at + 1]])?;
        }
        match wire.command(&["CLIENT", "SETNAME", CLIENT_NAME])? {
            Reply::Error(error) if error.starts_with("LOADING") => Err(ErrorKind::ConnectionRefused.into()),
            _ => Ok(wire),
        }
    }
}

/// The client name of the kit's own connections, by which they are left out of counts.
const CLIENT_NAME: &str = "cb-testkit";

fn shown<A: AsRef<[u8]>>(args: &[A]) -> String {
    args.iter().map(|arg| String::from_utf8_lossy(arg.as_ref())).collect::<Vec<_>>().join(" ")
}
