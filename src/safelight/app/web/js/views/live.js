/** Live. */

import { h } from "../dom.js";

/** @type {import("../registry.js").View} */
export const view = {
  id: "live",
  title: "Live",
  icon: "M12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM5.6 5.6a9 9 0 0 0 0 12.8M18.4 5.6a9 9 0 0 1 0 12.8",
  mount(root) {
    root.append(h("header", { class: "head" }, h("h1", {}, "Live")));
  },
};
