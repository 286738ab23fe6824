// The user's input: the search, the order, and the keyboard.

import { $ } from "./dom.js";
import { known } from "./known.js";
import { draw, move, pageSize } from "./rows.js";
import { emit } from "./signals.js";

/** The pause in typing, in milliseconds, after which the search starts. */
const TYPING = 120;

/** The orders among which the user can choose. */
export const sorts = () => [...$("sort").options].map((option) => option.value);

/** Shows the filter in the fields. */
export function drawFields() {
  $("search").value = known.filter.search;
  $("sort").value = known.filter.sort;
}

function onKey(event) {
  const writing = event.target.matches("input, select, textarea");
  if (document.querySelector("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && !writing) { event.preventDefault(); $("search").focus(); $("search").select(); return; }
  if (event.key === "Escape") {
    if (event.target === $("search") && known.filter.search) { $("search").value = ""; known.filter.search = ""; emit("filter"); }
    else emit("close");
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
    if (row) emit("select", row.name);
  }
}

let typing = 0;
$("search").addEventListener("input", (event) => {
  known.filter.search = event.target.value.trim();
  clearTimeout(typing);
  typing = setTimeout(() => emit("filter"), TYPING);
});
$("sort").addEventListener("change", (event) => { known.filter.sort = event.target.value; emit("filter"); });
$("rows").addEventListener("scroll", draw, { passive: true });
$("rows").addEventListener("focus", () => move(known.cursor));
document.addEventListener("keydown", onKey);
addEventListener("resize", () => { draw(); emit("refresh"); });
