//! The scripts, as Redis gets them: a library they share, and what each does.

use redis::Script;

pub(super) struct Scripts {
    pub(super) exchange: Script,
    pub(super) report: Script,
    pub(super) load: Script,
    pub(super) read: Script,
}

/// One chunk: a file sees the local names of those before it.
macro_rules! chunk {
    ($($file:literal),+ $(,)?) => { concat!($(include_str!(concat!("lua/", $file, ".lua"))),+) };
}

const EXCHANGE: &str = chunk!(
    "limits",
    "exchange/opening",
    "common",
    "time_window",
    "quiet",
    "position",
    "streak",
    "exchange/begin",
    "exchange/counted",
    "breaker",
    "held",
    "leases",
    "failing",
    "count_window",
    "role",
    "settings",
    "notices",
    "exchange/transition",
    "exchange/write",
    "exchange/entry",
    "exchange/answer",
);
const REPORT: &str = chunk!(
    "limits",
    "common",
    "time_window",
    "quiet",
    "position",
    "report/counts",
    "streak",
    "breaker",
    "held",
    "report/held",
);
const LOAD: &str = chunk!("limits", "common", "streak", "breaker", "position", "held", "load");
const READ: &str = chunk!("limits", "common", "streak", "breaker", "time_window", "quiet", "read");

impl Scripts {
    pub(super) fn new() -> Self {
        Scripts {
            exchange: Script::new(EXCHANGE),
            report: Script::new(REPORT),
            load: Script::new(LOAD),
            read: Script::new(READ),
        }
    }

    /// The scripts on a given clock: their time is the last argument, in microseconds, not Redis' own.
    #[cfg(test)]
    pub(super) fn on_a_given_clock() -> Self {
        Scripts { exchange: given(EXCHANGE), report: given(REPORT), load: given(LOAD), read: given(READ) }
    }

    /// Without the short way to open a breaker.
    #[cfg(test)]
    pub(super) fn without_opening(self) -> Self {
        let short_way = "local opened = open_at_once()";
        assert!(EXCHANGE.contains(short_way));
        Scripts { exchange: given(&EXCHANGE.replace(short_way, "local opened")), ..self }
    }
}

#[cfg(test)]
fn given(source: &str) -> Script {
    let clock = "redis.call('TIME')";
    assert_eq!(source.matches(clock).count(), 1, "TIME is asked once, and in one place");
    Script::new(&source.replace(clock, "{ 0, table.remove(ARGV) }"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{EXCHANGE, LOAD, READ, REPORT};
    use crate::store::{
        IDLE, MAX_COUNT, MAX_EPOCH, MAX_EVENTS, MAX_FAILING, MAX_REASON, MAX_ROLE_TERM_US, MAX_SETTINGS,
        MAX_SPAN_US, MAX_STREAK, NOTICE, NOTICE_PAUSE, REMEMBERED, SAID_FOR,
    };

    #[test]
    fn limits_are_those_of_the_contract() {
        for (name, value) in [
            ("MAX_COUNT", MAX_COUNT),
            ("MAX_EPOCH", MAX_EPOCH),
            ("MAX_SPAN", MAX_SPAN_US),
            ("MAX_EVENTS", MAX_EVENTS as u64),
            ("MAX_REASON", MAX_REASON as u64),
            ("MAX_STREAK", MAX_STREAK as u64),
            ("MAX_FAILING", MAX_FAILING as u64),
            ("MAX_ROLE_TERM", MAX_ROLE_TERM_US),
            ("MAX_SETTINGS", MAX_SETTINGS as u64),
            ("IDLE", IDLE.as_secs()),
            ("REMEMBERED", REMEMBERED.as_secs()),
            ("SAID_FOR", SAID_FOR.as_secs()),
            ("NOTICE", NOTICE.as_secs()),
            ("NOTICE_PAUSE", crate::clock::micros(NOTICE_PAUSE)),
        ] {
            assert!(EXCHANGE.contains(&format!("local {name} = {value}\n")), "{name}");
        }
    }

    #[test]
    fn documented_user_may_do_what_scripts_and_store_do_and_no_more() {
        let page = include_str!("../../../../docs/redis.md");
        let command = page.lines().find(|line| line.starts_with("ACL SETUSER")).unwrap();
        let documented: BTreeSet<_> =
            command.split(' ').filter_map(|word| word.strip_prefix('+')).map(str::to_uppercase).collect();
        let by_scripts = [EXCHANGE, REPORT, LOAD, READ]
            .into_iter()
            .flat_map(|script| script.split("call('").skip(1).filter_map(|call| call.split('\'').next()));
        let by_store = [
            "EVALSHA",
            "SCRIPT|LOAD",
            "SUBSCRIBE",
            "XREAD",
            "XREVRANGE",
            "GET",
            "SET",
            "PTTL",
            "SELECT",
            "HGETALL",
            "HRANDFIELD",
            "ZSCAN",
            "HSCAN",
        ];
        let needed: BTreeSet<_> = by_scripts.chain(by_store).map(ToOwned::to_owned).collect();
        assert_eq!(documented, needed);
    }
}
