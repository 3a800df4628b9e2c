/** Fields with their labels. Each gives its element, and reads and writes its value. */

import { fill, h } from "../dom.js";

let count = 0;
/** @returns {string} an id that no element has */
export const freshId = () => `f${(count += 1)}`;

/**
 * @template T
 * @typedef {object} Field
 * @property {HTMLElement} element
 * @property {HTMLElement} input       what takes the focus
 * @property {() => T} get
 * @property {(value: T) => void} set
 */

/** @param {string} name @param {HTMLElement} input @param {string} [note] @param {HTMLElement} [end] */
function labelled(name, input, note, end) {
  input.id ||= freshId();
  const described = note ? h("span", { class: "note", id: freshId() }, note) : null;
  if (described) input.setAttribute("aria-describedby", described.id);
  return h("div", { class: "field" },
    h("span", { class: "name" }, h("label", { for: input.id }, name), end),
    input, described);
}

/**
 * A line of text.
 * @param {string} name @param {Record<string, any>} [options] of the input; and `note`
 * @returns {Field<string>}
 */
export function textField(name, { note, ...options } = {}) {
  const input = h("input", { type: "text", autocomplete: "off", ...options });
  return { element: labelled(name, input, note), input, get: () => input.value, set: (value) => { input.value = value; } };
}

/** Lines of text. @param {string} name @param {Record<string, any>} [options] @returns {Field<string>} */
export function areaField(name, { note, ...options } = {}) {
  const input = h("textarea", { rows: 3, spellcheck: false, ...options });
  return { element: labelled(name, input, note), input, get: () => input.value, set: (value) => { input.value = value; } };
}

/**
 * A number, or null where it is left empty: then it is the model's own.
 * @param {string} name @param {Record<string, any>} [options] @returns {Field<number | null>}
 */
export function numberField(name, { note, ...options } = {}) {
  const input = h("input", { type: "number", autocomplete: "off", ...options });
  return {
    element: labelled(name, input, note),
    input,
    get: () => (input.value === "" ? null : Number(input.value)),
    set: (value) => { input.value = value === null || value === undefined ? "" : String(value); },
  };
}

/**
 * A choice; options are values, or pairs of value and text.
 * @param {string} name @param {(string | [string, string])[]} options
 * @param {Record<string, any>} [more] @returns {Field<string> & {offer: (options: (string | [string, string])[]) => void}}
 */
export function choiceField(name, options, { note, ...more } = {}) {
  const input = h("select", more);
  offer(options);
  return {
    element: labelled(name, input, note), input, offer,
    get: () => input.value,
    set: (value) => { input.value = value; },
  };

  /** @param {(string | [string, string])[]} offered */
  function offer(offered) {
    const before = input.value;
    fill(input, offered.map((one) => {
      const [value, text] = Array.isArray(one) ? one : [one, one];
      return h("option", { value }, text);
    }));
    if ([...input.options].some((one) => one.value === before)) input.value = before;
  }
}

/**
 * A number by a slider.
 * @param {string} name @param {{min: number, max: number, step?: number, value: number, note?: string, id?: string}} options
 * @param {(value: number) => string} [told] @returns {Field<number>}
 */
export function sliderField(name, { note, ...options }, told = String) {
  const input = h("input", { type: "range", min: options.min, max: options.max, step: options.step ?? 1 });
  if (options.id) input.id = options.id;
  input.value = String(options.value);
  const shown = h("output", {}, told(options.value));
  input.addEventListener("input", () => { shown.value = told(Number(input.value)); });
  return {
    element: labelled(name, input, note, shown), input,
    get: () => Number(input.value),
    set: (value) => { input.value = String(value); shown.value = told(Number(input.value)); },
  };
}

/** Yes or no. @param {string} name @param {boolean} [value] @returns {Field<boolean>} */
export function checkField(name, value = false) {
  const input = h("input", { type: "checkbox", checked: value });
  return {
    element: h("label", { class: "check" }, input, name), input,
    get: () => input.checked,
    set: (checked) => { input.checked = checked; },
  };
}

/**
 * One of a few, all seen; the arrow keys go from one to the next.
 * @param {string} name @param {[string, string][]} options @param {(value: string) => void} onChange
 * @returns {Field<string>}
 */
export function tabsField(name, options, onChange) {
  const buttons = options.map(([value, text]) => h("button", {
    type: "button", class: "button", role: "radio", data: { value }, onclick: () => choose(value, true),
  }, text));
  const element = h("div", { class: "tabs", role: "radiogroup", "aria-label": name }, buttons);
  element.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const at = options.findIndex(([value]) => value === chosen);
    const next = (at + by + options.length) % options.length;
    choose(options[next][0], true);
    buttons[next].focus();
  });
  let chosen = "";
  choose(options[0][0], false);
  return { element, input: element, get: () => chosen, set: (value) => choose(value, false) };

  /** @param {string} value @param {boolean} tell */
  function choose(value, tell) {
    chosen = value;
    for (const button of buttons) {
      const is = button.dataset.value === value;
      button.setAttribute("aria-checked", String(is));
      button.tabIndex = is ? 0 : -1;
    }
    if (tell) onChange(value);
  }
}
