/** The prompt's field: Ctrl and an arrow weigh what is chosen, as in AUTOMATIC1111's web UI. */

import { areaField } from "./fields.js";

const STEP = 0.1;
const ADAPTER_STEP = 0.05;
const GROUPS = [
  { pattern: /\(([^()]*):([\d.]+)\)/g, step: STEP, inner: 1 },
  { pattern: /<(?:lora|lyco):[^<>:]+:([\d.]+)>/g, step: ADAPTER_STEP, inner: 0 },
];

/**
 * @param {string} name @param {Record<string, any>} [options]
 * @returns {import("./fields.js").Field<string>}
 */
export function promptField(name, options = {}) {
  const field = areaField(name, options);
  const area = /** @type {HTMLTextAreaElement} */ (field.input);
  area.addEventListener("keydown", (event) => {
    const by = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (!by || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    const change = weighed(area.value, area.selectionStart, area.selectionEnd, by);
    if (!change) return;
    replace(area, change.from, change.to, change.text);
    area.setSelectionRange(change.start, change.end);
  });
  return field;
}

/**
 * What becomes of a text whose part is to weigh more or less: what to put in the place of which
 * part, and what is chosen then. Null where nothing is there to weigh.
 * @param {string} text @param {number} start @param {number} end @param {number} by steps, up or down
 * @returns {{from: number, to: number, text: string, start: number, end: number} | null}
 */
export function weighed(text, start, end, by) {
  for (const { pattern, step, inner } of GROUPS) {
    for (const match of text.matchAll(pattern)) {
      const [from, to] = [match.index, match.index + match[0].length];
      if (start < from || end > to) continue;
      const weight = Math.max(0, Math.round((Number(match.at(-1)) + by * step) * 100) / 100);
      if (inner && weight === 1) return { from, to, text: match[1], start: from, end: from + match[1].length };
      const number = match[0].lastIndexOf(":") + 1;
      const told = `${match[0].slice(0, number)}${weight}${match[0].at(-1)}`;
      const last = inner ? from + 1 + match[1].length : from + told.length;
      return { from, to, text: told, start: from + inner, end: last };
    }
  }
  if (start === end) {
    while (start > 0 && !/[\s,.()<>:]/.test(text[start - 1])) start -= 1;
    while (end < text.length && !/[\s,.()<>:]/.test(text[end])) end += 1;
  }
  while (start < end && /\s/.test(text[start])) start += 1;
  while (end > start && /\s/.test(text[end - 1])) end -= 1;
  const chosen = text.slice(start, end);
  if (!chosen || /[()<>]/.test(chosen)) return null;
  const weight = Math.round((1 + by * STEP) * 100) / 100;
  return { from: start, to: end, text: `(${chosen}:${weight})`, start: start + 1, end: start + 1 + chosen.length };
}

/**
 * Replaces a part of a text field so that undoing knows of it.
 * @param {HTMLTextAreaElement} area @param {number} from @param {number} to @param {string} text
 */
export function replace(area, from, to, text) {
  area.focus();
  area.setSelectionRange(from, to);
  if (!document.execCommand("insertText", false, text)) {
    area.setRangeText(text, from, to, "end");
    area.dispatchEvent(new Event("input", { bubbles: true }));
  }
}
