// What the page knows, shared by all its parts.

export const known = {
  /** The header's figures, from the stream. */
  overview: null,
  /** performance.now() of the latest overview, and of the latest rows. */
  heard: 0,
  readAt: 0,
  /** The server's clock minus this one, in seconds. */
  offset: 0,
  /** How many rows match, and the rows by place, as far as they were asked for. */
  total: 0,
  rows: new Map(),
  /** The place of the row that the keyboard is on. */
  cursor: 0,
  /** The name that the details show, and what is known of it. */
  selected: null,
  detail: null,
  /** Names whose state has just changed. */
  turned: new Set(),
  /** Nodes by instance. */
  nodes: new Map(),
  filter: { states: new Set(), search: "", sort: "worst" },
  token: sessionStorage.getItem("circuits-token") || "",
};

export const serverNow = () => Date.now() / 1000 + known.offset;
export const headers = (more) => (known.token ? { ...more, Authorization: `Bearer ${known.token}` } : { ...more });

/** An instance by its node's name, where that is known. */
export const nodeOf = (instance) => known.nodes.get(instance) ?? instance;

/** When both the overview and the rows were new. */
export const freshUntil = () => Math.min(known.heard, known.readAt || known.heard);

/** Nothing was heard of the monitor for a while, or its rows could not be read. */
export const isSilent = () => !known.overview || performance.now() - freshUntil() > 4000;

/** What cannot be new must not look new. */
export const isStale = () => isSilent() || !known.overview.store.up;
