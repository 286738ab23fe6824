// The entry point of the page: starts it, and handles the user's input.

import { closeDetail, drawDetail, select } from "./detail.js";
import { $ } from "./dom.js";
import { known } from "./known.js";
import { chips, freshness } from "./overview.js";
import { draw, move, pageSize, readRows, soon } from "./rows.js";
import { stream } from "./stream.js";
import { keep } from "./token.js";
import { STATES } from "./words.js";

/** The interval, in milliseconds, at which countdowns are redrawn. */
const TICK = 500;
/** The pause in typing, in milliseconds, after which the search starts. */
const TYPING = 120;

/** Applies a changed filter. */
export function filtered() {
  known.cursor = 0;
  $("rows").scrollTop = 0;
  known.rows.clear();
  if (known.overview) chips(known.overview.states);
  remember();
  draw();
  soon(0);
}

/** Puts the filter and the selection into the address, so that it can be shared. */
export function remember() {
  const { filter, selected } = known;
  const part = new URLSearchParams();
  if (filter.search) part.set("search", filter.search);
  if (filter.states.size) part.set("state", [...filter.states].join(","));
  if (filter.sort !== "worst") part.set("sort", filter.sort);
  if (selected !== null) part.set("breaker", selected);
  history.replaceState(null, "", `#${part}`);
}

function recall() {
  const { filter } = known;
  const part = new URLSearchParams(location.hash.slice(1));
  filter.search = part.get("search") ?? "";
  filter.states = new Set((part.get("state") ?? "").split(",").filter((state) => STATES.includes(state)));
  if ([...$("sort").options].some((option) => option.value === part.get("sort"))) filter.sort = part.get("sort");
  $("search").value = filter.search;
  $("sort").value = filter.sort;
  if (part.get("breaker")) select(part.get("breaker"), false);
}

function onKey(event) {
  const writing = event.target.matches("input, select, textarea");
  if (document.querySelector("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && !writing) { event.preventDefault(); $("search").focus(); $("search").select(); return; }
  if (event.key === "Escape") {
    if (event.target === $("search") && known.filter.search) { $("search").value = ""; known.filter.search = ""; filtered(); }
    else closeDetail();
    return;
  }
  const { cursor } = known;
  if (event.key === "ArrowDown" && event.target === $("search")) { event.preventDefault(); move(cursor); return; }
  if (!event.target.closest("#rows")) return;
  const steps = {
    ArrowDown: cursor + 1, ArrowUp: cursor - 1, PageDown: cursor + pageSize(), PageUp: cursor - pageSize(),
    Home: 0, End: known.total - 1,
  };
  if (event.key in steps) { event.preventDefault(); move(steps[event.key]); }
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    const row = known.rows.get(cursor);
    if (row) select(row.name);
  }
}

let typing = 0;
$("search").addEventListener("input", (event) => {
  known.filter.search = event.target.value.trim();
  clearTimeout(typing);
  typing = setTimeout(filtered, TYPING);
});
$("sort").addEventListener("change", (event) => { known.filter.sort = event.target.value; filtered(); });
$("rows").addEventListener("scroll", draw, { passive: true });
$("rows").addEventListener("focus", () => move(known.cursor));
document.addEventListener("keydown", onKey);
addEventListener("resize", () => { draw(); soon(); });

keep(known.token);
chips(Object.fromEntries(STATES.map((state) => [state, 0])));
recall();
readRows();
stream();
setInterval(() => { freshness(); draw(); if (known.detail) drawDetail(); }, TICK);
