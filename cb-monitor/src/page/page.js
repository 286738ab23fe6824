// The page of cb-monitor. Text from outside (names, reasons, ids) is only ever set as text, never as markup.

/** A shape for each state, in a square of 12: colour alone tells some readers nothing. */
const MARKS = {
  "open": "M2.5 2.5 9.5 9.5M9.5 2.5 2.5 9.5",
  "forced-open": "M3 5.5V10H9V5.5ZM4.2 5.5V3.8A1.8 1.8 0 0 1 7.8 3.8V5.5",
  "half-open": "M6 1.5A4.5 4.5 0 0 1 6 10.5ZM6 1.5A4.5 4.5 0 0 0 6 10.5",
  "disabled": "M6 1.5V5.5M3.4 3A4.2 4.2 0 1 0 8.6 3",
  "metrics-only": "M1 6C3 2.4 9 2.4 11 6 9 9.6 3 9.6 1 6ZM6 4.9A1.1 1.1 0 0 0 6 7.1 1.1 1.1 0 0 0 6 4.9",
  "closed": "M2 6.4 4.9 9.2 10 3.4",
};
const STATES = ["open", "forced-open", "half-open", "metrics-only", "disabled", "closed"];
const WORDS = { "open": "open", "forced-open": "forced open", "half-open": "half-open", "metrics-only": "metrics only", "disabled": "disabled", "closed": "closed" };
const ACTIONS = {
  "open": { title: "Force open", text: "All calls are rejected, on every instance, until the override ends.", danger: true, expires: true },
  "disable": { title: "Disable", text: "All calls are made and nothing is counted, until the override ends.", danger: true, expires: true },
  "metrics-only": { title: "Metrics only", text: "All calls are made and counted; the circuit never opens, until the override ends.", expires: true },
  "release": { title: "Release", text: "The manual override ends; the circuit is closed and counts from nothing.", needs: "manual" },
  "reset": { title: "Reset", text: "The circuit is closed, whatever its state, and counts from nothing.", danger: true },
};
const OVERSCAN = 12;
const CHANGES = 60;

const $ = (id) => document.getElementById(id);
const element = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};
const SVG = "http://www.w3.org/2000/svg";
function shape(tag, className) {
  const made = document.createElementNS(SVG, tag);
  made.setAttribute("class", className);
  return made;
}
/** A state's sign; its word stands beside it. */
function mark(state) {
  const svg = shape("svg", "mark"), path = shape("path", "");
  svg.setAttribute("viewBox", "0 0 12 12");
  svg.setAttribute("aria-hidden", "true");
  svg.append(path);
  remark(svg, state);
  return svg;
}
function remark(svg, state) {
  if (svg.dataset.state === state) return;
  svg.dataset.state = state;
  svg.firstChild.setAttribute("d", MARKS[state] ?? "");
}
/** Sets text only where it differs: a reader's cursor and the layout stay as they are. */
const say = (node, text) => { if (node.textContent !== text) node.textContent = text; };

// ---- What is known ------------------------------------------------------------------------------------------------

let overview = null;         // the header's figures, from the stream
let heard = 0;               // performance.now() of the latest overview
let serverOffset = 0;        // the server's clock minus this one, in seconds
let total = 0;               // how many rows match
const rows = new Map();      // by place, as far as they were asked for
let readAt = 0;              // performance.now() of the latest rows
let asked = 0;               // the number of the latest request for rows; answers to earlier ones are dropped
let selected = null;         // the name that the details show
let cursor = 0;              // the place of the row that the keyboard is on
const filter = { states: new Set(), search: "", sort: "worst" };
let token = sessionStorage.getItem("circuits-token") || "";
const turned = new Set();    // names whose state has just changed

const serverNow = () => Date.now() / 1000 + serverOffset;
const headers = (more) => (token ? { ...more, Authorization: `Bearer ${token}` } : { ...more });

// ---- Words for figures --------------------------------------------------------------------------------------------

function span(seconds) {
  if (seconds < 1) return "under 1 s";
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}
function rate(value) {
  if (value === 0) return "0";
  if (value < 0.095) return "<0.1";
  if (value < 9.95) return value.toFixed(1);
  return Math.round(value).toLocaleString("en-US").replaceAll(",", "\u202f");
}
const percent = (value) => (value === null || value === undefined ? "–" : `${Math.round(value * 100)} %`);
const clock = (at) => new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const count = (n, one, many) => `${n.toLocaleString("en-US").replaceAll(",", "\u202f")} ${n === 1 ? one : many}`;

