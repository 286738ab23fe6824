// Words for states, actions and figures.

export const STATES = ["open", "forced-open", "half-open", "metrics-only", "disabled", "closed"];
export const WORDS = {
  "open": "open", "forced-open": "forced open", "half-open": "half-open", "metrics-only": "metrics only",
  "disabled": "disabled", "closed": "closed",
};
export const MANUAL = ["forced-open", "disabled", "metrics-only"];
export const ACTIONS = {
  "open": { title: "Force open", text: "All calls are rejected, on every instance, until the override ends.", danger: true, expires: true },
  "disable": { title: "Disable", text: "All calls are made and nothing is counted, until the override ends.", danger: true, expires: true },
  "metrics-only": { title: "Metrics only", text: "All calls are made and counted, and none is rejected, until the override ends.", expires: true },
  "release": { title: "Release", text: "The manual override ends. The circuit closes, and its counts restart at zero.", manual: true },
  "reset": { title: "Reset", text: "The circuit closes, whatever its state, and its counts restart at zero.", danger: true },
};

export const number = (n) => n.toLocaleString("en-US").replaceAll(",", "\u202f");
export const count = (n, one, many) => `${number(n)} ${n === 1 ? one : many}`;
export const percent = (value) => (value === null || value === undefined ? "–" : `${Math.round(value * 100)} %`);

export function span(seconds) {
  if (seconds < 1) return "under 1 s";
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

export function rate(value) {
  if (value === 0) return "0";
  if (value < 0.095) return "<0.1";
  if (value < 9.95) return value.toFixed(1);
  return number(Math.round(value));
}

export function clock(at) {
  const time = { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false };
  return new Date(at * 1000).toLocaleTimeString([], time);
}

/** How long the breaker has been in its state. A breaker that never left closed has been there since its start. */
export function sinceOf(row, now) {
  if (row.last_state_change === null) return row.epoch ? "unknown" : "start";
  return span(Math.max(0, now - row.last_state_change));
}

/** The breaker's next timed event: a probe, or the end of an override. `age`: of the figures, in seconds. */
export function nextStep(row, age) {
  if (row.retry_after === null) return "";
  const left = row.retry_after - age;
  const shown = left >= 3600 ? `${Math.floor(left / 3600)} h ${Math.floor((left % 3600) / 60)} min`
    : left >= 60 ? `${Math.floor(left / 60)} min ${Math.floor(left % 60)} s` : `${Math.ceil(left)} s`;
  if (row.state === "open") return left > 0 ? `probe in ${shown}` : "probe is due";
  return left > 0 ? `ends in ${shown}` : "ending";
}

/** The reason of the state. For a closed breaker, its failures against the limit. */
export function reason(row) {
  if (row.reason) return row.actor ? `${row.reason} — ${row.actor}` : row.reason;
  if (row.actor) return row.actor;
  const limit = row.limits?.failure_rate;
  if (row.window && row.window.failures > 0 && limit) {
    return `${percent(row.window.failure_rate)} of ${number(row.window.calls)} calls failed, opens at ${percent(limit)}`;
  }
  if (row.consecutive_failures > 0) return `${count(row.consecutive_failures, "failure", "failures")} in a row`;
  return row.failure_rate > 0 ? "some calls fail" : "no calls fail";
}

/** The rates of calls that the function did not answer: "45 / s rejected, 12 / s cached". */
export function instead({ rejected, cached, fallback }) {
  const parts = [[rejected, "rejected"], [cached, "cached"], [fallback, "fallback"]];
  return parts.filter(([value]) => value > 0).map(([value, word]) => `${rate(value)} / s ${word}`).join(", ");
}
