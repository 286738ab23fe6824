//! The kinds of servers: plain, with TLS, of other makes, with a clock that can be moved, and sentinels.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use tempfile::TempDir;

use super::RedisServer;
use super::process::{MISSING, installed};
use crate::{Authority, Certificate};

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
