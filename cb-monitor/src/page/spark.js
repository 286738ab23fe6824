// Sparklines: the failure rates of the latest readings, against the limit.

import { shape } from "./dom.js";

const POINTS = 40;
const height = (rate) => (29 - 27 * rate).toFixed(1);

export function spark() {
  const svg = shape("svg", "spark");
  svg.setAttribute("viewBox", "0 0 100 30");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const base = shape("path", "base");
  base.setAttribute("d", "M0 29H100");
  svg.append(base, shape("path", "limit"), shape("path", "area"), shape("path", "line"));
  return svg;
}

export function trend(svg, row) {
  const points = row.trend ?? [], limit = row.limits?.failure_rate;
  const key = `${row.name} ${limit ?? ""} ${points.join()}`;
  if (svg.dataset.key === key) return;
  svg.dataset.key = key;
  const isEmpty = points.every((value) => value === null);
  svg.classList.toggle("none", isEmpty);
  svg.classList.toggle("calm", points.every((value) => !value));
  const step = 100 / (POINTS - 1), left = 100 - (points.length - 1) * step;
  let line = "", area = "", start = null;
  points.forEach((value, place) => {
    const x = (left + place * step).toFixed(1), y = height(value ?? 0);
    if (value === null) {
      if (start !== null) area += `L${(left + (place - 1) * step).toFixed(1)} 29L${start} 29Z`;
      start = null;
      return;
    }
    line += `${start === null ? "M" : "L"}${x} ${y}`;
    area += `${start === null ? `M${x} 29L` : "L"}${x} ${y}`;
    start ??= x;
  });
  if (start !== null) area += `L100 29L${start} 29Z`;
  const draw = (name, path) => svg.querySelector(`.${name}`).setAttribute("d", path);
  draw("area", area);
  draw("line", line);
  draw("limit", limit && !isEmpty ? `M0 ${height(limit)}H100` : "");
}