function nextStep(row, age) {
  if (row.retry_after === null) return "";
  const left = row.retry_after - age;
  const clockText = left >= 3600 ? `${Math.floor(left / 3600)} h ${Math.floor((left % 3600) / 60)} min`
    : left >= 60 ? `${Math.floor(left / 60)} min ${Math.floor(left % 60)} s` : `${Math.ceil(left)} s`;
  if (row.state === "open") return left > 0 ? `probe in ${clockText}` : "probe is due";
  return left > 0 ? `ends in ${clockText}` : "ending";
}

function reason(row) {
  const words = row.reason || (row.consecutive_failures > 0 ? `${count(row.consecutive_failures, "failure", "failures")} in a row` : "no trouble");
  return row.actor ? `${words} — ${row.actor}` : words;
}

// ---- Asking -------------------------------------------------------------------------------------------------------

function query(offset, limit) {
  const asked = new URLSearchParams({ offset, limit, sort: filter.sort, trend: "true" });
  if (filter.search) asked.set("search", filter.search);
  if (filter.states.size) asked.set("state", [...filter.states].join(","));
  return `stats?${asked}`;
}

async function readRows() {
  const [first, last] = visible();
  const offset = Math.max(0, first - OVERSCAN);
  const mine = ++asked;
  try {
    const response = await fetch(query(offset, last - first + 2 * OVERSCAN), { headers: headers() });
    if (response.status === 401) return needToken();
    if (!response.ok || mine !== asked) return;
    const list = await response.json();
    if (mine !== asked) return;
    const before = total;
    total = Number(response.headers.get("x-total-count"));
    rows.clear();
    list.forEach((row, place) => rows.set(offset + place, row));
    readAt = performance.now();
    // Fewer rows than before: what was in view may be beyond the end.
    if (total < before && first >= total) $("rows").scrollTop = 0;
    draw();
  } catch { /* the stream notices that the monitor is away, and says so */ }
}

let wanted = 0;
/** Reads what is in view soon: several reasons at once lead to one request. */
function soon(delay = 40) {
  if (!wanted) wanted = setTimeout(() => { wanted = 0; readRows(); if (selected !== null) readDetail(); }, delay);
}

// ---- The stream ---------------------------------------------------------------------------------------------------

let streaming = null;
let lastId = "";
let wait = 500;

/** Reads server-sent events by fetch: an EventSource cannot send a token. */
async function stream() {
  const stop = new AbortController();
  streaming = stop;
  try {
    const response = await fetch("events?overview=true", { headers: headers(lastId ? { "Last-Event-ID": lastId } : {}), signal: stop.signal });
    if (response.status === 401) { needToken(); throw new Error("a token is needed"); }
    if (!response.ok) throw new Error(await response.text());
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let buffer = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      wait = 500;
      buffer += value;
      let end;
      while ((end = buffer.indexOf("\n\n")) >= 0) {
        receive(buffer.slice(0, end));
        buffer = buffer.slice(end + 2);
      }
    }
  } catch { /* tried again below */ }
  if (streaming !== stop) return;
  streaming = null;
  freshness();
  if (document.hidden) return;
  // Jitter: pages that lost the same monitor do not come back at the same moment.
  setTimeout(() => { if (!streaming) stream(); }, wait * (0.7 + 0.6 * Math.random()));
  wait = Math.min(wait * 1.6, 8000);
}

function receive(text) {
  let kind = "message", data = "";
  for (const line of text.split("\n")) {
    if (line.startsWith("event: ")) kind = line.slice(7);
    else if (line.startsWith("data: ")) data += line.slice(6);
    else if (line.startsWith("id: ")) lastId = line.slice(4);
  }
  if (!data) return;
  const event = JSON.parse(data);
  if (kind === "overview") {
    overview = event;
    heard = performance.now();
    serverOffset = event.now - Date.now() / 1000;
    drawOverview();
    soon(0);
  } else if (kind === "hello") {
    soon(0);
    readChanges();
  } else if (kind === "gap") {
    soon(0);
  } else {
    happened(event);
  }
}

/** What happened before this page was opened, or while it was not connected. */
async function readChanges() {
  try {
    const response = await fetch(`history?limit=${CHANGES}`, { headers: headers() });
    if (!response.ok) return;
    const shown = (await response.json()).filter(isShown);
    $("changes").replaceChildren(...shown.map((event) => change(event, true)));
    $("no-changes").hidden = shown.length > 0;
  } catch { /* the stream says that the monitor is away */ }
}

