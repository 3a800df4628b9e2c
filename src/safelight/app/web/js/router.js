/** Opens the view that the address names, and leaves the one before. */

import { fill, h, icon } from "./dom.js";
import { VIEWS } from "./registry.js";
import { say } from "./parts/saying.js";

/** @typedef {import("./registry.js").View} View */

let leaving = new AbortController();
/** @type {any} */
let bringing;

/**
 * Follows the address from now on.
 * @param {HTMLElement} main @param {HTMLElement} nav @param {import("./api.js").Api} api
 */
export function follow(main, nav, api) {
  fill(nav, VIEWS.map(link));
  addEventListener("hashchange", () => {
    if (location.hash.startsWith("#/") || !location.hash) open(main, nav, api); // else a place within the view
  });
  open(main, nav, api);
}

/** Opens a view by its id. @param {string} id @param {any} [brought] */
export function go(id, brought) {
  bringing = brought;
  const address = `#/${id}`;
  if (location.hash === address) dispatchEvent(new HashChangeEvent("hashchange"));
  else location.hash = address;
}

/** @param {View} view */
function link(view) {
  return h("a", { href: `#/${view.id}`, data: { view: view.id } }, icon(view.icon), view.title);
}

/** @param {HTMLElement} main @param {HTMLElement} nav @param {import("./api.js").Api} api */
async function open(main, nav, api) {
  const [id, ...rest] = location.hash.slice(2).split("/").map(decodeURIComponent);
  const view = VIEWS.find((one) => one.id === id) ?? VIEWS[0];
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const brought = bringing;
  bringing = undefined;
  for (const one of nav.querySelectorAll("a")) {
    if (one.dataset.view === view.id) one.setAttribute("aria-current", "page");
    else one.removeAttribute("aria-current");
  }
  document.title = `${view.title} - safelight`;
  const root = h("div", { class: `view view-${view.id}` });
  fill(main, root);
  scrollTo(0, 0);
  try {
    await view.mount(root, { api, signal, rest, brought, go, say });
  } catch (error) {
    if (!signal.aborted) say(error instanceof Error ? error.message : String(error), "bad");
  }
}
