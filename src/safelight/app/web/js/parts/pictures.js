/** Pictures to and from the server and the user. */

import { h } from "../dom.js";
import { token } from "../token.js";

/** @typedef {import("../api.js").Api} Api */

const MOST = 300; // blobs whose addresses are kept
/** @type {Map<string, Promise<string>>} */
const kept = new Map();

/**
 * An address of a picture of the server's that an element may show. Where a token is needed, which
 * the browser does not send by itself, that is an address of its bytes.
 * @param {Api} api @param {string} path @returns {Promise<string>}
 */
export function addressOf(api, path) {
  if (token() === null) return Promise.resolve(new URL(path.replace(/^\//, ""), document.baseURI).href);
  let found = kept.get(path);
  if (!found) {
    found = api.blob(path).then((blob) => URL.createObjectURL(blob));
    found.catch(() => kept.delete(path));
    kept.set(path, found);
    if (kept.size > MOST) {
      const [oldest, address] = /** @type {[string, Promise<string>]} */ (kept.entries().next().value);
      kept.delete(oldest);
      address.then(URL.revokeObjectURL, () => {});
    }
  }
  return found;
}

/**
 * An image of the server's. @param {Api} api @param {string} path @param {string} alt
 * @returns {HTMLImageElement}
 */
export function pictureOf(api, path, alt) {
  const image = h("img", { alt, decoding: "async", loading: "lazy" });
  addressOf(api, path).then((address) => { image.src = address; }, () => { image.alt = `${alt} (gone)`; });
  return image;
}

/** @param {Blob} blob @returns {Promise<string>} its bytes in base64 */
export function base64Of(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(String(reader.result).split(",")[1] ?? ""));
    reader.addEventListener("error", () => reject(new Error("The file cannot be read.")));
    reader.readAsDataURL(blob);
  });
}

/** @param {HTMLCanvasElement} canvas @returns {Promise<Blob>} as PNG */
export function pngOf(canvas) {
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("The canvas is empty."))), "image/png");
  });
}

/**
 * Where a user drops a picture, or chooses one, or pastes one.
 * @param {string} text @param {(file: File) => void} take
 * @param {{signal?: AbortSignal}} [options] with a signal, pasting anywhere on the page counts, too
 * @returns {HTMLElement}
 */
export function dropOf(text, take, { signal } = {}) {
  const input = h("input", { type: "file", accept: "image/png,image/jpeg,image/webp", class: "only-read" });
  const label = h("label", { class: "drop" }, text, input);
  input.addEventListener("change", () => {
    if (input.files?.[0]) take(input.files[0]);
    input.value = "";
  });
  takesDrops(label, take);
  if (signal) {
    addEventListener("paste", (event) => {
      const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
      if (file) take(file);
    }, { signal });
  }
  return label;
}

/** Lets an element take dropped files. @param {HTMLElement} element @param {(file: File) => void} take */
export function takesDrops(element, take) {
  element.addEventListener("dragover", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    element.classList.add("over");
  });
  element.addEventListener("dragleave", () => element.classList.remove("over"));
  element.addEventListener("drop", (event) => {
    element.classList.remove("over");
    const file = event.dataTransfer?.files[0];
    if (!file) return;
    event.preventDefault();
    event.stopPropagation();
    take(file);
  });
}

/** Saves a picture of the server's as a file. @param {Api} api @param {string} path @param {string} name */
export async function download(api, path, name) {
  const address = URL.createObjectURL(await api.blob(path));
  const link = h("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