const isShown = (event) => event.event !== "health-check" && event.event !== "problem";

function happened(event) {
  if (event.event === "transition" || event.event === "local-transition") {
    turned.add(event.breaker);
    setTimeout(() => turned.delete(event.breaker), 1600);
    say($("announce"), `${event.breaker} is ${WORDS[event.to] ?? event.to}${event.reason ? `: ${event.reason}` : ""}`);
    soon();
  }
  if (!isShown(event)) return;
  $("no-changes").hidden = true;
  const list = $("changes");
  list.prepend(change(event, true));
  while (list.children.length > CHANGES) list.lastChild.remove();
}

/** One line of a timeline. */
function change(event, withName) {
  const item = element("li", event.to ?? "");
  const what = element("div", "what");
  if (withName && event.breaker !== undefined) {
    const name = element("button", "", event.breaker);
    name.type = "button";
    name.addEventListener("click", () => select(event.breaker));
    what.append(name, " ");
  }
  const words = {
    "transition": WORDS[event.to] ?? event.to,
    "local-transition": `${WORDS[event.to] ?? event.to} on this instance only`,
    "would-have-opened": "would have opened",
    "store-lost": "Redis does not answer",
    "store-restored": "Redis answers again",
  }[event.event] ?? event.event;
  what.append(element("span", "to", withName && event.to ? `is ${words}` : words));
  const why = event.reason || event.error || "";
  const who = event.actor ? `by ${event.actor}` : event.originator ? `by ${event.originator}` : "";
  const time = element("time", "", clock(event.at));
  time.dateTime = new Date(event.at * 1000).toISOString();
  time.title = new Date(event.at * 1000).toLocaleString();
  item.append(what, element("div", "why", why), time);
  if (who) item.append(element("span", "why", ` ${who}`));
  return item;
}

// ---- Drawing: the header ------------------------------------------------------------------------------------------

/** What cannot be new must not look new. */
function isStale() {
  return isSilent() || !overview.store.up;
}

/** Nothing was heard of the monitor for a while, or its rows could not be read. */
const isSilent = () => {
  const oldest = Math.min(heard, readAt || heard);
  return !overview || performance.now() - oldest > 4000;
};

function freshness() {
  const silent = isSilent();
  const live = $("live");
  live.className = `live ${overview ? (silent || !overview.store.up ? "off" : "on") : ""}`;
  const banner = $("banner");
  if (overview && silent) {
    say(live.lastChild, "Not connected");
    say(banner, `No connection to the monitor since ${clock(serverNow() - (performance.now() - Math.min(heard, readAt || heard)) / 1000)}. What you see is from then; trying again.`);
    banner.className = "banner";
  } else if (overview && !overview.store.up) {
    say(live.lastChild, "Redis is away");
    const since = overview.as_of ? `Fleet figures are from ${clock(overview.as_of)}` : "There are no fleet figures";
    say(banner, `Redis does not answer (${overview.store.problem}). ${since}; every instance decides by itself.`);
    banner.className = "banner warn";
  } else if (overview) {
    const age = overview.as_of ? Math.max(0, serverNow() - overview.as_of) : 0;
    say(live.lastChild, age < 3 ? "Live" : `Live, read ${span(age)} ago`);
  }
  banner.hidden = !overview || !(silent || !overview.store.up);
  document.body.classList.toggle("stale", isStale());
  say($("as-of"), overview?.as_of ? `Read ${clock(overview.as_of)}, every ${overview.pace.toFixed(0)} s while somebody looks` : "");
}

function drawOverview() {
  const { states, per_second: flow } = overview;
  const open = states["open"] + states["forced-open"];
  const headline = $("headline");
  say(headline, open === 0 ? (overview.total === 0 ? "No circuit is known yet" : overview.total === 1 ? "The circuit is not open" : states.closed === overview.total ? `All ${overview.total.toLocaleString("en-US").replaceAll(",", "\u202f")} circuits are closed` : "No circuit is open")
    : `${count(open, "circuit is open", "circuits are open")}`);
  headline.className = `headline ${open ? "bad" : overview.total ? "good" : ""}`;
  document.title = open ? `(${open} open) Circuits` : "Circuits";
  say($("namespace"), overview.namespace);
  if (!overview.store.shared) fact("fact-store", "none", "(in memory)");
  else fact("fact-store", overview.store.up ? `${Math.max(1, Math.round(overview.store.took_ms))}` : "away", overview.store.up ? "ms" : "");
  instances(overview.instances ?? {});
  fact("fact-calls", rate(flow.calls), "/ s");
  fact("fact-failures", rate(flow.failures), "/ s");
  $("rejected-box").hidden = flow.rejected === undefined;
  if (flow.rejected !== undefined) fact("fact-rejected", rate(flow.rejected), "/ s");
  chips(states);
  freshness();
}

