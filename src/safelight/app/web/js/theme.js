/** Dark or light: the system's, until the user chooses. */

import { h, icon } from "./dom.js";

const KEY = "safelight.theme";
const SUN = "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2M12 20v2M4.9 4.9l1.4 1.4M17.7 17.7l1.4 1.4M2 12h2"
  + "M20 12h2M4.9 19.1l1.4-1.4M17.7 6.3l1.4-1.4";
const MOON = "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z";

/** The switch. @returns {HTMLElement} */
export function themeSwitch() {
  const system = matchMedia("(prefers-color-scheme: light)");
  const button = h("button", { type: "button", class: "button quiet small icon-only", onclick: change });
  system.addEventListener("change", () => {
    if (localStorage.getItem(KEY) === null) show(system.matches ? "light" : "dark");
  });
  show(document.documentElement.dataset.theme ?? "dark");
  return button;

  function change() {
    const next = document.documentElement.dataset.theme === "light" ? "dark" : "light";
    localStorage.setItem(KEY, next);
    show(next);
  }

  /** @param {string} theme */
  function show(theme) {
    document.documentElement.dataset.theme = theme;
    const other = theme === "light" ? "dark" : "light";
    button.replaceChildren(icon(theme === "light" ? MOON : SUN));
    button.setAttribute("aria-label", `Switch to ${other}`);
    button.title = `Switch to ${other}`;
  }
}
