// The entry point of the page. It alone knows what is read and drawn, and in which order, after a signal: the other
// modules draw only their own part.

import { recall, remember } from "./address.js";
import { drawDetail, hideDetail, readDetail, showDetail } from "./detail.js";
import { $ } from "./dom.js";
import { drawFields, sorts } from "./input.js";
import { known } from "./known.js";
import { chips, drawOverview, freshness, readInstances } from "./overview.js";
import { draw, readRows } from "./rows.js";
import { on } from "./signals.js";
import { stream } from "./stream.js";
import { happened, readChanges } from "./timeline.js";
import { keep } from "./token.js";
import { STATES } from "./words.js";

/** The interval, in milliseconds, at which countdowns are redrawn. */
const TICK = 500;

let wanted = 0;     // the timer of the next request

/** Requests the figures in view soon, so that several causes lead to one request. */
function refresh(delay = 40) {
  if (wanted) return;
  wanted = setTimeout(() => {
    wanted = 0;
    readRows();
    if (known.selected !== null) readDetail();
  }, delay);
}

function select(name, focus = true) {
  if (!name) return;
  known.selected = name;
  known.detail = null;
  remember();
  draw();
  showDetail(focus);
}

function close() {
  if (known.selected === null) return;
  known.selected = known.detail = null;
  remember();
  draw();
  hideDetail();
}

on("select", (name) => select(name));
on("close", close);
on("filter", () => {
  known.cursor = 0;
  $("rows").scrollTop = 0;
  known.rows.clear();
  if (known.overview) chips(known.overview.states);
  remember();
  draw();
  refresh(0);
});
on("refresh", (delay) => refresh(delay ?? undefined));
on("instances", readChanges);
on("authorized", () => { stream(); refresh(0); });
on("overview", () => {
  drawOverview();
  freshness();
  readInstances();
  refresh(0);
});
on("hello", () => { refresh(0); readChanges(); });
on("gap", () => refresh(0));
on("change", (event) => { if (happened(event)) refresh(); });
on("disconnected", freshness);

keep(known.token);
chips(Object.fromEntries(STATES.map((state) => [state, 0])));
const shared = recall(sorts());
drawFields();
select(shared, false);
readRows();
stream();
setInterval(() => { freshness(); draw(); if (known.detail) drawDetail(); }, TICK);
