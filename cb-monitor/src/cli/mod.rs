//! The command line `cbctl`.

mod args;
mod client;
mod doctor;
mod events;
mod list;
mod output;
mod serve;
mod show;
mod steer;
mod text;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::CommandFactory;

use args::{Arguments, Command};
use client::Client;

use crate::action::Action;

/// Why a command failed.
#[derive(Debug)]
enum Failure {
    /// A problem was found and printed.
    Reported,
    /// The namespace has no such breaker.
    Unknown(String),
    /// The store does not answer, or refuses the credentials.
    Store(String),
    /// The action was not confirmed, or there is no terminal to ask on.
    Unconfirmed(String),
    /// The arguments are invalid.
    Usage(String),
    /// The reader of stdout has closed it, as `head` does when it has enough.
    NoReader,
    /// Anything else.
    Other(String),
}

/// Listed in `--help` and in docs/monitor.md.
const EXIT_CODES: &str = "Exit codes:
  0  done
  1  failed, or `doctor` has found a problem
  2  the arguments are invalid
  3  no breaker of the namespace has this name
  4  Redis does not answer, or refuses
  5  not confirmed";

impl Failure {
    const USAGE: u8 = 2;

    fn code(&self) -> u8 {
        match self {
            Failure::NoReader => 0,
            Failure::Reported | Failure::Other(_) => 1,
            Failure::Usage(_) => Failure::USAGE,
            Failure::Unknown(_) => 3,
            Failure::Store(_) => 4,
            Failure::Unconfirmed(_) => 5,
        }
    }

    fn message(&self) -> Option<&str> {
        match self {
            Failure::Reported | Failure::NoReader => None,
            Failure::Unknown(message)
            | Failure::Store(message)
            | Failure::Unconfirmed(message)
            | Failure::Usage(message)
            | Failure::Other(message) => Some(message),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::NoReader,
            _ => Failure::Other(error.to_string()),
        }
    }
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let arguments = match Arguments::read() {
        Ok(arguments) => arguments,
        Err(error) => return invalid(&error),
    };
    let json = arguments.json;
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::remark(format_args!("cbctl: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            match failure.message() {
                Some(error) if json => print_json_error(error, failure.code()),
                Some(error) => output::remark(format_args!("cbctl: {error}")),
                None => {}
            }
            ExitCode::from(failure.code())
        }
    }
}

/// Ends the program for invalid arguments and for `--help`.
fn invalid(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") {
        let message = error.render().to_string();
        let message = message.trim().strip_prefix("error: ").unwrap_or_default();
        print_json_error(message.split("\n\n").next().unwrap_or_default(), Failure::USAGE);
        return ExitCode::from(Failure::USAGE);
    }
    error.exit()
}

fn print_json_error(error: &str, code: u8) {
    output::remark(serde_json::json!({ "error": error, "exit_code": code }));
}

/// Runs a command that has no end of its own until it fails, Ctrl-C is pressed, or a supervisor ends it.
///
/// One listener serves the whole run: a signal that arrives while nobody listens would be lost.
async fn until_interrupted(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Ok(()),
        () = terminated() => Ok(()),
        outcome = command => outcome,
    }
}

/// SIGTERM, by which service managers and container runtimes end a process. The first process of a container
/// ignores it without a handler.
#[cfg(unix)]
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut signals) => drop(signals.recv().await),
        Err(_) => std::future::pending().await,
    }
}

#[cfg(not(unix))]
async fn terminated() {
    std::future::pending().await
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { connection, json, command } = arguments;
    match command {
        Command::Completions { shell } => {
            // By way of a buffer: clap_complete panics if it cannot write.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "cbctl", &mut script);
            return Ok(io::stdout().write_all(&script)?);
        }
        Command::Man { command } => {
            clap_mangen::Man::new(manual(command.as_deref())?).render(&mut io::stdout())?;
            return Ok(());
        }
        Command::Doctor => return doctor::run(&connection, json).await,
        _ => {}
    }
    let client = Client::connect(&connection)?;
    let outcome = match command {
        Command::List(which) => list::list(&client, &which, json).await,
        Command::Watch(which) => until_interrupted(list::watch(&client, &which, json)).await,
        Command::Show { name } => show::show(&client, &name, json).await,
        Command::Open(args) => steer::steer(&client, Action::Open, &args.into(), json).await,
        Command::Disable(args) => steer::steer(&client, Action::Disable, &args.into(), json).await,
        Command::MetricsOnly(args) => steer::steer(&client, Action::MetricsOnly, &args.into(), json).await,
        Command::Release(args) => steer::steer(&client, Action::Release, &args.into(), json).await,
        Command::Reset(args) => steer::steer(&client, Action::Reset, &args.into(), json).await,
        Command::Events { follow, number } => {
            until_interrupted(events::events(&client, follow, number, json)).await
        }
        Command::Serve(options) => until_interrupted(serve::serve(&client, &options, json)).await,
        Command::Doctor | Command::Completions { .. } | Command::Man { .. } => Ok(()),
    };
    client.close().await;
    outcome
}

/// The command that a manual page describes: `cbctl`, or one of its commands.
fn manual(command: Option<&str>) -> Result<clap::Command, Failure> {
    let mut all = Arguments::command();
    let Some(name) = command else { return Ok(all) };
    all.build();
    let known: Vec<_> = all.get_subcommands().map(|known| known.get_name().to_owned()).collect();
    let found = all.find_subcommand(name).ok_or_else(|| {
        Failure::Usage(format!(
            "there is no command \"{}\"; the commands are {}",
            text::plain(name),
            known.join(", ")
        ))
    })?;
    Ok(found.clone())
}
