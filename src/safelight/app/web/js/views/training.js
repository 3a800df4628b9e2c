/** Training: what trainings have told so far. #/training/NAME opens one. */

import { fill, h } from "../dom.js";
import { lossCurve } from "../parts/curve.js";
import { checkField, sliderField } from "../parts/fields.js";
import { offerOf } from "../parts/offer.js";
import { pictureOf } from "../parts/pictures.js";
import { lineOf } from "../parts/saying.js";

const PAUSE = 10_000; // milliseconds between two looks at one that runs

/**
 * @typedef {object} Training
 * @property {string} name
 * @property {string | null} kind
 * @property {number} step
 * @property {number | null} steps
 * @property {boolean} runs
 * @property {number} updated
 * @property {Record<string, number>} last
 * @property {number | null} seconds_left
 * @property {Record<string, number>[]} rows
 * @property {string[]} previews
 * @property {string[]} checkpoints
 * @property {string} recipe
 */

/** @type {import("../registry.js").View} */
export const view = {
  id: "training",
  title: "Training",
  icon: "M4 4v16h16M7 9c3 6 6 8 12 8",
  async mount(root, context) {
    const { api, signal, rest, say } = context;
    const list = h("div", { class: "stack tight" });
    const shown = h("div", { class: "stack" }, h("p", { class: "empty" }, "Choose a training."));
    root.append(
      h("header", { class: "head" }, h("h1", {}, "Training"), h("p", {}, "What trainings tell: their loss, their speed, their samples.")),
      h("div", { class: "work" }, h("section", { class: "panel stack trainings", "aria-label": "Trainings" }, list), shown));
    const log = checkField("Logarithmic loss", true);
    if (!(await offerOf(api)).trainings) {
      fill(list, h("p", { class: "muted" }, "This server shows none; start it with --runs FOLDER."));
      return;
    }
    try {
      const all = /** @type {Training[]} */ (await api.get("v1/trainings", { signal }));
      fill(list, all.length ? all.map(link) : h("p", { class: "muted" }, "There is none in the server's folder yet."));
      const name = rest.join("/") || all[0]?.name;
      if (name) await follow(name);
    } catch (error) {
      if (!signal.aborted) fill(shown, h("p", { class: "empty" }, lineOf(error)));
    }

    /** @param {Training} training */
    function link(training) {
      return h("a", { href: `#/training/${training.name.split("/").map(encodeURIComponent).join("/")}` },
        h("span", {}, training.name === "." ? "The folder itself" : training.name),
        h("span", { class: "small muted number" }, stateOf(training)));
    }

    /** @param {string} name */
    async function follow(name) {
      const query = new URLSearchParams({ name });
      const training = /** @type {Training} */ (await api.get(`v1/trainings/one?${query}`, { signal }));
      show(training);
      if (!training.runs) return;
      const timer = setTimeout(() => follow(name).catch((error) => { if (!signal.aborted) say(lineOf(error), "bad"); }), PAUSE);
      signal.addEventListener("abort", () => clearTimeout(timer));
    }

    /** @param {Training} training */
    function show(training) {
      const curve = h("div", {});
      const draw = () => fill(curve, lossCurve(training.rows, log.get()));
      log.input.onchange = draw;
      draw();
      const speed = training.last.images_per_s;
      fill(shown, h("section", { class: "panel stack", "aria-label": "The training" },
        h("h2", {}, training.name),
        h("table", { class: "plain" }, h("tbody", {}, [
          ["State", stateOf(training)], ["Kind", training.kind ?? "not said"],
          ["Speed", speed ? `${speed.toPrecision(3)} images a second` : "not said"],
          ["Time left", training.seconds_left === null ? (training.runs ? "not known" : "none") : spanOf(training.seconds_left)],
          ["Checkpoints", training.checkpoints.join(", ") || "none yet"],
        ].map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", { class: "number" }, value))))),
        h("div", { class: "row spread" }, h("h3", {}, "Loss"), log.element),
        h("p", { class: "muted small" }, "The thin line is what the log has, the thick one its running mean. A loss that no longer"
          + " falls does not say that samples no longer improve: most of it is noise that no network could foresee."),
        curve,
        samplesOf(training, query(training.name)),
        training.recipe ? h("details", { class: "more" }, h("summary", {}, "Recipe"), h("pre", { class: "manifest", tabindex: 0 }, training.recipe)) : null));
    }

    /** @param {string} name */
    function query(name) {
      return (/** @type {string} */ file) => `v1/trainings/preview?${new URLSearchParams({ name, file })}`;
    }

    /** @param {Training} training @param {(file: string) => string} address */
    function samplesOf(training, address) {
      const { previews } = training;
      if (!previews.length) return h("p", { class: "muted small" }, "No samples yet.");
      const picture = h("div", { class: "training-sample" });
      const slider = sliderField("Samples", { min: 0, max: previews.length - 1, value: previews.length - 1 }, stepOf);
      slider.input.addEventListener("input", choose);
      choose();
      return h("div", { class: "stack" }, slider.element, picture);

      function choose() {
        const file = previews[slider.get()];
        fill(picture, pictureOf(api, address(file), `Samples after ${stepOf(slider.get())}`));
      }

      /** @param {number} place */
      function stepOf(place) {
        const step = /(\d+)/.exec(previews[place]);
        return step ? `step ${Number(step[1])}` : previews[place];
      }
    }
  },
};

/** @param {Training} training */
function stateOf(training) {
  const of = training.steps === null ? "" : ` of ${training.steps}`;
  return `${training.runs ? "Runs" : "Rests"}, step ${training.step}${of}`;
}

/** @param {number} seconds */
function spanOf(seconds) {
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.round((seconds % 3600) / 60)];
  return hours ? `${hours} h ${minutes} min` : `${minutes} min`;
}
