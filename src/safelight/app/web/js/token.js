/** The server's token: asked for once, kept for as long as the tab is there. */

import { h } from "./dom.js";

const KEY = "safelight.token";
/** @type {Promise<void> | null} */
let asking = null;

/** @returns {string | null} */
export function token() {
  return sessionStorage.getItem(KEY);
}

/**
 * Asks the user for the token; ends when there is one. Calls meanwhile wait for the same answer.
 * @param {boolean} wrong whether the one that was given is not it
 * @returns {Promise<void>}
 */
export function askForToken(wrong) {
  asking ??= ask(wrong).finally(() => { asking = null; });
  return asking;
}

/** @param {boolean} wrong @returns {Promise<void>} */
function ask(wrong) {
  return new Promise((resolve) => {
    const input = h("input", { type: "password", required: true, autocomplete: "off", id: "token" });
    const form = h("form", { method: "dialog", class: "stack" },
      h("h2", {}, "This server wants its token"),
      h("p", { class: wrong ? "bad small" : "muted small" }, wrong
        ? "That was not it. It is what safelight serve was started with by --token."
        : "It is what safelight serve was started with by --token, and stays in this tab."),
      h("label", { class: "field" }, h("span", { class: "name" }, "Token"), input),
      h("button", { class: "button main" }, "Go on"));
    const dialog = h("dialog", { class: "ask", "aria-label": "Token" }, form);
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    form.addEventListener("submit", (event) => {
      event.preventDefault(); // the dialog goes here, and a form that is gone cannot be sent
      sessionStorage.setItem(KEY, input.value.trim());
      dialog.remove();
      resolve();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