function fact(id, value, unit) {
  const node = $(id);
  if (node.dataset.shown === value + unit) return;
  node.dataset.shown = value + unit;
  node.replaceChildren(value, element("span", "unit", ` ${unit}`));
}

function instances(known) {
  $("fact-instances").parentElement.hidden = known.alive === undefined;
  if (known.alive === undefined) return;
  const trouble = [];
  if (known.silent) trouble.push(`${known.silent} silent`);
  fact("fact-instances", `${known.alive}`, ["alive", ...trouble].join(", "));
}

function chips(states) {
  const box = $("states");
  if (!box.children.length) {
    for (const state of STATES) {
      const chip = element("button", `chip ${state}`);
      chip.type = "button";
      chip.append(mark(state), element("b"), element("span", "", WORDS[state]));
      chip.addEventListener("click", () => {
        if (!filter.states.delete(state)) filter.states.add(state);
        filtered();
      });
      box.append(chip);
    }
  }
  STATES.forEach((state, place) => {
    const chip = box.children[place];
    say(chip.children[1], states[state].toLocaleString("en-US").replaceAll(",", "\u202f"));
    chip.classList.toggle("none", states[state] === 0);
    chip.setAttribute("aria-pressed", filter.states.has(state));
  });
}

// ---- Drawing: the rows --------------------------------------------------------------------------------------------

const pool = [];
const space = element("div", "space");
space.setAttribute("role", "presentation");

const height = () => parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row"));

function visible() {
  const view = $("rows"), row = height();
  const first = Math.max(0, Math.floor(view.scrollTop / row));
  return [first, first + Math.ceil((view.clientHeight || 600) / row) + 1];
}

function makeRow() {
  const row = element("div", "row");
  row.setAttribute("role", "row");
  const cells = Array.from({ length: 5 }, () => { const cell = element("div"); cell.setAttribute("role", "gridcell"); return cell; });
  const badge = element("span", "badge");
  badge.append(mark(""), element("span"));
  cells[0].append(badge);
  cells[1].append(element("div", "name"), element("div", "sub"));
  cells[2].append(element("div"), element("div", "sub next"));
  cells[3].className = "rate";
  cells[3].append(spark(), element("b"));
  cells[4].className = "number";
  cells[4].append(element("div"), element("div", "sub"));
  row.append(...cells);
  row.addEventListener("click", () => { cursor = Number(row.dataset.place); select(row.dataset.name); });
  $("rows").append(row);
  return row;
}

let drawing = false;
/** Draws at the next frame, once, however often it is asked for. */
function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => { drawing = false; drawRows(); });
}

function drawRows() {
  const view = $("rows"), size = height();
  if (space.parentElement !== view) view.prepend(space);
  space.style.height = `${total * size}px`;
  const [first, last] = visible();
  const end = Math.min(total, last);
  const age = (performance.now() - readAt) / 1000;
  const stale = isStale();
  let missing = false;
  cursor = Math.min(Math.max(cursor, 0), Math.max(total - 1, 0));
  const reachable = cursor >= first && cursor < end ? cursor : first;
  let used = 0;
  for (let place = first; place < end; place++) {
    const node = pool[used] ?? (pool[used] = makeRow());
    used++;
    node.hidden = false;
    node.style.transform = `translateY(${place * size}px)`;
    node.dataset.place = place;
    node.setAttribute("aria-rowindex", place + 2);
    node.tabIndex = place === reachable ? 0 : -1;
    const row = rows.get(place);
    if (row) fill(node, row, age, stale); else { missing = true; blank(node); }
  }
  for (; used < pool.length; used++) pool[used].hidden = true;
  $("grid").setAttribute("aria-rowcount", total + 1);
  say($("found"), overview && total !== overview.total ? `${total.toLocaleString("en-US").replaceAll(",", "\u202f")} of ${count(overview.total, "circuit", "circuits")}` : count(total, "circuit", "circuits"));
  const empty = $("empty");
  empty.hidden = total > 0 || !readAt;
  say(empty, filter.search || filter.states.size ? "No circuit matches. Clear the search or the states." : "No circuit is known in this namespace yet. One appears with its first call.");
  if (missing) soon(60);
}

