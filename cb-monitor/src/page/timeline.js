// Changes: the latest of the fleet, and a circuit's own.

import { $, element, say } from "./dom.js";
import { headers, known, nodeOf } from "./known.js";
import { emit } from "./signals.js";
import { WORDS, clock } from "./words.js";

const SHOWN = 60;
/** How long a row that has just changed is marked, in milliseconds. */
const TURNED = 1600;

/** Reads the changes from before this page was opened, or while it was not connected. */
export async function readChanges() {
  try {
    const response = await fetch(`history?limit=${SHOWN}`, { headers: headers() });
    if (!response.ok) return;
    const shown = await response.json();
    $("changes").replaceChildren(...shown.map((event) => change(event, true)));
    $("no-changes").hidden = shown.length > 0;
  } catch { /* the stream shows that the monitor does not answer */ }
}

/** Shows an event of the stream. Returns whether a circuit has changed its state. */
export function happened(event) {
  const turned = event.event === "transition" || event.event === "local-transition";
  if (turned) {
    known.turned.add(event.breaker);
    setTimeout(() => known.turned.delete(event.breaker), TURNED);
    say($("announce"), `${event.breaker} is ${WORDS[event.to] ?? event.to}${event.reason ? `: ${event.reason}` : ""}`);
  }
  $("no-changes").hidden = true;
  const list = $("changes");
  list.prepend(change(event, true));
  while (list.children.length > SHOWN) list.lastChild.remove();
  return turned;
}

/** One line of a timeline. */
export function change(event, withName) {
  const item = element("li", event.to ?? "");
  const what = element("div", "what");
  if (withName && event.breaker !== undefined) {
    const name = element("button", "", event.breaker);
    name.type = "button";
    name.addEventListener("click", () => emit("select", event.breaker));
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
  const when = element("div", "when");
  const time = element("time", "", clock(event.at));
  time.dateTime = new Date(event.at * 1000).toISOString();
  time.title = new Date(event.at * 1000).toLocaleString();
  when.append(time);
  const who = element("span", "", event.actor ? `by ${event.actor}` : event.originator ? `by ${nodeOf(event.originator)}` : "");
  if (event.originator) who.title = event.originator;
  if (who.textContent) when.append(" ", who);
  item.append(what, element("div", "why", event.reason || event.error || ""), when);
  return item;
}
