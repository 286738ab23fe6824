//! The behaviour of the kit that the tests rely on.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use cb_testkit::{PATIENCE, Proxy, RedisServer, Reply, wait_until};

fn ping(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    ask(&mut stream)
}

fn ask(stream: &mut TcpStream) -> std::io::Result<String> {
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn server_answers_on_its_port_and_ends_when_dropped() {
    let server = RedisServer::start();
    let port = server.port();
    assert_eq!(server.cli(&["PING"]), "PONG");
    assert_eq!(ping(port).unwrap(), "+PONG\r\n");
    assert!(server.unix_url().starts_with("unix:///"));
    drop(server);
    assert!(ping(port).is_err());
}

#[test]
fn restart_loses_data_unless_it_is_kept() {
    let server = RedisServer::start();
    server.cli(&["SET", "key", "value"]);
    server.restart_keeping_data();
    assert_eq!(server.cli(&["GET", "key"]), "value");
    server.restart();
    assert_eq!(server.command(&["GET", "key"]), Reply::Nil);
}

#[test]
fn frozen_server_answers_after_the_thaw() {
    let server = RedisServer::start();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).unwrap();
    server.freeze();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(ask(&mut stream).is_err());
    server.thaw();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
}

#[test]
fn client_commands_exclude_those_of_scripts_and_the_kit() {
    let server = RedisServer::start_with(&["--requirepass", "secret"]);
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"AUTH secret\r\n").unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();
    let ((), count) = server.client_commands(|| {
        ask(&mut stream).unwrap();
        stream.write_all(b"EVAL \"return redis.call('PING')\" 0\r\n").unwrap();
        stream.read_exact(&mut [0; 7]).unwrap();
        server.cli(&["SET", "by", "the kit"]);
    });
    assert_eq!(count, 2);
    assert_eq!(server.connected_clients(), 1);
    drop(stream);
    wait_until(PATIENCE, "the client has disconnected", || server.connected_clients() == 0);
}

#[test]
fn proxy_stalls_cuts_and_heals() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port());
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(ask(&mut stream).unwrap(), "+PONG\r\n");

    proxy.stall_answers();
    stream.write_all(b"SET seen 1\r\n").unwrap();
    wait_until(PATIENCE, "the request has arrived", || server.cli(&["GET", "seen"]) == "1");
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(stream.read(&mut [0; 5]).is_err());
    proxy.heal();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();

    proxy.stall();
    stream.write_all(b"SET seen 2\r\n").unwrap();
    proxy.cut();
    assert_eq!(stream.read(&mut [0; 5]).unwrap_or(0), 0);
    assert!(ping(proxy.port()).is_err());
    assert_eq!(server.cli(&["GET", "seen"]), "1");
    proxy.heal();
    assert_eq!(ping(proxy.port()).unwrap(), "+PONG\r\n");
    assert_eq!(proxy.accepted(), 2);
}
