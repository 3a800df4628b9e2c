/** Lines to the user, at the lower edge; screen readers read them out. */

import { h } from "../dom.js";

const SHOWN = 6000; // milliseconds
const MOST = 3;

/** @param {string} line @param {"good" | "bad"} [kind] */
export function say(line, kind = "good") {
  const said = /** @type {HTMLElement} */ (document.getElementById("said"));
  const told = h("p", { class: kind }, line);
  said.append(told);
  while (said.children.length > MOST) said.children[0].remove();
  setTimeout(() => told.remove(), kind === "bad" ? 2 * SHOWN : SHOWN);
}

/** What an error says. @param {unknown} error @returns {string} */
export function lineOf(error) {
  return error instanceof Error ? error.message : String(error);
}
