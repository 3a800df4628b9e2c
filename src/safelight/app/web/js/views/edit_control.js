/** Control: lines or a pose that lead the picture, seen before the run as the model will see them. */

import { fill, h } from "../dom.js";
import { Board } from "../parts/board.js";
import { sliderField, tabsField } from "../parts/fields.js";
import { later } from "../parts/later.js";
import { base64Of, dropOf, pngOf } from "../parts/pictures.js";
import { Pose } from "../parts/pose.js";
import { lineOf } from "../parts/saying.js";

/** @typedef {import("./edit.js").Way} Way */

const SIDE = 512; // pixels of a hint where the model does not say its size
const PAUSE = 250; // milliseconds of quiet before a hint is asked for
const TITLES = new Map([["canny", "Edges"], ["scribble", "Scribble"], ["pose", "Pose"], ["depth", "Depth"]]);

/**
 * @param {import("../registry.js").Context} context @param {import("../parts/offer.js").Offer} offer
 * @param {{model: () => import("../parts/offer.js").OfferedModel}} form
 * @returns {Way}
 */
export function controlWay(context, offer, form) {
  const { api, signal, say } = context;
  /** @type {Blob | null} what the model will see */
  let hint = null;
  let kind = "";
  let shownFor = "";
  /** @type {Blob | null} */
  let source = null;
  const image = h("img", { class: "shown", alt: "What the model will see", hidden: true });
  const weight = sliderField("Weight", { min: 0, max: 2, step: 0.05, value: 1 }, (value) => value.toFixed(2));
  const end = sliderField("Until", { min: 0.1, max: 1, step: 0.05, value: 1 }, (value) => `${Math.round(100 * value)} % of the steps`);
  const low = sliderField("Faint edges from", { min: 1, max: 255, value: 100 });
  const high = sliderField("Clear edges from", { min: 1, max: 255, value: 200 });
  const [width, height] = [form.model().width ?? SIDE, form.model().height ?? SIDE];
  const board = new Board({ label: "The scribble", width, height, ground: "#000000", colour: "#ffffff", size: 0.03,
    onChange: later(PAUSE, () => { source = null; show(); }, signal) });
  const pose = new Pose({ width, height, onChange: later(PAUSE, () => { source = null; show(); }, signal) });
  const work = h("div", { class: "stack tight" });
  const kinds = h("div");
  const drop = dropOf("Drop a picture here, or choose one, to make the hint of it", take);
  for (const field of [low, high]) field.input.addEventListener("input", later(PAUSE, () => show(), signal));
  const place = h("div", { class: "stack" }, kinds, h("div", { class: "canvases" }, work,
    h("figure", { class: "stack tight" }, image, h("figcaption", { class: "muted small" }, "What the model will see"))));
  return { place, options: h("div", { class: "stack" }, weight.element, end.element), take, asked, modelChanged };

  /** Offers the controls that the model has. */
  function modelChanged() {
    const model = form.model();
    if (shownFor === model.name) return;
    shownFor = model.name;
    if (!model.controls.length) {
      kind = "";
      fill(kinds, h("p", { class: "empty" }, `${model.name} brings no controls; choose another model.`));
      fill(work);
      return;
    }
    const tabs = tabsField("Kind of control",
      model.controls.map((one) => [one, TITLES.get(one) ?? one]), choose);
    fill(kinds, tabs.element);
    choose(tabs.get());
  }

  /** @param {string} chosen */
  function choose(chosen) {
    kind = chosen;
    hint = null;
    image.hidden = true;
    if (kind === "pose") fill(work, pose.element, makes(kind) ? drop : []);
    else if (kind === "scribble") fill(work, board.element, drop);
    else if (makes(kind)) fill(work, drop, kind === "canny" ? [low.element, high.element] : []);
    else fill(work, h("p", { class: "muted small" }, `A network makes hints of ${kind}, which this server has not: give the hint itself.`), drop);
    show();
  }

  /** Whether the server makes hints of a kind. @param {string} one */
  function makes(one) {
    return offer.annotators.includes(one);
  }

  /** @param {Blob} picture */
  function take(picture) {
    source = picture;
    if (kind) show();
  }

  /** Makes the hint, and shows it. @returns {Promise<void>} */
  async function show() {
    try {
      const made = await make();
      if (!made) return;
      hint = made;
      image.src = URL.createObjectURL(made);
      image.hidden = false;
    } catch (error) {
      if (!signal.aborted) say(lineOf(error), "bad");
    }
  }

  /** @returns {Promise<Blob | null>} */
  async function make() {
    const model = form.model();
    const [across, down] = [model.width ?? SIDE, model.height ?? SIDE];
    if (kind === "pose" && !(source && makes(kind))) {
      return api.send("v1/pose", { width: across, height: down, people: [pose.person] }, { signal });
    }
    if (kind === "scribble" && !source) return board.strokes.length ? pngOf(board.drawn(across, down)) : null;
    if (!source) return null;
    if (!makes(kind)) return source;
    const levels = kind === "canny" ? { low: Math.min(low.get(), high.get()), high: high.get() } : {};
    return api.send("v1/annotate", { kind, picture: await base64Of(source), ...levels }, { signal });
  }

  /** @returns {Promise<Record<string, any>>} */
  async function asked() {
    if (!kind) throw new Error("This model brings no controls.");
    if (!hint) throw new Error(kind === "scribble" ? "Draw something first." : "Give a picture first.");
    return { controls: [{ kind, picture: await base64Of(hint), hint: true, weight: weight.get(), end: end.get() }] };
  }
}
