//! The arguments of `cbctl`.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::Resettable;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use super::EXIT_CODES;
use crate::figures::Sort;
use crate::monitor::plain_prefix;

/// Show and control a fleet's circuit breakers.
#[derive(Debug, Parser)]
#[command(name = "cbctl", version, after_help = EXIT_CODES, max_term_width = 110)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) connection: Connection,
    /// Print JSON, for programs: answers to stdout, an error to stderr.
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

impl Arguments {
    /// The arguments of this process. An empty environment variable counts as not set, as in cb-runtime. An
    /// empty argument is invalid: a script's variable may lack its value.
    pub(super) fn read() -> Result<Arguments, clap::Error> {
        let is_empty = |variable: &OsStr| std::env::var_os(variable).is_some_and(|value| value.is_empty());
        let command = Arguments::command().mut_args(|argument| {
            if argument.get_env().is_some_and(is_empty) { argument.env(Resettable::Reset) } else { argument }
        });
        Arguments::from_arg_matches(&command.try_get_matches()?)
    }
}

/// The Redis and the namespace of a fleet.
#[derive(Clone, Debug, Args)]
pub(super) struct Connection {
    /// The fleet's Redis; several addresses, separated by commas, for a cluster or Sentinels.
    #[arg(
        long,
        global = true,
        env = "CB_REDIS_URL",
        hide_env_values = true,
        value_delimiter = ',',
        default_value = "redis://127.0.0.1:6379"
    )]
    pub(super) redis: Vec<String>,
    /// The fleet's namespace.
    #[arg(long, global = true, env = "CB_NAMESPACE", default_value = "default")]
    pub(super) namespace: String,
    /// The addresses are nodes of a Redis Cluster.
    #[arg(long, global = true)]
    pub(super) cluster: bool,
    /// The addresses are Sentinels, and the master has this name.
    #[arg(long, global = true, value_name = "MASTER", conflicts_with = "cluster")]
    pub(super) sentinel: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the breakers of the namespace, worst first.
    List(Which),
    /// Show the list live, until Ctrl-C.
    Watch(Which),
    /// Show the details of one breaker.
    Show {
        /// The breaker's name.
        name: String,
    },
    /// Force a circuit open: all calls are rejected, on every instance.
    Open(Override),
    /// Disable a breaker: all calls are made, nothing is counted.
    Disable(Override),
    /// Only count: all calls are made and counted, and none is rejected.
    MetricsOnly(Override),
    /// End a manual override.
    Release(ActionArgs),
    /// Close a circuit in any state, and reset its counts.
    Reset(ActionArgs),
    /// Print changes of state.
    Events {
        /// Continue with new changes, until Ctrl-C.
        #[arg(long, short)]
        follow: bool,
        /// The number of past changes.
        #[arg(long, short, default_value_t = 20)]
        number: usize,
    },
    /// Check Redis, its settings, the permissions and the fleet.
    Doctor,
    /// Serve the page and the routes.
    Serve(Serve),
    /// Print a shell's completions.
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Print the manual page, in the format of man.
    Man {
        /// The page of one command, such as "open".
        command: Option<String>,
    },
}

/// The breakers to show, and their order.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Only breakers in these states, separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub(super) state: Vec<cb_runtime::State>,
    /// Only breakers whose name contains this.
    #[arg(long, default_value = "")]
    pub(super) search: String,
    /// worst, name, failures or calls.
    #[arg(long, default_value = "worst")]
    pub(super) sort: Sort,
    /// At most this many.
    #[arg(long, default_value_t = 1000)]
    pub(super) limit: usize,
}

/// An action without an expiry.
#[derive(Debug, Args)]
pub(super) struct ActionArgs {
    /// The breaker's name.
    name: String,
    /// The reason, in a few words.
    #[arg(long)]
    reason: String,
    /// Your name, for the history; default: the user of this machine.
    #[arg(long, env = "CB_ACTOR")]
    actor: Option<String>,
    /// Do not ask for confirmation.
    #[arg(long, short)]
    yes: bool,
}

/// An override that may expire.
#[derive(Debug, Args)]
pub(super) struct Override {
    #[command(flatten)]
    action: ActionArgs,
    /// End the override after this time: 30m, 2h, 1d.
    #[arg(long = "for", value_name = "SPAN")]
    expires_in: Option<String>,
}

/// The arguments of any action.
#[derive(Debug)]
pub(super) struct ActionOptions {
    pub(super) name: String,
    pub(super) reason: String,
    pub(super) actor: String,
    pub(super) expires_in: Option<String>,
    pub(super) yes: bool,
}

impl From<ActionArgs> for ActionOptions {
    fn from(args: ActionArgs) -> ActionOptions {
        let ActionArgs { name, reason, actor, yes } = args;
        let user = || ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
        let actor = actor.filter(|actor| !actor.is_empty()).or_else(user).filter(|user| !user.is_empty());
        ActionOptions { name, reason, actor: actor.unwrap_or_else(|| "cbctl".into()), expires_in: None, yes }
    }
}

impl From<Override> for ActionOptions {
    fn from(args: Override) -> ActionOptions {
        ActionOptions { expires_in: args.expires_in, ..args.action.into() }
    }
}

/// How the page is served.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:7433")]
    pub(super) listen: SocketAddr,
    /// The path under which the routes are.
    #[arg(long, default_value = "/circuits", value_parser = prefix)]
    pub(super) prefix: String,
    /// A file with the token that actions need; or CB_MONITOR_TOKEN. Without a token, the page is read-only.
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// A file with the token that reading needs; or CB_MONITOR_READ_TOKEN. Without a token, everybody who
    /// reaches the address may read.
    #[arg(long, value_name = "FILE")]
    pub(super) read_token_file: Option<PathBuf>,
    /// Listen on an address that other machines can reach, without a token for reading.
    #[arg(long)]
    pub(super) open_to_all: bool,
    /// A further host name of this address, such as that of a proxy; may be given more than once.
    #[arg(long, value_name = "HOST")]
    pub(super) allow_host: Vec<String>,
}

/// A prefix that [`Monitor::prefix`](crate::Monitor::prefix) takes: it panics for others.
fn prefix(path: &str) -> Result<String, &'static str> {
    let problem = "must be a plain path that begins with a slash, such as /circuits";
    plain_prefix(path).map(str::to_owned).ok_or(problem)
}
