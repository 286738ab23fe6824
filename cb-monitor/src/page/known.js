// The page's data, shared by all modules.

export const known = {
  /** The header's figures, from the stream. */
  overview: null,
  /** performance.now() of the latest overview, and of the latest rows. */
  heard: 0,
  readAt: 0,
  /** The server's clock minus this one, in seconds. */
  offset: 0,
  /** The number of matching rows, and the rows by place, as far as they were requested. */
  total: 0,
  rows: new Map(),
  /** The place of the row that has the focus. */
  cursor: 0,
  /** The name that the details show, and its figures. */
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

/** The time at which both the overview and the rows were current. */
export const freshUntil = () => Math.min(known.heard, known.readAt || known.heard);

/** Whether the monitor has not answered for four seconds. */
export const isSilent = () => !known.overview || performance.now() - freshUntil() > 4000;

/** Whether the figures may be outdated, and must be shown as such. */
export const isStale = () => isSilent() || !known.overview.store.up;
