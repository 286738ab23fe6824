// The stream of server-sent events. It is read by fetch, because an EventSource cannot send a token.

import { headers, known } from "./known.js";
import { emit } from "./signals.js";
import { needToken } from "./token.js";

const SHORTEST_WAIT = 500, LONGEST_WAIT = 8000;

let reading = null;
let lastId = "";
let wait = SHORTEST_WAIT;

async function read() {
  const stop = new AbortController();
  reading = stop;
  try {
    const more = lastId ? { "Last-Event-ID": lastId } : {};
    const response = await fetch("events?overview=true", { headers: headers(more), signal: stop.signal });
    if (response.status === 401) { needToken(); throw new Error("a token is needed"); }
    if (!response.ok) throw new Error(await response.text());
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let buffer = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      wait = SHORTEST_WAIT;
      buffer += value;
      let end;
      while ((end = buffer.indexOf("\n\n")) >= 0) {
        receive(buffer.slice(0, end));
        buffer = buffer.slice(end + 2);
      }
    }
  } catch { /* tried again below */ }
  if (reading !== stop) return;
  reading = null;
  emit("disconnected");
  if (document.hidden) return;
  // Jitter, so that pages that lost the same monitor do not reconnect at the same moment.
  setTimeout(() => { if (!reading) read(); }, wait * (0.7 + 0.6 * Math.random()));
  wait = Math.min(wait * 1.6, LONGEST_WAIT);
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
    known.overview = event;
    known.heard = performance.now();
    known.offset = event.now - Date.now() / 1000;
    emit("overview");
  } else if (kind === "hello" || kind === "gap") {
    emit(kind);
  } else {
    emit("change", event);
  }
}

/** Connects at once, unless the stream is connected. */
export function stream() {
  wait = SHORTEST_WAIT;
  if (!reading) read();
}

// A hidden page closes its stream, and then costs nothing.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) reading?.abort(); else stream();
});