function blank(node) {
  node.className = "row";
  delete node.querySelector(".name").dataset.tags;
  node.dataset.name = "";
  for (const text of node.querySelectorAll(".name, .sub, .rate b, .badge span, .number div")) say(text, "");
  say(node.querySelector(".name"), "…");
}

function fill(node, row, age, stale) {
  const chosen = row.name === selected;
  const name = `row ${row.state}${turned.has(row.name) ? " turned" : ""}`;
  if (node.className !== name) node.className = name;
  node.dataset.name = row.name;
  node.setAttribute("aria-selected", chosen);
  const [state, circuit, since, failures, calls] = node.children;
  remark(state.firstChild.children[0], row.state);
  say(state.firstChild.children[1], WORDS[row.state] ?? row.state);
  state.firstChild.className = `badge ${row.state}`;
  const title = circuit.children[0];
  const tags = [row.local && "this instance only", row.drift && "settings differ"].filter(Boolean);
  if (title.dataset.tags !== `${row.name}\n${tags}`) {
    title.dataset.tags = `${row.name}\n${tags}`;
    title.replaceChildren(document.createTextNode(row.name), ...tags.map((tag) => element("span", "tag", tag)));
  }
  circuit.title = row.name;
  say(circuit.children[1], reason(row));
  const changed = row.last_state_change;
  say(since.children[0], changed === null ? (row.epoch ? "earlier" : "always") : span(Math.max(0, serverNow() - changed)));
  since.title = changed === null ? "" : new Date(changed * 1000).toLocaleString();
  say(since.children[1], stale ? (row.retry_after === null ? "" : "unknown") : nextStep(row, age));
  trend(failures.children[0], row);
  say(failures.children[1], stale ? "–" : percent(row.failure_rate));
  say(calls.children[0], stale ? "–" : `${rate(row.per_second.calls)} / s`);
  say(calls.children[1], stale || !row.per_second.rejected ? "" : `${rate(row.per_second.rejected)} rejected`);
}

// ---- Sparklines ---------------------------------------------------------------------------------------------------

function spark() {
  const svg = shape("svg", "spark");
  svg.setAttribute("viewBox", "0 0 100 30");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const base = shape("path", "base"); base.setAttribute("d", "M0 29H100");
  svg.append(base, shape("path", "area"), shape("path", "line"), shape("path", "limit"));
  return svg;
}
function trend(svg, row) {
  const points = row.trend ?? [];
  const key = `${row.name} ${row.failure_rate_limit ?? ""} ${points.join()}`;
  if (svg.dataset.key === key) return;
  svg.dataset.key = key;
  const step = 100 / 39, left = 100 - (points.length - 1) * step;
  let line = "", area = "", start = null;
  points.forEach((value, place) => {
    const x = (left + place * step).toFixed(1), y = (29 - 27 * (value ?? 0)).toFixed(1);
    if (value === null) {
      if (start !== null) area += `L${(left + (place - 1) * step).toFixed(1)} 29L${start} 29Z`;
      start = null;
      return;
    }
    line += `${start === null ? "M" : "L"}${x} ${y}`;
    area += `${start === null ? `M${x} 29L` : "L"}${x} ${y}`;
    start ??= x;
  });
  if (start !== null) area += `L100 29L${start} 29Z`;
  svg.children[1].setAttribute("d", area);
  svg.children[2].setAttribute("d", line);
  const limit = row.failure_rate_limit;
  svg.children[3].setAttribute("d", limit === undefined ? "" : `M0 ${(29 - 27 * limit).toFixed(1)}H100`);
}

// ---- Details ------------------------------------------------------------------------------------------------------

let detail = null;
let opener = null;

function select(name, focus = true) {
  if (!name) return;
  opener = document.activeElement;
  selected = name;
  detail = null;
  remember();
  draw();
  readDetail().then(() => { if (focus) $("detail").focus({ preventScroll: true }); });
}

function closeDetail() {
  if (selected === null) return;
  selected = null;
  detail = null;
  $("detail").hidden = true;
  remember();
  draw();
  (opener?.isConnected ? opener : $("rows")).focus({ preventScroll: true });
}

