use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::monitor::Monitor;
use crate::resp::{Reply, Wire};
use crate::{Authority, Certificate, PATIENCE};

const MISSING: &str = "this needs a real redis-server and none was found; install it with \
     `apt-get install redis-server` (Debian, Ubuntu) or `brew install redis` (macOS)";

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
    /// Checks that a redis-server is installed.
    ///
    /// # Errors
    /// Names the package to install.
    pub fn available() -> Result<(), &'static str> {
        let version = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
        version.map(drop).map_err(|_| MISSING)
    }

    /// Starts a server and waits until it answers.
    ///
    /// # Panics
    /// If no redis-server is installed; the message names the package.
    pub fn start() -> RedisServer {
        RedisServer::start_with(&[])
    }

    /// Starts a server with additional arguments, such as `["--requirepass", "secret"]`.
    pub fn start_with(args: &[&str]) -> RedisServer {
        RedisServer::start_in(new_directory(), args.iter().map(ToString::to_string).collect(), false)
    }

    /// A server that speaks TLS on a second port, shows `certificate`, and trusts `authority`. It asks for no
    /// certificate of its clients unless `args` say `["--tls-auth-clients", "yes"]`. The kit itself goes on
    /// to use the first port.
    pub fn start_tls(authority: &Authority, certificate: &Certificate, args: &[&str]) -> RedisServer {
        let mut all = tls_args(authority, certificate);
        all.extend(args.iter().map(ToString::to_string));
        RedisServer::start_in(new_directory(), all, true)
    }

    /// Starts a server of another make or version, which `scripts/servers` has installed.
    ///
    /// # Panics
    /// Says what to run if it is not installed.
    pub fn start_installed(program: &str) -> RedisServer {
        let mut server = RedisServer::new(new_directory(), Vec::new());
        server.program = installed(program);
        server.started(false)
    }

    /// Starts a server whose clock [`move_clock`](Self::move_clock) moves.
    ///
    /// # Panics
    /// Says what to run if the server or libfaketime is not installed.
    pub fn start_with_movable_clock() -> RedisServer {
        let mut server = RedisServer::new(new_directory(), Vec::new());
        // Debian's redis-server uses an allocator that does not start under libfaketime.
        server.program = installed("redis-6.2");
        server.moves_clock = true;
        server.move_clock(0);
        server.started(false)
    }

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

    fn new(directory: TempDir, args: Vec<String>) -> RedisServer {
        let (process, control) = (Mutex::new(None), Mutex::new(None));
        let program = PathBuf::from("redis-server");
        RedisServer {
            program,
            args,
            moves_clock: false,
            port: 0,
            tls_port: None,
            directory,
            process,
            control,
        }
    }

    fn start_in(directory: TempDir, args: Vec<String>, tls: bool) -> RedisServer {
        RedisServer::new(directory, args).started(tls)
    }

    fn started(self, tls: bool) -> RedisServer {
        let mut server = self;
        // Another process may take the port between its choice and the server's bind.
        for _ in 0..20 {
            server.port = free_port();
            server.tls_port = tls.then(free_port);
            if server.launch() {
                return server;
            }
        }
        panic!("redis-server does not start; its log says:\n{}", server.log());
    }

    /// Starts a sentinel that watches `master` as `name` and decides on failovers alone. Its configuration is
    /// in a temporary directory.
    pub fn start_sentinel(name: &str, master: &RedisServer) -> RedisServer {
        RedisServer::start_sentinel_of(name, master.port(), Vec::new())
    }

    /// Starts a sentinel for a master with TLS. The sentinel uses TLS for all its connections.
    pub fn start_sentinel_tls(
        name: &str,
        master: &RedisServer,
        authority: &Authority,
        certificate: &Certificate,
    ) -> RedisServer {
        let mut args = tls_args(authority, certificate);
        args.extend(["--tls-replication", "yes"].map(String::from));
        RedisServer::start_sentinel_of(name, master.tls_port(), args)
    }

    fn start_sentinel_of(name: &str, port: u16, mut args: Vec<String>) -> RedisServer {
        let directory = new_directory();
        let file = directory.path().join("sentinel.conf");
        let config = format!(
            "sentinel monitor {name} 127.0.0.1 {port} 1\n\
             sentinel down-after-milliseconds {name} 500\n\
             sentinel failover-timeout {name} 5000\n"
        );
        std::fs::write(&file, config).expect("the sentinel's configuration can be written");
        let tls = !args.is_empty();
        args.splice(..0, [file.to_string_lossy().into_owned(), "--sentinel".into()]);
        RedisServer::start_in(directory, args, tls)
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

    /// The process id, while the server runs.
    pub fn pid(&self) -> Option<u32> {
        self.process().as_ref().map(Child::id)
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

    /// Kills the server. Its data is lost, and clients' connections break.
    pub fn stop(&self) {
        self.kill();
        // A dump from an earlier `restart_keeping_data` must not be loaded again.
        let _ = std::fs::remove_file(self.directory.path().join("dump.rdb"));
    }

    /// Stops the server if it runs, and starts it again without data, on the same port and socket.
    pub fn restart(&self) {
        self.stop();
        self.launch_again();
    }

    /// Restarts the server with its data.
    pub fn restart_keeping_data(&self) {
        self.cli(&["SAVE"]);
        self.restart_from_snapshot();
    }

    /// Kills the server and starts it with what the latest `SAVE` has written: later writes are lost.
    pub fn restart_from_snapshot(&self) {
        self.kill();
        self.launch_again();
    }

    /// Stops the process with SIGSTOP: it accepts connections and does not answer.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Resumes a frozen process with SIGCONT.
    pub fn thaw(&self) {
        self.signal("-CONT");
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

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn launch_again(&self) {
        let start = Instant::now();
        while !self.launch() {
            assert!(start.elapsed() < PATIENCE, "redis-server does not start again:\n{}", self.log());
        }
    }

    /// Starts the process and waits until it answers, and not another one on its port. `false` if it ended.
    fn launch(&self) -> bool {
        *self.control.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let directory = self.directory.path();
        let mut command = Command::new(&self.program);
        if self.moves_clock {
            command
                .env("LD_PRELOAD", installed("libfaketime.so"))
                .env("FAKETIME_TIMESTAMP_FILE", self.clock_file())
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        // A configuration file comes before all options.
        let (files, options) =
            self.args.split_at(self.args.iter().take_while(|arg| !arg.starts_with('-')).count());
        command
            .args(files)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--unixsocket", &self.socket().to_string_lossy()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .args(["--dir", &directory.to_string_lossy()])
            .args(["--logfile", &directory.join("log").to_string_lossy()])
            .args(self.tls_port.into_iter().flat_map(|port| ["--tls-port".to_owned(), port.to_string()]))
            .args(options)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound => panic!("{MISSING}"),
            Err(error) => panic!("redis-server cannot be started: {error}"),
        };
        let start = Instant::now();
        loop {
            if let Ok(Some(_ended)) = child.try_wait() {
                return false;
            }
            if self.answers_as(child.id()) {
                *self.process() = Some(child);
                return true;
            }
            if start.elapsed() > PATIENCE {
                end(&mut child);
                panic!("redis-server does not answer; its log says:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn answers_as(&self, pid: u32) -> bool {
        let Ok(mut wire) = self.try_connect(Duration::from_secs(5)) else { return false };
        match wire.command(&["INFO", "server"]) {
            Ok(info) => info.text().lines().any(|line| line.trim() == format!("process_id:{pid}")),
            Err(_) => false,
        }
    }

    fn kill(&self) {
        if let Some(mut child) = self.process().take() {
            end(&mut child);
        }
        *self.control.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn signal(&self, signal: &str) {
        let pid = self.pid().expect("the server runs").to_string();
        let status = Command::new("kill").args([signal, &pid]).status().expect("kill can be run");
        assert!(status.success(), "kill {signal} {pid}");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The client name of the kit's own connections, by which they are left out of counts.
const CLIENT_NAME: &str = "cb-testkit";

fn end(child: &mut Child) {
    // SIGKILL also ends a stopped process. Both fail only if the process has already ended.
    let _ = child.kill();
    let _ = child.wait();
}

fn tls_args(authority: &Authority, certificate: &Certificate) -> Vec<String> {
    let file = |path: &Path| path.to_string_lossy().into_owned();
    [
        ("--tls-ca-cert-file", file(&authority.file())),
        ("--tls-cert-file", file(&certificate.certificate)),
        ("--tls-key-file", file(&certificate.key)),
        ("--tls-auth-clients", "no".to_owned()),
    ]
    .into_iter()
    .flat_map(|(option, value)| [option.to_owned(), value])
    .collect()
}

/// What `scripts/servers` has put into `target/servers`.
fn installed(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/servers").join(name);
    assert!(path.exists(), "this needs {name} in target/servers and it is not there; run scripts/servers");
    path
}

fn new_directory() -> TempDir {
    tempfile::Builder::new().prefix("cb-redis-").tempdir().expect("a temporary directory")
}

fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        // A cluster node also uses the port 10,000 above its own.
        if port < u16::MAX - 10_000 {
            return port;
        }
    }
}

fn shown<A: AsRef<[u8]>>(args: &[A]) -> String {
    args.iter().map(|arg| String::from_utf8_lossy(arg.as_ref())).collect::<Vec<_>>().join(" ")
}
