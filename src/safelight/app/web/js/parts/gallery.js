/** What was made: all pictures that the server keeps, the newest first. */

import { fill, h } from "../dom.js";
import { compare } from "./compare.js";
import { fullView } from "./full.js";
import { pictureOf } from "./pictures.js";

/** @typedef {import("./jobs.js").Job} Job */
/** @typedef {import("../registry.js").Context} Context */

/**
 * A picture and the job that made it.
 * @typedef {object} Made
 * @property {Job} job
 * @property {import("./jobs.js").JobPicture} picture
 */

const PAGE = 30; // jobs asked for at once

/**
 * @param {Context} context
 * @param {{use: (settings: any) => void, onFound?: (job: Job) => void}} options what takes settings, and what
 *   hears of each job that is found
 */
export function gallery(context, { use, onFound }) {
  /** @type {Made[]} */
  let all = [];
  /** @type {Made[]} */
  let chosen = [];
  let before = /** @type {number | null} */ (null);
  const grid = h("div", { class: "tiles" });
  const none = h("p", { class: "empty" }, "Pictures that are made here stay here, also when the page is loaded again.");
  const more = h("button", { type: "button", class: "button", hidden: true, onclick: () => load() }, "Show earlier ones");
  const both = h("button", { type: "button", class: "button small", disabled: true,
    onclick: () => compare(context.api, chosen[0], chosen[1]) }, "Compare two");
  const element = h("section", { class: "stack", "aria-label": "Gallery" },
    h("div", { class: "row spread" }, h("h2", {}, "Made so far"), both), none, grid,
    h("div", { class: "row" }, more));
  return { element, load, add };

  /** Asks for the next jobs, and shows their pictures. @returns {Promise<void>} */
  async function load() {
    const page = before === null ? "" : `&before=${before}`;
    const found = await context.api.get(`v1/jobs?limit=${PAGE}${page}`, { signal: context.signal });
    before = found.next;
    more.hidden = before === null;
    for (const job of found.jobs) {
      onFound?.(job);
      for (const made of madeOf(job)) put(made, false);
    }
    none.hidden = all.length > 0;
  }

  /** Shows what a job has made since. @param {Job} job @returns {Promise<void>} */
  async function add(job) {
    const now = /** @type {Job} */ (await context.api.get(`v1/jobs/${job.id}`, { signal: context.signal }));
    const known = new Set(all.map((made) => made.picture.url));
    for (const made of madeOf(now)) if (!known.has(made.picture.url)) put(made, true);
    none.hidden = all.length > 0;
  }

  /** @param {Made} made @param {boolean} first */
  function put(made, first) {
    if (first) all = [made, ...all];
    else all.push(made);
    const name = made.job.asked.prompt || "a picture without a prompt";
    const box = h("input", { type: "checkbox", "aria-label": `Choose to compare: ${name}`, onchange: () => choose(made, box) });
    const tile = h("div", { class: "tile" },
      h("button", { type: "button", "aria-label": `Open: ${name}`,
        onclick: () => fullView(context, all, all.indexOf(made), use) }, pictureOf(context.api, made.picture.url, name)),
      box);
    if (first) grid.prepend(tile);
    else grid.append(tile);
  }

  /** @param {Made} made @param {HTMLInputElement} box */
  function choose(made, box) {
    chosen = box.checked ? [...chosen, made] : chosen.filter((one) => one !== made);
    both.disabled = chosen.length !== 2;
    fill(both, chosen.length > 2 ? "Choose two to compare" : "Compare two");
  }
}

/** @param {Job} job @returns {Made[]} its pictures, the last first; a clip is none */
function madeOf(job) {
  if (job.asked.what === "clip") return [];
  return job.pictures.map((picture) => ({ job, picture })).reverse();
}
