/** A loss over the steps of a training, as a drawing. */

import { h, svg } from "../dom.js";

const [WIDTH, HEIGHT] = [720, 260];
const [LEFT, RIGHT, TOP, BOTTOM] = [64, 12, 12, 30];
const LINES = 5;
const SMOOTH = 0.9; // of the running mean, a row

/**
 * @param {Record<string, number>[]} rows of the log, each with its step
 * @param {boolean} logarithmic
 * @returns {Element}
 */
export function lossCurve(rows, logarithmic) {
  const points = rows.filter((row) => Number.isFinite(row.loss) && (!logarithmic || row.loss > 0));
  if (!points.length) return h("p", { class: "muted small" }, "The log has no loss yet.");
  const scaled = logarithmic ? Math.log10 : (/** @type {number} */ value) => value;
  const back = logarithmic ? (/** @type {number} */ value) => 10 ** value : (/** @type {number} */ value) => value;
  const values = points.map((row) => scaled(row.loss));
  const [low, high] = spread(Math.min(...values), Math.max(...values));
  const [first, last] = spread(points[0].step, points[points.length - 1].step);
  const x = (/** @type {number} */ step) => LEFT + ((step - first) / (last - first)) * (WIDTH - LEFT - RIGHT);
  const y = (/** @type {number} */ value) => TOP + ((high - value) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  let mean = values[0];
  const means = values.map((value) => (mean = SMOOTH * mean + (1 - SMOOTH) * value));
  const path = (/** @type {number[]} */ line) =>
    line.map((value, i) => `${i ? "L" : "M"}${x(points[i].step).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "curve", role: "img",
    "aria-label": `Loss from ${points[0].loss} at step ${points[0].step} to ${points[points.length - 1].loss} at step ${points[points.length - 1].step}` });
  for (let i = 0; i < LINES; i += 1) {
    const value = low + ((high - low) * i) / (LINES - 1);
    drawing.append(
      svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value), class: "curve-line" }),
      svg("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, back(value).toPrecision(3)));
    const step = first + ((last - first) * i) / (LINES - 1);
    drawing.append(svg("text", { x: x(step), y: HEIGHT - 8, "text-anchor": i ? (i === LINES - 1 ? "end" : "middle") : "start" },
      String(Math.round(step))));
  }
  drawing.append(svg("path", { d: path(values), class: "curve-values" }), svg("path", { d: path(means), class: "curve-mean" }));
  return drawing;
}

/** A range that is not empty. @param {number} low @param {number} high @returns {[number, number]} */
function spread(low, high) {
  return low < high ? [low, high] : [low - 0.5, high + 0.5];
}
