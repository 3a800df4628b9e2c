/** Ways to edit a picture: made anew as a whole, behind a mask, or beyond its edges. */

import { fill, h } from "../dom.js";
import { Board } from "../parts/board.js";
import { numberField, sliderField } from "../parts/fields.js";
import { base64Of, dropOf, pngOf } from "../parts/pictures.js";

/** @typedef {import("./edit.js").Way} Way */

const part = (/** @type {number} */ value) => `${Math.round(100 * value)} %`;

/**
 * @param {import("../registry.js").Context} context
 * @param {{set: (settings: any) => void}} form takes a picture's prompt
 * @returns {{whole: Way, inside: Way, beyond: Way}}
 */
export function ways(context, form) {
  return { whole: whole(), inside: inside(), beyond: beyond() };

  /** @returns {Way} */
  function whole() {
    const source = sourceOf(context);
    const strength = sliderField("How much is made anew", { min: 0.05, max: 1, step: 0.05, value: 0.6 }, part);
    return {
      place: source.element,
      options: strength.element,
      take: source.take,
      asked: async () => ({ image: await source.base64(), strength: strength.get() }),
    };
  }

  /** @returns {Way} */
  function inside() {
    const board = new Board({ label: "The mask: paint what is to be made anew", width: 1, height: 1, colour: "#ffffff", size: 0.12, mask: true });
    const source = sourceOf(context, board.element, (address, width, height) => {
      board.resize(width, height);
      board.clear();
      board.behind(address);
    });
    const strength = sliderField("How much is made anew", { min: 0.05, max: 1, step: 0.05, value: 0.9 }, part);
    const blur = numberField("Blur of the mask's edge", { min: 0, max: 64, step: 1, placeholder: "the model's" });
    return {
      place: source.element,
      options: h("div", { class: "stack" }, strength.element, blur.element),
      take: source.take,
      asked: async () => {
        const image = await source.base64();
        if (!board.strokes.some((stroke) => stroke.colour !== null)) {
          throw new Error("Paint over what is to be made anew.");
        }
        const mask = await pngOf(board.drawn(source.width, source.height, { ground: "#000000", colour: "#ffffff" }));
        const more = blur.get() === null ? {} : { mask_blur: blur.get() };
        return { image, mask: await base64Of(mask), strength: strength.get(), ...more };
      },
    };
  }

  /** @returns {Way} */
  function beyond() {
    const source = sourceOf(context, null, () => preview());
    const sides = /** @type {const} */ (["left", "top", "right", "bottom"]);
    const fields = sides.map((side) => numberField(`Pixels ${side === "top" ? "above" : side === "bottom" ? "below" : side}`,
      { min: 0, max: 4096, step: 8, value: 16 }));
    const options = h("div", { class: "grid-2" }, fields.map((field) => field.element));
    options.addEventListener("input", preview);
    return {
      place: source.element,
      options,
      take: source.take,
      asked: async () => ({
        image: await source.base64(),
        outpaint: Object.fromEntries(sides.map((side, place) => [side, fields[place].get() ?? 0])),
      }),
    };

    /** Shows how much is added, in proportion. */
    function preview() {
      if (!source.width) return;
      const [left, top, right, bottom] = fields.map((field) => field.get() ?? 0);
      const [width, height] = [source.width + left + right, source.height + top + bottom];
      Object.assign(source.frame.style, {
        aspectRatio: `${width} / ${height}`,
        paddingLeft: `${(100 * left) / width}%`,
        paddingRight: `${(100 * right) / width}%`,
        paddingTop: `${(100 * top) / width}%`, // paddings are parts of the width
        paddingBottom: `${(100 * bottom) / width}%`,
      });
      source.frame.classList.add("margins");
    }
  }
}

/**
 * A picture that the user gives, shown, or worked on in the place of that.
 * @param {import("../registry.js").Context} context
 * @param {HTMLElement | null} [worked] what shows the picture itself
 * @param {(address: string, width: number, height: number) => void} [onPicture]
 */
export function sourceOf({ say }, worked = null, onPicture = () => {}) {
  /** @type {Blob | null} */
  let picture = null;
  const image = h("img", { class: "shown", alt: "The picture to begin from" });
  const frame = h("div", { class: "source-frame", hidden: true }, worked ?? image);
  const size = h("p", { class: "muted small number" });
  const drop = dropOf("Drop a picture here, or choose one", take);
  const source = {
    element: h("div", { class: "stack tight pane" }, frame, size, drop), frame, width: 0, height: 0, take,
    /** @returns {Promise<string>} */
    base64: async () => {
      if (!picture) throw new Error("Give a picture first.");
      return base64Of(picture);
    },
  };
  return source;

  /** @param {Blob} blob */
  async function take(blob) {
    try {
      const read = await createImageBitmap(blob);
      [source.width, source.height, picture] = [read.width, read.height, blob];
      read.close();
    } catch {
      say("This is no picture that is read here; give PNG, JPEG or WebP.", "bad");
      return;
    }
    const address = URL.createObjectURL(blob);
    image.src = address;
    frame.hidden = false;
    fill(size, `${source.width} x ${source.height} pixels`);
    onPicture(address, source.width, source.height);
  }
}
