// The document: elements, their text, and the signs of states. Text from outside (names, reasons, ids) is only
// ever set as text, never as markup.

/** A shape for each state, in a square of 12: colour alone tells some readers nothing. */
const MARKS = {
  "open": "M2.5 2.5 9.5 9.5M9.5 2.5 2.5 9.5",
  "forced-open": "M3 5.5V10H9V5.5ZM4.2 5.5V3.8A1.8 1.8 0 0 1 7.8 3.8V5.5",
  "half-open": "M6 1.5A4.5 4.5 0 0 1 6 10.5ZM6 1.5A4.5 4.5 0 0 0 6 10.5",
  "disabled": "M6 1.5V5.5M3.4 3A4.2 4.2 0 1 0 8.6 3",
  "metrics-only": "M1 6C3 2.4 9 2.4 11 6 9 9.6 3 9.6 1 6ZM6 4.9A1.1 1.1 0 0 0 6 7.1 1.1 1.1 0 0 0 6 4.9",
  "closed": "M2 6.4 4.9 9.2 10 3.4",
};
const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

export function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

export function shape(tag, className) {
  const made = document.createElementNS(SVG, tag);
  made.setAttribute("class", className);
  return made;
}

/** A state's sign; its word stands beside it. */
export function mark(state) {
  const svg = shape("svg", "mark");
  svg.setAttribute("viewBox", "0 0 12 12");
  svg.setAttribute("aria-hidden", "true");
  svg.append(shape("path", ""));
  remark(svg, state);
  return svg;
}

export function remark(svg, state) {
  if (svg.dataset.state === state) return;
  svg.dataset.state = state;
  svg.firstChild.setAttribute("d", MARKS[state] ?? "");
}

/** Sets text only where it differs: a reader's cursor and the layout stay as they are. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
