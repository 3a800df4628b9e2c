/** A picture in full, with what made it. */

import { fill, h, icon } from "../dom.js";
import { openDialog } from "./dialog.js";
import { base64Of, download, pictureOf } from "./pictures.js";
import { lineOf } from "./saying.js";

/** @typedef {import("./gallery.js").Made} Made */

const LEFT = "M15 5l-7 7 7 7";
const RIGHT = "M9 5l7 7-7 7";
const ROWS = ["prompt", "negative", "model", "seed", "steps", "scale", "sampler", "schedule", "width", "height", "strength"];

/**
 * @param {import("../registry.js").Context} context @param {Made[]} all @param {number} at
 * @param {(settings: any) => void} use
 */
export function fullView(context, all, at, use) {
  const shown = h("div", { class: "full-picture" });
  const side = h("div", { class: "stack full-side" });
  const [back, on] = [button("Previous", LEFT, -1), button("Next", RIGHT, 1)];
  const dialog = openDialog("Picture", [h("div", { class: "full" },
    h("div", { class: "stack tight" }, shown, h("div", { class: "row spread" }, back, on)), side)], { wide: true });
  dialog.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by && !(event.target instanceof HTMLElement && event.target.closest("summary, pre"))) show(at + by);
  });
  show(at);

  /** @param {string} name @param {string} path @param {number} by */
  function button(name, path, by) {
    return h("button", { type: "button", class: "button small icon-only", "aria-label": name, onclick: () => show(at + by) }, icon(path));
  }

  /** @param {number} place */
  function show(place) {
    if (place < 0 || place >= all.length) return;
    at = place;
    const made = all[at];
    back.disabled = at === 0;
    on.disabled = at === all.length - 1;
    fill(shown, pictureOf(context.api, made.picture.url, made.job.asked.prompt || "a picture"));
    fill(side, h("p", { class: "muted" }, "Reads its manifest"));
    aside(made).then((parts) => { if (all[at] === made) fill(side, parts); },
      (error) => fill(side, h("p", { class: "bad" }, lineOf(error))));
  }

  /** @param {Made} made @returns {Promise<HTMLElement[]>} */
  async function aside(made) {
    const manifest = await context.api.get(`${made.picture.url}/manifest`);
    const name = `${manifest.seed}-${made.job.id.slice(0, 8)}.${made.picture.media.split("/")[1]}`;
    return [
      settingsTable(manifest),
      h("div", { class: "stack tight" },
        h("button", { type: "button", class: "button main", onclick: () => take(made) }, "Use these settings"),
        h("div", { class: "grid-2" },
          h("button", { type: "button", class: "button", onclick: () => lead("edit", made) }, "Edit it"),
          h("button", { type: "button", class: "button", onclick: () => lead("animate", made) }, "Animate it")),
        h("button", { type: "button", class: "button", onclick: () => inside(made) }, "Look inside"),
        h("button", { type: "button", class: "button", onclick: () => download(context.api, made.picture.url, name) }, "Download")),
      h("details", { class: "more" }, h("summary", {}, "Manifest"),
        h("pre", { class: "manifest", tabindex: 0 }, JSON.stringify(manifest, null, 2))),
    ];
  }

  /** @param {Made} made */
  async function take(made) {
    const told = await settingsIn(context.api, await context.api.blob(made.picture.url));
    dialog.close();
    use(told.settings);
  }

  /** @param {Made} made */
  async function inside(made) {
    const told = await settingsIn(context.api, await context.api.blob(made.picture.url));
    dialog.close();
    context.go("inside", told.settings);
  }

  /** @param {string} view @param {Made} made */
  async function lead(view, made) {
    const picture = await context.api.blob(made.picture.url);
    dialog.close();
    context.go(view, { picture, prompt: made.job.asked.prompt ?? "" });
  }
}

/**
 * What a picture's file tells of its making.
 * @param {import("../api.js").Api} api @param {Blob} file
 * @returns {Promise<{settings: any, manifest: any, notes: string[]}>}
 */
export async function settingsIn(api, file) {
  return api.post("v1/read", { picture: await base64Of(file) });
}

/** A manifest's main lines. @param {any} manifest @returns {HTMLElement} */
export function settingsTable(manifest) {
  return h("table", { class: "plain" }, h("tbody", {}, rowsOf(manifest).map(([name, value]) =>
    h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, value)))));
}

/** @param {any} manifest @returns {[string, string][]} */
export function rowsOf(manifest) {
  return ROWS.filter((name) => ![null, undefined, ""].includes(manifest[name]))
    .map((name) => [name, String(manifest[name])]);
}
