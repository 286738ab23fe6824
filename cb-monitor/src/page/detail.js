// The details of one circuit: reason, figures, limits, settings, timeline, and the actions.

import { ask } from "./action.js";
import { $, element, mark, say } from "./dom.js";
import { headers, isStale, known, nodeOf, serverNow } from "./known.js";
import { emit } from "./signals.js";
import { spark, trend } from "./spark.js";
import { change } from "./timeline.js";
import { ACTIONS, MANUAL, WORDS, clock, count, nextStep, number, percent, rate, sinceOf, span } from "./words.js";

/** More probes than this are shown as a number instead of dots. */
const MAX_DOTS = 12;

let opener = null;      // the element that had the focus before the details
let drawn = "";

/** Reads and shows the selected circuit. */
export function showDetail(focus) {
  opener = document.activeElement;
  readDetail().then(() => { if (focus) $("detail").focus({ preventScroll: true }); });
}

export function hideDetail() {
  $("detail").hidden = true;
  (opener?.isConnected ? opener : $("rows")).focus({ preventScroll: true });
}

export async function readDetail() {
  const name = known.selected;
  try {
    const response = await fetch(`breakers/${encodeURIComponent(name)}`, { headers: headers() });
    if (known.selected !== name) return;
    const answer = await response.json();
    if (known.selected !== name) return;
    known.detail = response.ok ? answer : null;
    if (response.ok) {
      answer.read = performance.now();
      drawDetail();
    } else {
      drawProblem(name, answer.error);
    }
  } catch { /* the stream shows that the monitor does not answer */ }
}

function head(name) {
  const header = element("header");
  const close = element("button", "quiet close", "✕");
  close.type = "button";
  close.setAttribute("aria-label", "Close the details");
  close.addEventListener("click", () => emit("close"));
  header.append(element("h2", "", name), close);
  return header;
}

function drawProblem(name, error) {
  const box = $("detail");
  box.hidden = false;
  box.replaceChildren(head(name), element("p", "lead muted", error));
}

export function drawDetail() {
  const box = $("detail"), row = known.detail;
  const shape = [row.name, row.state, row.epoch, row.reason, row.actor, row.timeline.length, row.can_act, row.local,
    row.limits, row.instances, row.leader, row.isolated, !!row.window, row.would_have_opened > 0, row.openings > 0];
  const key = JSON.stringify(shape);
  if (box.hidden || drawn !== key || box.dataset.name !== row.name) {
    // Rebuilt only if its structure changes, so that the focus stays.
    const inside = box.contains(document.activeElement) ? document.activeElement.dataset.action ?? "close" : null;
    drawn = key;
    box.dataset.name = row.name;
    build(box, row);
    box.hidden = false;
    if (inside) (box.querySelector(`[data-action="${inside}"]`) ?? box.querySelector(".close")).focus({ preventScroll: true });
  }
  figures(box, row, isStale());
}

function figures(box, row, stale) {
  const set = (id, text) => { const node = box.querySelector(`[data-figure="${id}"]`); if (node) say(node, text); };
  const age = (performance.now() - row.read) / 1000;
  const perSecond = (value) => (stale || value === undefined ? "–" : `${rate(value)} / s`);
  set("since", sinceOf(row, serverNow()));
  set("next", stale ? (row.retry_after === null ? "–" : "unknown") : nextStep(row, age) || "–");
  set("rate", stale ? "–" : percent(row.failure_rate));
  set("calls", perSecond(row.per_second.calls));
  set("failures", number(row.failure_count));
  set("streak", number(row.consecutive_failures));
  for (const name of ["rejected", "cached", "fallback"]) set(name, perSecond(row.per_second[name]));
  set("openings", count(row.openings, "time", "times"));
  if (row.state === "half-open") probes(box.querySelector('[data-figure="probes"]'), row);
  if (row.would_have_opened > 0) {
    const last = row.would_have_opened_at;
    const when = last === null ? "" : `, last at ${clock(last)} (${span(Math.max(0, serverNow() - last))} ago)`;
    set("would-have-opened", `${count(row.would_have_opened, "time", "times")}${when}`);
  }
  if (row.window) meter(box.querySelector(".meter"), row);
  trend(box.querySelector(".spark"), row);
}

/** The probes under way as full dots, free slots as empty ones. */
function probes(node, row) {
  const slots = row.limits?.probes ?? row.probes;
  say(node, slots > MAX_DOTS ? `${row.probes} of ${slots}` : `${"●".repeat(Math.min(row.probes, slots))}${"○".repeat(Math.max(0, slots - row.probes))} ${row.probes} of ${slots}`);
}

/** The window's failure rate against the limit. */
function meter(node, row) {
  const { failures, calls, failure_rate: share } = row.window, limit = row.limits?.failure_rate;
  const [bar, text] = node.children;
  bar.children[0].style.width = `${100 * share}%`;
  bar.children[1].hidden = !limit;
  if (limit) bar.children[1].style.left = `${100 * limit}%`;
  node.classList.toggle("near", Boolean(limit) && share >= limit / 2);
  say(text, `${number(failures)} of ${number(calls)} calls failed (${percent(share)})`);
}

