/** A dialog over the page; Escape, its button or a press beside it closes it. */

import { h, icon } from "../dom.js";

export const CROSS = "M6 6l12 12M18 6L6 18";

/**
 * @param {string} title @param {Node[]} content @param {{wide?: boolean, onClose?: () => void}} [options]
 * @returns {HTMLDialogElement}
 */
export function openDialog(title, content, { wide = false, onClose } = {}) {
  const close = h("button", { type: "button", class: "button quiet small icon-only", "aria-label": "Close",
    onclick: () => dialog.close() }, icon(CROSS));
  const dialog = h("dialog", { class: wide ? "wide" : "ask", "aria-label": title },
    h("div", { class: "row spread dialog-head" }, h("h2", {}, title), close), content);
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => { dialog.remove(); onClose?.(); });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}