async function readDetail() {
  const name = selected;
  try {
    const response = await fetch(`breakers/${encodeURIComponent(name)}`, { headers: headers() });
    if (selected !== name) return;
    const answer = await response.json();
    if (selected !== name) return;
    if (response.ok) {
      detail = answer;
      detail.read = performance.now();
      const usual = Number(answer.instances.find((instance) => !instance.drift)?.settings.failure_rate_threshold);
      if (answer.failure_rate_limit === undefined && usual > 0) detail.failure_rate_limit = usual;
      drawDetail();
    }
    else { detail = null; drawProblem(name, answer.error); }
  } catch { /* the stream says that the monitor is away */ }
}

function head(name) {
  const header = element("header");
  const close = element("button", "quiet close", "✕");
  close.type = "button";
  close.setAttribute("aria-label", "Close the details");
  close.addEventListener("click", closeDetail);
  header.append(element("h2", "", name), close);
  return header;
}

function drawProblem(name, error) {
  const box = $("detail");
  box.hidden = false;
  box.replaceChildren(head(name), element("p", "lead muted", error));
}

let drawnDetail = "";
function drawDetail() {
  const box = $("detail"), row = detail, stale = isStale();
  const key = JSON.stringify([row.name, row.state, row.epoch, row.reason, row.actor, row.timeline.length, row.can_act, row.local, !!row.here, row.limit, row.instances, row.leader, !!row.window]);
  if (box.hidden || drawnDetail !== key || box.dataset.name !== row.name) {
    // Built anew only where its shape changes: focus stays where it is otherwise.
    const inside = box.contains(document.activeElement) ? document.activeElement.dataset.action ?? "close" : null;
    drawnDetail = key;
    box.dataset.name = row.name;
    buildDetail(box, row);
    box.hidden = false;
    if (inside) (box.querySelector(`[data-action="${inside}"]`) ?? box.querySelector(".close")).focus({ preventScroll: true });
  }
  const set = (id, text) => { const node = box.querySelector(`[data-figure="${id}"]`); if (node) say(node, text); };
  const age = (performance.now() - row.read) / 1000;
  const changed = row.last_state_change;
  set("since", changed === null ? (row.epoch ? "earlier" : "always") : span(Math.max(0, serverNow() - changed)));
  set("next", stale ? (row.retry_after === null ? "–" : "unknown") : nextStep(row, age) || "–");
  set("rate", stale ? "–" : percent(row.failure_rate));
  set("calls", stale ? "–" : `${rate(row.per_second.calls)} / s`);
  set("failures", `${row.failure_count}`);
  set("streak", `${row.consecutive_failures}`);
  set("rejected", stale || row.per_second.rejected === undefined ? "–" : `${rate(row.per_second.rejected)} / s`);
  set("probes", row.state === "half-open" ? `${row.probes}` : `${row.openings} times`);
  if (row.window) set("window", `${row.window.failures} of ${row.window.calls} calls failed (${percent(row.window.failure_rate)})`);
  trend(box.querySelector(".spark"), row);
}

function card(label, figure) {
  const box = element("div", "card");
  const value = element("dd");
  value.dataset.figure = figure;
  box.append(element("dt", "", label), value);
  return box;
}

function buildDetail(box, row) {
  const badge = element("span", `badge ${row.state}`);
  badge.append(mark(row.state), element("span", "", WORDS[row.state] ?? row.state));
  const lead = element("p", "lead");
  lead.append(badge, " ", element("span", "", row.reason || "No trouble has been reported."));
  if (row.actor) lead.append(element("span", "muted", ` — ${row.actor}`));
  if (row.local) lead.append(element("span", "tag", "this instance only"));
  const cards = element("dl", "cards");
  const manual = ["forced-open", "disabled", "metrics-only"].includes(row.state);
  cards.append(card(`${WORDS[row.state] ?? row.state} since`, "since"), card(manual ? "Override" : "Next probe", "next"),
    card("Failure rate", "rate"), card("Calls", "calls"), card("Failures in this state", "failures"), card("In a row", "streak"),
    card("Rejected", "rejected"), card(row.state === "half-open" ? "Probes under way" : "Opened in a row", "probes"));
  const chart = element("div", "wide-spark");
  chart.append(spark());
  const parts = [head(row.name), lead, cards, element("h3", "", "Failure rate, latest readings"), chart];
  if (row.window) {
    const window = element("p", "muted");
    window.dataset.figure = "window";
    parts.push(window);
  }
  if (row.limit) parts.push(element("p", "muted", `Trips at ${row.limit}`));
  if (row.can_act) {
    const actions = element("div", "actions");
    for (const [action, about] of Object.entries(ACTIONS)) {
      if (about.needs === "manual" && !manual) continue;
      const button = element("button", "quiet", `${about.title} …`);
      button.type = "button";
      button.dataset.action = action;
      button.addEventListener("click", () => ask(action, row.name));
      actions.append(button);
    }
    parts.push(element("h3", "", "Steer"), actions);
  } else {
    parts.push(element("h3", "", "Steer"), element("p", "muted", "This monitor is read-only. Started with a token, it can force open, disable, release and reset."));
  }
  parts.push(element("h3", "", "Timeline"));
  if (row.timeline.length) {
    const list = element("ol", "timeline");
    for (const event of row.timeline) list.append(change(event, false));
    parts.push(list);
  } else {
    parts.push(element("p", "muted", "No change has been seen yet."));
  }
  if (row.here) {
    const table = element("table", "table");
    table.append(element("caption", "hidden", "Settings, and where each comes from"));
    const body = element("tbody");
    for (const setting of row.here.settings.filter((setting) => setting.value !== "off")) {
      const line = element("tr");
      const name = element("th", "", setting.name);
      name.scope = "row";
      line.append(name, element("td", "", setting.value), element("td", "", setting.origin.replace("-", " ")));
      body.append(line);
    }
    table.append(body);
    parts.push(element("h3", "", "Settings of this instance"), table);
  }
  if (row.instances.length) parts.push(element("h3", "", "What instances judge by"), judges(row.instances));
  if (row.leader) parts.push(element("p", "muted", `Health checks are made by ${row.leader}.`));
  box.replaceChildren(...parts);
}

