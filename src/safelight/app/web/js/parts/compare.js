/** Two pictures side by side, and what their making has different. */

import { h } from "../dom.js";
import { openDialog } from "./dialog.js";
import { rowsOf } from "./full.js";
import { pictureOf } from "./pictures.js";

/** @typedef {import("./gallery.js").Made} Made */

/** @param {import("../api.js").Api} api @param {Made} one @param {Made} other @returns {Promise<void>} */
export async function compare(api, one, other) {
  const manifests = await Promise.all([one, other].map((made) => api.get(`${made.picture.url}/manifest`)));
  const [ours, theirs] = manifests.map((manifest) => new Map(rowsOf(manifest)));
  const names = [...new Set([...ours.keys(), ...theirs.keys()])].filter((name) => ours.get(name) !== theirs.get(name));
  const pictures = [one, other].map((made, place) =>
    h("figure", {}, pictureOf(api, made.picture.url, made.job.asked.prompt || "a picture"),
      h("figcaption", { class: "muted small" }, place ? "Right" : "Left")));
  openDialog("Compared", [
    h("div", { class: "pair" }, pictures),
    names.length
      ? h("table", { class: "plain" },
        h("thead", {}, h("tr", {}, ["What differs", "Left", "Right"].map((text) => h("th", { scope: "col" }, text)))),
        h("tbody", {}, names.map((name) => h("tr", {}, h("th", { scope: "row" }, name),
          h("td", {}, ours.get(name) ?? "-"), h("td", {}, theirs.get(name) ?? "-")))))
      : h("p", { class: "muted" }, "Their main settings are the same."),
  ], { wide: true });
}
