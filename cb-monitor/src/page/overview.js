// The header: counts by state, Redis' health, the instances, and whether the figures are current.

import { $, element, mark, say } from "./dom.js";
import { freshUntil, headers, isSilent, isStale, known, serverNow } from "./known.js";
import { emit } from "./signals.js";
import { STATES, WORDS, clock, count, number, rate, span } from "./words.js";

/** Instances report every five seconds. */
const INSTANCES_PACE = 5000;
const MAX_INSTANCES = 200;

let instancesRead = -Infinity;

export function freshness() {
  const { overview } = known;
  const silent = isSilent();
  const live = $("live"), banner = $("banner");
  live.className = `live ${overview ? (silent || !overview.store.up ? "off" : "on") : ""}`;
  if (overview && silent) {
    say(live.lastChild, "Not connected");
    const since = clock(serverNow() - (performance.now() - freshUntil()) / 1000);
    say(banner, `No connection to the monitor since ${since}. The figures below are from that time. Reconnecting.`);
    banner.className = "banner";
  } else if (overview && !overview.store.up) {
    say(live.lastChild, "Redis is down");
    const since = overview.as_of ? `The fleet's figures are from ${clock(overview.as_of)}` : "There are no figures of the fleet";
    say(banner, `Redis does not answer (${overview.store.problem}). ${since}; each instance decides locally.`);
    banner.className = "banner warn";
  } else if (overview) {
    const age = overview.as_of ? Math.max(0, serverNow() - overview.as_of) : 0;
    say(live.lastChild, age < 3 ? "Live" : `Live, read ${span(age)} ago`);
  }
  banner.hidden = !overview || !(silent || !overview.store.up);
  document.body.classList.toggle("stale", isStale());
  say($("as-of"), overview?.as_of ? `Read ${clock(overview.as_of)}, every ${overview.pace.toFixed(0)} s while a page is open` : "");
}

function headlineOf({ total, states }, open) {
  if (open) return count(open, "circuit is open", "circuits are open");
  if (total === 0) return "No circuits yet";
  if (total === 1) return "The circuit is not open";
  return states.closed === total ? `All ${number(total)} circuits are closed` : "No circuit is open";
}

export function drawOverview() {
  const { overview } = known;
  const { states, per_second: flow, store } = overview;
  const open = states["open"] + states["forced-open"];
  const headline = $("headline");
  say(headline, headlineOf(overview, open));
  headline.className = `headline ${open ? "bad" : overview.total ? "good" : ""}`;
  document.title = open ? `(${open} open) Circuits` : "Circuits";
  say($("namespace"), overview.namespace);
  if (!store.shared) fact("fact-store", "none", "(in memory)");
  else fact("fact-store", store.up ? `${Math.max(1, Math.round(store.took_ms))}` : "down", store.up ? "ms" : "");
  instancesFact(overview);
  fact("fact-calls", rate(flow.calls), "/ s");
  fact("fact-failures", rate(flow.failures), "/ s");
  for (const name of ["rejected", "cached", "fallback"]) {
    $(`fact-${name}`).parentElement.hidden = !flow[name] && (name !== "rejected" || flow[name] === undefined);
    if (flow[name] !== undefined) fact(`fact-${name}`, rate(flow[name]), "/ s");
  }
  chips(states);
  shares(states);
}

function fact(id, value, unit) {
  const node = $(id);
  if (node.dataset.shown === value + unit) return;
  node.dataset.shown = value + unit;
  node.replaceChildren(value, element("span", "unit", ` ${unit}`));
}

function instancesFact({ instances, isolated }) {
  $("fact-instances").parentElement.hidden = !instances;
  if (!instances) return;
  const trouble = [];
  if (instances.silent) trouble.push(`${instances.silent} silent`);
  if (isolated) trouble.push(`${isolated} locally open`);
  fact("fact-instances", `${instances.alive}`, ["alive", ...trouble].join(", "));
}

/** Fills the list of instances. They are unknown while the store does not answer. */
export async function readInstances() {
  if (!known.overview.instances || performance.now() - instancesRead < INSTANCES_PACE) return;
  instancesRead = performance.now();
  try {
    const response = await fetch("instances", { headers: headers() });
    if (!response.ok) return;
    const list = await response.json();
    const strangers = list.some(({ id }) => !known.nodes.has(id));
    // Names of ended instances are kept, because timelines show them.
    for (const { id, node } of list) known.nodes.set(id, node);
    if (strangers) emit("instances");
    $("instances-title").hidden = list.length === 0;
    $("instances").replaceChildren(...list.slice(0, MAX_INSTANCES).map((instance) => {
      const state = instance.degraded ? "open" : "closed";
      const item = element("li", state);
      const name = element("span", "node", instance.node);
      name.title = `${instance.id}, ${instance.host}, process ${instance.pid}, version ${instance.version}`;
      item.append(mark(state), name);
      if (instance.own) item.append(element("span", "tag plain", "this monitor"));
      item.append(element("span", "muted", instance.degraded ? "silent" : `version ${instance.version}`));
      return item;
    }));
  } catch { /* the stream shows that the monitor does not answer */ }
}

export function chips(states) {
  const box = $("states");
  if (!box.children.length) {
    for (const state of STATES) {
      const chip = element("button", `chip ${state}`);
      chip.type = "button";
      chip.append(mark(state), element("b"), element("span", "", WORDS[state]));
      chip.addEventListener("click", () => {
        const { states: chosen } = known.filter;
        if (!chosen.delete(state)) chosen.add(state);
        emit("filter");
      });
      box.append(chip);
    }
  }
  STATES.forEach((state, place) => {
    const chip = box.children[place];
    say(chip.children[1], number(states[state]));
    chip.classList.toggle("none", states[state] === 0);
    chip.setAttribute("aria-pressed", known.filter.states.has(state));
  });
}

/** How many circuits are in each state, as a bar. */
function shares(states) {
  const bar = $("shares");
  if (!bar.children.length) bar.append(...STATES.map((state) => element("span", state)));
  STATES.forEach((state, place) => {
    bar.children[place].style.flexGrow = states[state];
    bar.children[place].hidden = states[state] === 0;
  });
}
