//! The names that other circuit breakers give to our arguments.

/// The answer to an argument that has another name elsewhere.
pub(crate) fn answer(written: &str) -> Option<&'static str> {
    let plain: String = written.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect();
    ANSWERS.iter().find(|(names, _)| names.contains(&plain.as_str())).map(|(_, answer)| *answer)
}

/// Names in lower case without underscores, and the answer. They come from resilience4j, Polly, opossum,
/// gobreaker, Hystrix and pybreaker.
const ANSWERS: &[(&[&str], &str)] = &[
    (
        &["timeout"],
        "`call_timeout` limits how long a call may take; `reset_timeout` is how long the circuit stays open",
    ),
    (
        &[
            "timeoutduration",
            "timelimit",
            "deadline",
            "requesttimeout",
            "executiontimeout",
            "executiontimeoutinmilliseconds",
            "executionisolationthreadtimeoutinmilliseconds",
        ],
        "here it is `call_timeout`",
    ),
    (
        &[
            "waitdurationinopenstate",
            "sleepwindow",
            "sleepwindowinmilliseconds",
            "breakduration",
            "durationofbreak",
            "openduration",
            "opentimeout",
            "cooldown",
            "cooldownperiod",
            "recoverytimeout",
            "retryafter",
            "delay",
            "withdelay",
            "waitduration",
        ],
        "here it is `reset_timeout`",
    ),
    (
        &[
            "waitintervalfunctioninopenstate",
            "enableexponentialbackoff",
            "exponentialbackoffmultiplier",
            "exponentialmaxwaitdurationinopenstate",
            "breakdurationgenerator",
            "backofffactor",
            "backoffstrategy",
        ],
        "here it is `backoff`",
    ),
    (
        &[
            "maxrequests",
            "permittednumberofcallsinhalfopenstate",
            "halfopenrequests",
            "halfopenmaxrequests",
            "halfopencalls",
            "maxprobes",
            "probes",
        ],
        "here it is `half_open_max_calls`; `success_threshold` is how many successes close the circuit",
    ),
    (
        &["successesneeded", "consecutivesuccesses", "requiredsuccesses", "halfopensuccesses"],
        "here it is `success_threshold`",
    ),
    (
        &[
            "maxfailures",
            "failuremax",
            "failmax",
            "failures",
            "maxconsecutivefailures",
            "consecutivefailures",
            "exceptionsallowedbeforebreaking",
            "errorthreshold",
            "failurecount",
            "tripafter",
        ],
        "here it is `failure_threshold`",
    ),
    (
        &[
            "failureratio",
            "failurerate",
            "errorrate",
            "errorratethreshold",
            "errorpercentage",
            "errorthresholdpercentage",
            "circuitbreakererrorthresholdpercentage",
            "failurepercentage",
        ],
        "here it is `failure_rate_threshold`, a share such as 0.5",
    ),
    (
        &[
            "samplingduration",
            "rollingcounttimeout",
            "rollingwindow",
            "interval",
            "bucketperiod",
            "timewindow",
            "metricsrollingstatstimeinmilliseconds",
            "windowduration",
            "slidingwindow",
        ],
        "here it is `window`",
    ),
    (
        &["slidingwindowsize", "slidingwindowtype", "ringbuffersizeinclosedstate", "windowsize"],
        "here it is `window_calls` for a number of calls, or `window` for a span of time",
    ),
    (
        &[
            "minimumnumberofcalls",
            "minimumthroughput",
            "volumethreshold",
            "requestvolumethreshold",
            "circuitbreakerrequestvolumethreshold",
            "minimumrequests",
            "minrequests",
            "mincalls",
        ],
        "here it is `minimum_calls`",
    ),
    (&["slowcalldurationthreshold", "slowcall", "slowthreshold"], "here it is `slow_call_duration`"),
    (&["slowcallrate"], "here it is `slow_call_rate_threshold`"),
    (&["readytotrip", "shouldtrip", "trippolicy"], "here it is `strategy`"),
    (
        &[
            "recordexceptions",
            "recordexception",
            "recordfailurepredicate",
            "recordresultpredicate",
            "recordresult",
            "ignoreexceptions",
            "ignoreexception",
            "shouldhandle",
            "handle",
            "errorfilter",
            "issuccessful",
            "isexcluded",
            "expectedexception",
            "exclude",
            "ignore",
            "predicate",
            "iserror",
            "failureif",
            "classify",
        ],
        "here it is `is_failure`: a predicate over what the function returns, true for a failure",
    ),
    (
        &["fallbackmethod", "fallbackaction", "fallbackfunction", "onopencall", "orelse"],
        "here it is `fallback`: a path or a closure",
    ),
    (&["cache", "ttl", "cachefor", "cacheduration", "timetolive"], "here it is `cache_ttl`"),
    (&["key", "cachegetkey", "keyby", "keygenerator"], "here it is `cache_key`"),
    (&["version"], "here it is `cache_version`"),
    (&["service", "commandkey", "id", "label", "breaker"], "here it is `name`"),
    (&["healthcheckfn", "probe", "healthprobe", "ping"], "here it is `health_check`"),
    (&["rampup", "slowstart", "allowwarmup", "warmup"], "here it is `ramp_up`"),
    (&["runtime", "cbruntime", "path"], "here it is `crate`, the path to the runtime"),
    (
        &["retry", "retries", "maxretries", "maxattempts", "attempts"],
        "a circuit breaker does not retry: retry around the call, where `BreakerError` tells you when to stop",
    ),
    (
        &["capacity", "maxconcurrent", "maxconcurrentcalls", "concurrency", "bulkhead", "ratelimit"],
        "a circuit breaker does not limit how many calls run at once: use a semaphore, or a `tower` limit",
    ),
    (
        &[
            "onstatechange",
            "onopened",
            "onclosed",
            "onhalfopened",
            "onopen",
            "onclose",
            "onhalfopen",
            "listener",
            "listeners",
            "oneventlistener",
        ],
        "changes of state come through `Registry::subscribe`",
    ),
    (
        &["automatictransitionfromopentohalfopenenabled", "maxwaitdurationinhalfopenstate"],
        "there is no such setting: the first call after `reset_timeout` is a probe, and `health_check` probes without calls",
    ),
    (
        &["redis", "redisurl", "url", "namespace", "store"],
        "that belongs to the registry: `Registry::builder()`, or the variables `CB_REDIS_URL` and `CB_NAMESPACE`",
    ),
    (&["enabled", "disabled"], "a breaker is switched off at run time: `Breaker::disable`"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{ARGUMENTS, Argument};

    #[test]
    fn foreign_names_are_answered_with_ours() {
        for (theirs, ours) in [
            ("fallbackMethod", "`fallback`"),
            ("wait_duration_in_open_state", "`reset_timeout`"),
            ("waitDurationInOpenState", "`reset_timeout`"),
            ("sleepWindow", "`reset_timeout`"),
            ("max_requests", "`half_open_max_calls`"),
            ("MaxRequests", "`half_open_max_calls`"),
            ("permittedNumberOfCallsInHalfOpenState", "`half_open_max_calls`"),
            ("timeout", "`call_timeout`"),
            ("minimumNumberOfCalls", "`minimum_calls`"),
            ("MinimumThroughput", "`minimum_calls`"),
            ("slidingWindowSize", "`window_calls`"),
            ("SamplingDuration", "`window`"),
            ("rollingCountTimeout", "`window`"),
            ("errorThresholdPercentage", "`failure_rate_threshold`"),
            ("FailureRatio", "`failure_rate_threshold`"),
            ("ReadyToTrip", "`strategy`"),
            ("BreakDuration", "`reset_timeout`"),
            ("ShouldHandle", "`is_failure`"),
            ("ignoreExceptions", "`is_failure`"),
            ("OnStateChange", "`Registry::subscribe`"),
        ] {
            let found = answer(theirs).unwrap_or_else(|| panic!("{theirs} has no answer"));
            assert!(found.contains(ours), "{theirs}: {found}");
        }
    }

    #[test]
    fn every_foreign_name_stands_once_and_none_is_ours() {
        let mut all: Vec<&str> = ANSWERS.iter().flat_map(|(names, _)| *names).copied().collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        for Argument { name, .. } in ARGUMENTS {
            assert!(!all.contains(name), "{name}");
        }
    }
}