/** Settings by instance; those that are the same stand once. */
function judges(instances) {
  const groups = new Map();
  for (const { node, settings, drift } of instances) {
    const text = Object.entries(settings).map(([name, value]) => `${name} ${value}`).join(", ") || "the built-in settings";
    const group = groups.get(text) ?? { nodes: [], drift };
    group.nodes.push(node);
    groups.set(text, group);
  }
  const table = element("table", "table");
  const body = element("tbody");
  for (const [text, { nodes, drift }] of groups) {
    const line = element("tr");
    const names = element("th", "", `${nodes.length} × `);
    names.scope = "row";
    names.title = nodes.join(", ");
    const what = element("td", "", text);
    if (drift) what.append(element("span", "tag", "differs"));
    line.append(names, what);
    body.append(line);
  }
  table.append(body);
  return table;
}

// ---- Acting -------------------------------------------------------------------------------------------------------

let order = null;

function ask(action, name) {
  const about = ACTIONS[action];
  order = { action, name };
  say($("order-title"), `${about.title}: ${name}`);
  say($("order-what"), about.text);
  const calls = detail ? `${rate(detail.per_second.calls)} calls a second` : "its calls";
  const fleet = overview?.instances?.alive;
  say($("order-radius"), `This concerns ${fleet === undefined ? "every instance of the fleet" : count(fleet, "instance", "instances")}, and ${calls} at the moment.`);
  $("order-for-box").hidden = !about.expires;
  $("order-reason").value = "";
  $("order-actor").value = localStorage.getItem("circuits-actor") ?? "";
  $("order-token").value = token;
  $("order-token").parentElement.hidden = token !== "";
  $("order-error").hidden = true;
  const go = $("order-go");
  say(go, about.title);
  go.className = about.danger ? "danger" : "";
  go.disabled = false;
  $("order").showModal();
  $("order-reason").focus();
}

function refuse(message, field) {
  const error = $("order-error");
  say(error, message);
  error.hidden = false;
  field?.focus();
}

