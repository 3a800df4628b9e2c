/** Animate. */

import { h } from "../dom.js";

/** @type {import("../registry.js").View} */
export const view = {
  id: "animate",
  title: "Animate",
  icon: "M4 5h16v14H4zM10 9l5 3-5 3z",
  mount(root) {
    root.append(h("header", { class: "head" }, h("h1", {}, "Animate")));
  },
};
