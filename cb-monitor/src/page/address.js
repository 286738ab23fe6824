// The filter and the selection in the page's address, so that it can be shared.

import { known } from "./known.js";
import { STATES } from "./words.js";

export function remember() {
  const { filter, selected } = known;
  const part = new URLSearchParams();
  if (filter.search) part.set("search", filter.search);
  if (filter.states.size) part.set("state", [...filter.states].join(","));
  if (filter.sort !== "worst") part.set("sort", filter.sort);
  if (selected !== null) part.set("breaker", selected);
  history.replaceState(null, "", `#${part}`);
}

/** Reads the filter from the address. Returns the name whose details it asks for. `sorts`: the valid orders. */
export function recall(sorts) {
  const { filter } = known;
  const part = new URLSearchParams(location.hash.slice(1));
  filter.search = part.get("search") ?? "";
  filter.states = new Set((part.get("state") ?? "").split(",").filter((state) => STATES.includes(state)));
  if (sorts.includes(part.get("sort"))) filter.sort = part.get("sort");
  return part.get("breaker");
}
