/** How a picture is made: the fields that Create and Edit share, remembered for as long as the tab is. */

import { h } from "../dom.js";
import { checkField, choiceField, numberField, textField } from "./fields.js";
import { modelOf } from "./offer.js";
import { promptField, replace } from "./prompt.js";

/** @typedef {import("./offer.js").Offer} Offer */

/**
 * Settings as the server reads them; null is the model's own choice.
 * @typedef {object} Settings
 * @property {string} prompt
 * @property {string} negative
 * @property {string | null} model
 * @property {string | null} sampler
 * @property {string | null} schedule
 * @property {number | null} steps
 * @property {number | null} scale
 * @property {number | null} width
 * @property {number | null} height
 * @property {string | null} seed
 * @property {number} [count]
 */

const OWN = /** @type {[string, string]} */ (["", "The model's own"]);

/**
 * @param {Offer} offer
 * @param {{key: string, sized?: boolean, onModel?: () => void, example?: string}} options the name under
 *   which the fields are remembered; whether width and height are asked for
 */
export function settingsForm(offer, { key, sized = true, onModel, example = "" }) {
  const models = offer.models.filter((model) => model.pictures);
  const fields = {
    prompt: promptField("Prompt", { rows: 3, placeholder: example, note: "Ctrl+Up and Ctrl+Down weigh what is chosen." }),
    negative: promptField("Negative", { rows: 2 }),
    model: choiceField("Model", models.map((model) => model.name)),
    sampler: choiceField("Sampler", [OWN, ...offer.samplers]),
    schedule: choiceField("Noise levels", [OWN, ...offer.schedules]),
    steps: numberField("Steps", { min: 1, max: offer.limits.steps }),
    scale: numberField("Scale", { min: 0, step: 0.5 }),
    width: numberField("Width", { min: 8, step: 8 }),
    height: numberField("Height", { min: 8, step: 8 }),
    seed: textField("Seed", { placeholder: "by chance", inputMode: "numeric", pattern: "-?[0-9]*" }),
    count: numberField("Pictures", { min: 1, max: offer.limits.count }),
  };
  const alone = checkField("The same bits as safelight generate");
  fields.count.set(1);
  restore();
  fields.model.input.addEventListener("change", showModel);
  showModel();

  const adapters = choiceField("Adapter", [["", "Add one to the prompt"], ...offer.adapters]);
  adapters.input.addEventListener("change", () => {
    const area = /** @type {HTMLTextAreaElement} */ (fields.prompt.input);
    replace(area, area.value.length, area.value.length, ` <lora:${adapters.get()}:1>`);
    adapters.set("");
  });
  const words = h("div", { class: "stack" }, fields.prompt.element, fields.negative.element,
    offer.adapters.length ? adapters.element : null);
  const numbers = h("div", { class: "stack" },
    fields.model.element,
    h("div", { class: "grid-2" }, fields.steps.element, fields.scale.element,
      sized ? [fields.width.element, fields.height.element] : [],
      fields.seed.element, fields.count.element),
    h("details", { class: "more" }, h("summary", {}, "Sampler and noise levels"),
      h("div", { class: "stack" }, fields.sampler.element, fields.schedule.element, alone.element)));
  for (const part of [words, numbers]) part.addEventListener("input", remember);

  return {
    words, numbers, fields, get, set,
    /** The chosen model. */
    model: () => modelOf(offer, fields.model.get()),
  };

  /** What is asked for, without what is left to the model. @returns {Record<string, any>} */
  function get() {
    const told = Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, field.get()]));
    if (!sized) delete told.width, delete told.height;
    return Object.fromEntries(Object.entries({ ...told, alone: alone.get() })
      .filter(([, value]) => value !== null && value !== "" && value !== false));
  }

  /** Shows settings. @param {Partial<Settings>} settings */
  function set(settings) {
    for (const [name, field] of Object.entries(fields)) {
      if (!(name in settings)) continue;
      const value = /** @type {any} */ (settings)[name];
      if (name !== "model" || models.some((model) => model.name === value)) {
        /** @type {any} */ (field).set(value ?? "");
      }
    }
    showModel();
    remember();
  }

  function showModel() {
    const model = modelOf(offer, fields.model.get());
    for (const name of /** @type {const} */ (["steps", "scale", "width", "height"])) {
      /** @type {HTMLInputElement} */ (fields[name].input).placeholder = String(model[name] ?? "the model's");
    }
    onModel?.();
  }

  function remember() {
    const told = Object.entries(fields).map(([name, field]) => [name, field.get()]);
    sessionStorage.setItem(key, JSON.stringify(Object.fromEntries(told)));
  }

  function restore() {
    const told = JSON.parse(sessionStorage.getItem(key) ?? "{}");
    for (const [name, field] of Object.entries(fields)) {
      if (told[name] !== undefined) /** @type {any} */ (field).set(told[name]);
    }
    if (!models.some((model) => model.name === fields.model.get())) fields.model.set(models[0]?.name ?? "");
  }
}
