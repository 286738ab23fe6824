// The list. The document contains only the rows in view, so ten thousand breakers cost no more than ten.

import { $, element, mark, remark, say } from "./dom.js";
import { headers, isStale, known, serverNow } from "./known.js";
import { emit } from "./signals.js";
import { spark, trend } from "./spark.js";
import { needToken } from "./token.js";
import { WORDS, count, instead, nextStep, number, percent, rate, reason, sinceOf } from "./words.js";

/** The number of rows requested above and below those in view. */
const OVERSCAN = 12;

const pool = [];
const space = element("div", "space");
space.setAttribute("role", "presentation");
let asked = 0;      // the number of the latest request; answers to earlier ones are dropped
let drawing = false;

const height = () => parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row"));

function visible() {
  const view = $("rows"), row = height();
  const first = Math.max(0, Math.floor(view.scrollTop / row));
  return [first, first + Math.ceil((view.clientHeight || 600) / row) + 1];
}

export function query(offset, limit) {
  const { filter } = known;
  const asked = new URLSearchParams({ offset, limit, sort: filter.sort, trend: "true" });
  if (filter.search) asked.set("search", filter.search);
  if (filter.states.size) asked.set("state", [...filter.states].join(","));
  return `stats?${asked}`;
}

export async function readRows() {
  const [first, last] = visible();
  const offset = Math.max(0, first - OVERSCAN);
  const mine = ++asked;
  try {
    const response = await fetch(query(offset, last - first + 2 * OVERSCAN), { headers: headers() });
    if (response.status === 401) return needToken();
    if (!response.ok || mine !== asked) return;
    const list = await response.json();
    if (mine !== asked) return;
    const before = known.total;
    known.total = Number(response.headers.get("x-total-count"));
    known.rows.clear();
    list.forEach((row, place) => known.rows.set(offset + place, row));
    known.readAt = performance.now();
    // With fewer rows than before, the view may be beyond the end.
    if (known.total < before && first >= known.total) $("rows").scrollTop = 0;
    draw();
  } catch { /* the stream shows that the monitor does not answer */ }
}

/** Draws once at the next frame, however often it is called before. */
export function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => { drawing = false; drawRows(); });
}

function drawRows() {
  const { rows, total, overview, filter } = known;
  const view = $("rows"), size = height();
  if (space.parentElement !== view) view.prepend(space);
  space.style.height = `${total * size}px`;
  const [first, last] = visible();
  const end = Math.min(total, last);
  const age = (performance.now() - known.readAt) / 1000;
  const stale = isStale();
  let missing = false;
  known.cursor = Math.min(Math.max(known.cursor, 0), Math.max(total - 1, 0));
  const reachable = known.cursor >= first && known.cursor < end ? known.cursor : first;
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
  const all = overview?.total ?? total;
  say($("found"), total === all ? count(total, "circuit", "circuits") : `${number(total)} of ${count(all, "circuit", "circuits")}`);
  const empty = $("empty");
  empty.hidden = total > 0 || !known.readAt;
  say(empty, filter.search || filter.states.size ? "No circuit matches. Clear the search or the states." : "This namespace has no circuits yet. A circuit appears with its first call.");
  if (missing) emit("refresh", 60);
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
  row.addEventListener("click", () => { known.cursor = Number(row.dataset.place); emit("select", row.dataset.name); });
  $("rows").append(row);
  return row;
}

function blank(node) {
  node.className = "row";
  delete node.querySelector(".name").dataset.tags;
  node.dataset.name = "";
  for (const text of node.querySelectorAll(".name, .sub, .rate b, .badge span, .number div")) say(text, "");
  say(node.querySelector(".name"), "…");
}

function tagsOf(row) {
  const alone = row.isolated.length;
  return [
    row.local && "this instance only",
    alone > 0 && `open on ${count(alone, "instance", "instances")} only`,
    row.drift && "settings differ",
    row.would_have_opened > 0 && `would have opened ${number(row.would_have_opened)}×`,
  ].filter(Boolean);
}

function fill(node, row, age, stale) {
  const name = `row ${row.state}${known.turned.has(row.name) ? " turned" : ""}`;
  if (node.className !== name) node.className = name;
  node.dataset.name = row.name;
  node.setAttribute("aria-selected", row.name === known.selected);
  const [state, circuit, since, failures, calls] = node.children;
  remark(state.firstChild.children[0], row.state);
  say(state.firstChild.children[1], WORDS[row.state] ?? row.state);
  state.firstChild.className = `badge ${row.state}`;
  const title = circuit.children[0], tags = tagsOf(row);
  if (title.dataset.tags !== `${row.name}\n${tags}`) {
    title.dataset.tags = `${row.name}\n${tags}`;
    title.replaceChildren(document.createTextNode(row.name), ...tags.map((tag) => element("span", "tag", tag)));
  }
  circuit.title = row.name;
  say(circuit.children[1], reason(row));
  say(since.children[0], sinceOf(row, serverNow()));
  const changed = row.last_state_change;
  since.title = changed === null ? "" : new Date(changed * 1000).toLocaleString();
  say(since.children[1], stale ? (row.retry_after === null ? "" : "unknown") : nextStep(row, age));
  trend(failures.children[0], row);
  say(failures.children[1], stale ? "–" : percent(row.failure_rate));
  say(calls.children[0], stale ? "–" : `${rate(row.per_second.calls)} / s`);
  say(calls.children[1], stale ? "" : instead(row.per_second));
}

/** Moves the focus to another row. */
export function move(place) {
  known.cursor = Math.min(Math.max(place, 0), Math.max(known.total - 1, 0));
  const view = $("rows"), size = height(), top = known.cursor * size;
  if (top < view.scrollTop) view.scrollTop = top;
  if (top + size > view.scrollTop + view.clientHeight) view.scrollTop = top + size - view.clientHeight;
  drawRows();
  pool.find((row) => !row.hidden && Number(row.dataset.place) === known.cursor)?.focus({ preventScroll: true });
}

/** The number of rows that Page Up and Page Down move. */
export const pageSize = () => Math.max(1, visible()[1] - visible()[0] - 2);
