/** Edit. */

import { h } from "../dom.js";

/** @type {import("../registry.js").View} */
export const view = {
  id: "edit",
  title: "Edit",
  icon: "M4 20l1-4L16 5l3 3L8 19zM14 7l3 3",
  mount(root) {
    root.append(h("header", { class: "head" }, h("h1", {}, "Edit")));
  },
};
