/**
 * A picture's steps, and where the words of its prompt looked.
 *
 * @typedef {object} Heat
 * @property {string} map     in grey, the peak white
 * @property {number} peak
 * @property {number} mean
 *
 * @typedef {object} Word
 * @property {string} text
 * @property {number} tokens
 * @property {Heat} whole
 * @property {Heat[]} steps
 * @property {Heat[]} layers
 *
 * @typedef {object} Inside
 * @property {{step: number, sigma: number, latent: string, denoised: string, picture: string}[]} steps
 * @property {Word[]} words
 * @property {{height: number, width: number}[]} layers
 */

import { h } from "../dom.js";
import { choiceField, sliderField, tabsField } from "./fields.js";
import { drawHeat } from "./heat.js";

/** @param {Inside} inside @returns {HTMLElement} */
export function insideOf(inside) {
  const last = inside.steps.length - 1;
  let at = last;
  /** @type {Word | null} */
  let pinned = null;
  /** @type {Word | null} */
  let hovered = null;

  const image = h("img", { class: "inside-image", alt: "" });
  const heat = h("canvas", { class: "inside-heat", "aria-hidden": "true", hidden: true });
  const caption = h("figcaption", { class: "small muted number" });
  const told = h("p", { class: "small number", role: "status" });
  const what = tabsField("What is shown", [["picture", "x0, decoded"], ["denoised", "x0"], ["latent", "x, the latent"]], draw);
  const slider = sliderField("Step", { min: 0, max: last, value: last }, (value) => String(inside.steps[value].step + 1));
  slider.input.addEventListener("input", () => go(slider.get()));
  const frames = inside.steps.map((step, place) => h("button", {
    type: "button", class: "frame-button", "aria-label": `Step ${step.step + 1}`, onclick: () => go(place),
  },
  h("img", { src: step.latent, alt: "", class: "blocky" }),
  h("img", { src: step.picture, alt: "" }),
  h("span", { class: "number" }, String(step.step + 1))));
  const words = inside.words.map((word) => h("button", {
    type: "button", class: "button small", "aria-pressed": "false",
    onclick: () => { pinned = pinned === word ? null : word; draw(); },
    onpointerenter: () => { hovered = word; draw(); },
    onpointerleave: () => { hovered = null; draw(); },
  }, word.text));
  const over = choiceField("Attention", [
    ["all", "of all steps and layers"], ["step", "of the step that is shown"],
    .../** @type {[string, string][]} */ (inside.layers.map((layer, i) => [String(i), `of layers of ${layer.width} x ${layer.height} places`])),
  ]);
  over.input.addEventListener("change", draw);
  go(last);

  return h("section", { class: "panel stack inside", "aria-label": "Inside the picture" },
    h("div", { class: "stack tight" },
      h("h2", {}, "From noise to a picture"),
      h("p", { class: "muted small" }, "Above: x behind each step, its channels mapped to colours by the linear map that comes"
        + " nearest to the decoder. Below: x0, the clean picture that the network expects of it, decoded. While sigma is large,"
        + " many pictures could still come of x, and x0 is their mean: blurred. The sampler goes a part of the way there, and"
        + " asks again.")),
    h("div", { class: "strip", role: "group", "aria-label": "Steps" }, frames),
    slider.element,
    h("div", { class: "inside-two" },
      h("figure", { class: "inside-stage" }, h("div", { class: "inside-layers" }, image, heat), caption),
      h("div", { class: "stack" },
        what.element,
        h("div", { class: "stack tight" },
          h("h2", {}, "Where each word looks"),
          h("p", { class: "muted small" }, "In cross-attention every place of the picture asks all tokens of the prompt:"
            + " softmax(q k / sqrt(d)) is how much it takes of each. A word's map adds up its tokens' and is the mean over heads,"
            + " layers and steps, under the prompt alone. Most attention goes to the marks of start and end, so each map is"
            + " lit up to its own peak.")),
        h("div", { class: "row words", role: "group", "aria-label": "Words of the prompt" }, words),
        over.element,
        told)));

  /** @param {number} place */
  function go(place) {
    at = place;
    slider.set(place);
    frames.forEach((frame, i) => frame.setAttribute("aria-pressed", String(i === place)));
    draw();
  }

  function draw() {
    const step = inside.steps[at];
    const kind = /** @type {"picture" | "denoised" | "latent"} */ (what.get());
    image.src = step[kind];
    image.classList.toggle("blocky", kind !== "picture");
    image.alt = kind === "latent" ? "The latent" : "The picture that is expected";
    caption.textContent = `Step ${step.step + 1}, begun at sigma ${step.sigma.toPrecision(3)}`;
    const word = hovered ?? pinned;
    words.forEach((button, i) => button.setAttribute("aria-pressed", String(inside.words[i] === pinned)));
    heat.hidden = word === null;
    if (word === null) {
      told.textContent = "Choose a word to lay its map over the picture.";
      return;
    }
    const map = mapOf(word);
    drawHeat(heat, map.map);
    const tokens = word.tokens > 1 ? `, ${word.tokens} tokens` : "";
    told.textContent = `${word.text}${tokens}: ${percent(map.mean)} of the attention, at most ${percent(map.peak)} in one place`;
  }

  /** @param {Word} word @returns {Heat} */
  function mapOf(word) {
    const chosen = over.get();
    if (chosen === "all") return word.whole;
    return chosen === "step" ? word.steps[at] : word.layers[Number(chosen)];
  }
}

/** @param {number} part */
const percent = (part) => `${(100 * part).toPrecision(2)} %`;
