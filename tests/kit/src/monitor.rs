use std::sync::atomic::{AtomicU64, Ordering};

use crate::RedisServer;
use crate::resp::{Reply, Wire};

/// Records the commands that clients send to a server, with MONITOR on a connection of its own.
///
/// Commands that a script calls and those of the test kit are left out.
pub struct Monitor<'a> {
    server: &'a RedisServer,
    wire: Wire,
}

impl<'a> Monitor<'a> {
    pub(crate) fn start(server: &'a RedisServer) -> Monitor<'a> {
        let mut wire = server.connect();
        let answer = wire.command(&["MONITOR"]).expect("MONITOR is answered");
        assert_eq!(answer, Reply::Status("OK".into()), "MONITOR");
        Monitor { server, wire }
    }

    /// The commands since the start, as MONITOR prints them: each argument in quotes, the command first.
    pub fn finish(mut self) -> Vec<String> {
        static FENCES: AtomicU64 = AtomicU64::new(0);
        let fence =
            format!("cb-testkit-fence-{}-{}", std::process::id(), FENCES.fetch_add(1, Ordering::Relaxed));
        let own = self.server.fence(&fence);
        let mut commands = Vec::new();
        loop {
            let line = self.wire.reply().expect("MONITOR goes on until the fence").text();
            // 1700000000.123456 [0 127.0.0.1:50000] "get" "key"      or [0 lua], [0 unix:/path]
            let Some((head, command)) = line.split_once("] ") else { continue };
            let client = head.split_once('[').and_then(|(_, client)| client.split_once(' '));
            let Some((_, client)) = client else { continue };
            if client == own {
                if command.contains(&fence) {
                    return commands;
                }
            } else if client != "lua" {
                commands.push(command.to_owned());
            }
        }
    }
}
