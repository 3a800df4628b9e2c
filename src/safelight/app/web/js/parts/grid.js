/** Pictures along one axis or two: a job whose cells are shown as they come. */

import { fill, h } from "../dom.js";
import { choiceField, sliderField, textField } from "./fields.js";
import { jobCards } from "./jobs.js";
import { download, pictureOf } from "./pictures.js";
import { lineOf } from "./saying.js";

/** @typedef {import("./jobs.js").Job & {grid: {axes: string[], columns: string[], rows: string[], url: string}}} GridJob */

const AXES = /** @type {[string, string][]} */ ([
  ["scale", "Scale"], ["steps", "Steps"], ["sampler", "Sampler"], ["seed", "Seed"], ["words", "Words of the prompt"],
  ["schedule", "Noise levels"], ["prompt", "Prompt"], ["negative", "Negative"],
]);

/**
 * @param {import("../registry.js").Context} context
 * @param {() => Record<string, any>} asked what all cells share
 * @param {{title: string, says: string, columns: [string, string], rows?: [string, string], fixed?: boolean}} options
 *   the axes and their values to begin with; `fixed` where only the values may be changed
 * @returns {HTMLElement}
 */
export function gridSection({ api, signal, say }, asked, { title, says, columns, rows, fixed = false }) {
  const x = axisFields("Columns", columns, fixed);
  const y = fixed ? null : axisFields("Rows", rows ?? ["", ""], false);
  const send = h("button", { type: "submit", class: "button" }, fixed ? "Make the row" : "Make the grid");
  const shown = h("div", { class: "stack" });
  const cards = jobCards(api, signal, { onPicture: (job) => refresh(job.id), onEnd: (job) => refresh(job.id) });
  return h("section", { class: "panel stack", "aria-label": title },
    h("div", { class: "stack tight" }, h("h2", {}, title), h("p", { class: "muted small" }, says)),
    h("form", { class: "stack", onsubmit: submit },
      h("div", { class: fixed ? "stack" : "grid-2 axes" }, x.elements, y?.elements), h("div", { class: "row" }, send)),
    cards.element, shown);

  /** @param {Event} event */
  async function submit(event) {
    event.preventDefault();
    send.disabled = true;
    try {
      const axes = { x: x.get(), ...(y?.get() ? { y: y.get() } : {}) };
      cards.follow(await api.post("v1/jobs", { ...asked(), ...axes }, { signal }));
    } catch (error) {
      if (!signal.aborted) say(lineOf(error), "bad");
    } finally {
      send.disabled = false;
    }
  }

  /** @param {string} id */
  async function refresh(id) {
    const job = /** @type {GridJob} */ (await api.get(`v1/jobs/${id}`, { signal }));
    if (job.pictures.length) fill(shown, fixed ? rowOf(job) : tableOf(job), oneOf(job));
  }

  /** @param {GridJob} job @param {number} place */
  function cellOf(job, place) {
    const found = job.pictures.find((picture) => picture.place === place);
    return found ? pictureOf(api, found.url, labelOf(job, place)) : h("span", { class: "cell-empty" });
  }

  /** @param {GridJob} job */
  function rowOf(job) {
    const { columns: values } = job.grid;
    const figures = values.map((value, place) => h("figure", {}, cellOf(job, place), h("figcaption", { class: "small number" }, value)));
    const big = h("div", { class: "row-big" });
    const slider = sliderField("Scale", { min: 0, max: values.length - 1, value: values.length - 1 }, (place) => values[place]);
    slider.input.addEventListener("input", choose);
    choose();
    return h("div", { class: "stack" }, h("div", { class: "guidance-row" }, figures), slider.element, big);

    function choose() {
      fill(big, cellOf(job, slider.get()));
      figures.forEach((figure, place) => figure.classList.toggle("chosen", place === slider.get()));
    }
  }

  /** @param {GridJob} job */
  function tableOf(job) {
    const { axes, columns: across, rows: down } = job.grid;
    const lines = down.length ? down : [""];
    return h("div", { class: "grid-scroll", tabindex: 0, role: "region", "aria-label": "The grid" },
      h("table", { class: "cells" },
        h("thead", {}, h("tr", {}, h("td", {}), across.map((value) => h("th", { scope: "col" }, `${axes[0]} ${value}`)))),
        h("tbody", {}, lines.map((line, row) => h("tr", {},
          h("th", { scope: "row" }, line && `${axes[1]} ${line}`),
          across.map((_, column) => h("td", {}, cellOf(job, row * across.length + column))))))));
  }

  /** @param {GridJob} job */
  function oneOf(job) {
    if (job.pictures.length < job.count) return null;
    return h("div", { class: "row" }, h("button", { type: "button", class: "button small",
      onclick: () => download(api, job.grid.url, `grid-${job.id.slice(0, 8)}.png`) }, "Download as one picture"));
  }
}

/** @param {GridJob} job @param {number} place */
function labelOf(job, place) {
  const { axes, columns, rows } = job.grid;
  const across = `${axes[0]} ${columns[place % columns.length]}`;
  return rows.length ? `${across}, ${axes[1]} ${rows[Math.floor(place / columns.length)]}` : across;
}

/** @param {string} name @param {[string, string]} begin @param {boolean} fixed */
function axisFields(name, [axis, values], fixed) {
  const offered = name === "Rows" ? [/** @type {[string, string]} */ (["", "None"]), ...AXES] : AXES;
  const choice = choiceField(name, offered);
  choice.set(axis);
  const text = textField(fixed ? "Scales" : `Values of the ${name.toLowerCase()}`, { value: values });
  return {
    elements: fixed ? [text.element] : [h("div", { class: "stack tight" }, choice.element, text.element)],
    /** The axis as the server reads it; empty for none. @returns {string} */
    get: () => (choice.get() ? `${choice.get()}=${text.get()}` : ""),
  };
}