function card(label, figure) {
  const box = element("div", "card");
  const value = element("dd");
  value.dataset.figure = figure;
  box.append(element("dt", "", label), value);
  return box;
}

function build(box, row) {
  const manual = MANUAL.includes(row.state), word = WORDS[row.state] ?? row.state;
  const badge = element("span", `badge ${row.state}`);
  badge.append(mark(row.state), element("span", "", word));
  const lead = element("p", "lead");
  lead.append(badge, " ", element("span", "", row.reason || (row.failure_rate > 0 ? "Some calls fail." : "No calls fail at the moment.")));
  if (row.actor) lead.append(element("span", "muted", ` — ${row.actor}`));
  if (row.local) lead.append(element("span", "tag", "this instance only"));
  const cards = element("dl", "cards");
  cards.append(card(`${word[0].toUpperCase()}${word.slice(1)} since`, "since"), card(manual ? "Override" : "Next probe", "next"),
    card("Failure rate", "rate"), card("Calls", "calls"), card("Failures in this state", "failures"), card("Failures in a row", "streak"),
    card("Rejected", "rejected"), card("Answered from cache", "cached"));
  if (row.per_second.fallback !== undefined) cards.append(card("Answered by fallback", "fallback"));
  if (row.state === "half-open") cards.append(card("Probes under way", "probes"));
  else if (row.openings > 0) cards.append(card("Opened in a row", "openings"));
  if (row.would_have_opened > 0) {
    const would = card("Would have opened", "would-have-opened");
    would.classList.add("wide", "metrics-only");
    cards.append(would);
  }
  const chart = element("div", "wide-spark");
  chart.append(spark());
  const parts = [head(row.name), lead, cards, element("h3", "", "Failure rate, latest readings"), chart];
  if (row.window) {
    const box = element("div", "meter"), bar = element("div", "bar");
    bar.append(element("span", "share"), element("span", "limit"));
    box.append(bar, element("p", "muted"));
    parts.push(element("h3", "", "Window"), box);
  }
  if (row.limits?.text) parts.push(element("p", "muted", `Opens at ${row.limits.text}.`));
  if (row.isolated.length) {
    parts.push(element("p", "note", `Open locally only, because other instances see no failures: ${row.isolated.join(", ")}.`));
  }
  parts.push(element("h3", "", "Actions"), row.can_act ? actions(row, manual)
    : element("p", "muted", "This monitor is read-only. If it is started with a token, you can force open, disable, release and reset here."));
  parts.push(element("h3", "", "Timeline"));
  if (row.timeline.length) {
    const list = element("ol", "timeline");
    for (const event of row.timeline) list.append(change(event, false));
    parts.push(list);
  } else {
    parts.push(element("p", "muted", "No changes yet."));
  }
  parts.push(...settings(row));
  if (row.leader) parts.push(element("p", "muted", `${nodeOf(row.leader)} runs the health checks.`));
  box.replaceChildren(...parts);
}

function actions(row, manual) {
  const box = element("div", "actions");
  for (const [action, about] of Object.entries(ACTIONS)) {
    if (about.manual && !manual) continue;
    const button = element("button", "quiet", `${about.title} …`);
    button.type = "button";
    button.dataset.action = action;
    button.addEventListener("click", () => ask(action, row));
    box.append(button);
  }
  return box;
}

/** Settings with their origins, and the instances whose settings differ. */
function settings(row) {
  const parts = [];
  const usual = row.instances.find((instance) => !instance.drift);
  const here = row.here?.settings.filter((setting) => setting.value !== "off");
  const shown = here ?? Object.entries(usual?.settings ?? {}).filter(([, value]) => value !== "off")
    .map(([name, value]) => ({ name, value, origin: usual.origins[name] ?? "" }));
  if (!here && !usual) return parts;
  parts.push(element("h3", "", here ? "Settings of this instance" : "Settings"));
  if (shown.length) parts.push(table(shown.map(({ name, value, origin }) => [name, value, origin.replace("-", " ")]), "Settings and their origins"));
  const differ = row.instances.filter((instance) => instance.drift);
  const same = row.instances.length - differ.length;
  if (row.instances.length) {
    const rest = here ? "" : shown.length ? " All other settings have their default." : " All settings have their default.";
    parts.push(element("p", "muted", differ.length ? `${same} of ${count(row.instances.length, "instance", "instances")} have these settings.${rest}` : `${count(same, "instance has", "instances have")} these settings.${rest}`));
  }
  for (const { node, instance, settings: own } of differ) {
    const note = element("p", "note", `${node} differs: `);
    const names = new Set([...Object.keys(own), ...Object.keys(usual?.settings ?? {})]);
    const odd = [...names].filter((name) => own[name] !== usual?.settings[name]);
    note.append(element("b", "", odd.map((name) => `${name} ${own[name] ?? "default"}`).join(", ")));
    note.title = instance;
    parts.push(note);
  }
  return parts;
}

function table(lines, caption) {
  const table = element("table", "table"), body = element("tbody");
  for (const [name, ...cells] of lines) {
    const line = element("tr"), title = element("th", "", name);
    title.scope = "row";
    line.append(title, ...cells.map((cell) => element("td", "", cell)));
    body.append(line);
  }
  table.append(element("caption", "hidden", caption), body);
  return table;
}