async function submit(event) {
  event.preventDefault();
  const reason = $("order-reason").value.trim();
  const actor = $("order-actor").value.trim();
  const given = $("order-token").value.trim();
  if (!reason) return refuse("Say why, for those who read it at night.", $("order-reason"));
  if (!given) { $("order-token").parentElement.hidden = false; return refuse("Acting needs the token of this monitor.", $("order-token")); }
  const body = { reason, actor };
  if (ACTIONS[order.action].expires && $("order-for").value) body.for = $("order-for").value;
  $("order-go").disabled = true;
  try {
    const response = await fetch(`breakers/${encodeURIComponent(order.name)}/${order.action}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", Authorization: `Bearer ${given}` },
      body: JSON.stringify(body),
    });
    const answer = await response.json();
    if (!response.ok) {
      if (response.status === 401) { keep(""); $("order-token").parentElement.hidden = false; }
      refuse(answer.error, response.status === 401 ? $("order-token") : undefined);
      return;
    }
    keep(given);
    localStorage.setItem("circuits-actor", actor);
    $("order").close();
    soon(0);
  } catch {
    refuse("The monitor does not answer. Look at the circuit before you try again: the order may have arrived.");
  } finally {
    $("order-go").disabled = false;
  }
}

function keep(value) {
  token = value;
  if (value) sessionStorage.setItem("circuits-token", value); else sessionStorage.removeItem("circuits-token");
  say($("key"), value ? "Token ✓" : "Token");
}

let toldToken = false;
function needToken() {
  if (toldToken || $("token").open) return;
  toldToken = true;
  say($("headline"), "This monitor shows its figures to those who have its token");
  $("token").showModal();
}

// ---- What the reader does -----------------------------------------------------------------------------------------

function filtered() {
  cursor = 0;
  $("rows").scrollTop = 0;
  rows.clear();
  if (overview) chips(overview.states);
  remember();
  draw();
  soon(0);
}

/** What is looked at is in the address, so that it can be sent to someone. */
function remember() {
  const part = new URLSearchParams();
  if (filter.search) part.set("search", filter.search);
  if (filter.states.size) part.set("state", [...filter.states].join(","));
  if (filter.sort !== "worst") part.set("sort", filter.sort);
  if (selected !== null) part.set("breaker", selected);
  history.replaceState(null, "", `#${part}`);
}

function recall() {
  const part = new URLSearchParams(location.hash.slice(1));
  filter.search = part.get("search") ?? "";
  filter.states = new Set((part.get("state") ?? "").split(",").filter((state) => STATES.includes(state)));
  if ([...$("sort").options].some((option) => option.value === part.get("sort"))) filter.sort = part.get("sort");
  $("search").value = filter.search;
  $("sort").value = filter.sort;
  if (part.get("breaker")) select(part.get("breaker"), false);
}

function move(place) {
  cursor = Math.min(Math.max(place, 0), Math.max(total - 1, 0));
  const view = $("rows"), size = height();
  if (cursor * size < view.scrollTop) view.scrollTop = cursor * size;
  if ((cursor + 1) * size > view.scrollTop + view.clientHeight) view.scrollTop = (cursor + 1) * size - view.clientHeight;
  drawRows();
  pool.find((row) => !row.hidden && Number(row.dataset.place) === cursor)?.focus({ preventScroll: true });
}

function onKey(event) {
  const writing = event.target.matches("input, select, textarea");
  if (document.querySelector("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && !writing) { event.preventDefault(); $("search").focus(); $("search").select(); return; }
  if (event.key === "Escape") {
    if (event.target === $("search") && filter.search) { $("search").value = ""; filter.search = ""; filtered(); }
    else closeDetail();
    return;
  }
  if (event.key === "ArrowDown" && event.target === $("search")) { event.preventDefault(); move(cursor); return; }
  if (!event.target.closest("#rows")) return;
  const page = Math.max(1, visible()[1] - visible()[0] - 2);
  const steps = { ArrowDown: cursor + 1, ArrowUp: cursor - 1, PageDown: cursor + page, PageUp: cursor - page, Home: 0, End: total - 1 };
  if (event.key in steps) { event.preventDefault(); move(steps[event.key]); }
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    const row = rows.get(cursor);
    if (row) select(row.name);
  }
}

let typing = 0;
$("search").addEventListener("input", (event) => {
  filter.search = event.target.value.trim();
  clearTimeout(typing);
  typing = setTimeout(filtered, 120);
});
$("sort").addEventListener("change", (event) => { filter.sort = event.target.value; filtered(); });
$("rows").addEventListener("scroll", draw, { passive: true });
$("rows").addEventListener("focus", () => move(cursor));
$("key").addEventListener("click", () => { $("token-value").value = token; $("token").showModal(); });
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keep($("token-value").value.trim());
  $("token").close();
  toldToken = false;
  wait = 500;
  if (!streaming) stream();
  soon(0);
});
$("token-forget").addEventListener("click", () => { keep(""); $("token").close(); });
$("order-form").addEventListener("submit", submit);
$("order-cancel").addEventListener("click", () => $("order").close());
document.addEventListener("keydown", onKey);
addEventListener("resize", () => { draw(); soon(); });
// Nobody looks: the stream ends, and with it all that this page costs.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) { streaming?.abort(); } else if (!streaming) { wait = 500; stream(); }
});

keep(token);
chips(Object.fromEntries(STATES.map((state) => [state, 0])));
recall();
readRows();
stream();
setInterval(() => { freshness(); draw(); if (detail) drawDetail(); }, 500);
