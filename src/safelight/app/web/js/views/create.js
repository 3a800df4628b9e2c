/** Create. */

import { h } from "../dom.js";

/** @type {import("../registry.js").View} */
export const view = {
  id: "create",
  title: "Create",
  icon: "M12 3l1.9 5.6L19.5 10.5l-5.6 1.9L12 18l-1.9-5.6L4.5 10.5l5.6-1.9zM19 16v5M16.5 18.5h5",
  mount(root) {
    root.append(h("header", { class: "head" }, h("h1", {}, "Create")));
  },
};
