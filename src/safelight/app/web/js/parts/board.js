/** A canvas to draw on: masks, scribbles, and what a live picture follows. Strokes are kept as lines, so
 * that they can be undone, and drawn again at any size. */

import { h } from "../dom.js";
import { sliderField } from "./fields.js";

/**
 * @typedef {object} Stroke
 * @property {[number, number][]} points  parts of the width and the height
 * @property {number} size                part of the width
 * @property {string | null} colour       null takes away
 */

const SIDE = 768; // pixels of the longer side, as it is drawn
const KEY_STEP = 0.02;
const STRIPE = 24; // pixels from one pair of stripes to the next
const EDGES = /** @type {[string, number][]} */ ([["#ffffff", 3], ["#000000", 6]]); // and pixels around the mask

export class Board {
  /** @type {Stroke[]} */
  strokes = [];
  /** @type {Stroke | null} */
  #now = null;
  #cursor = /** @type {[number, number]} */ ([0.5, 0.5]);
  #erases = false;

  /**
   * @param {{label: string, width: number, height: number, ground?: string | null, colour: string,
   *   colours?: boolean, size?: number, mask?: boolean, onChange?: () => void}} options `ground` null shows what is
   *   behind; what is drawn on a `mask` is seen as stripes, on any colour
   */
  constructor({ label, width, height, ground = null, colour, colours = false, size = 0.06, mask = false, onChange }) {
    this.ground = ground;
    this.mask = mask;
    this.onChange = onChange ?? (() => {});
    this.backdrop = h("img", { alt: "", class: "board-backdrop", hidden: true, draggable: false });
    this.canvas = h("canvas", { class: "board-canvas", tabindex: 0, role: "img",
      "aria-label": `${label}. Arrow keys move the brush, space draws, Backspace undoes.` });
    this.surface = h("div", { class: "board-surface" }, this.backdrop, this.canvas);
    this.brush = sliderField("Brush", { min: 1, max: 40, value: Math.round(100 * size) }, (value) => `${value} %`);
    this.colour = h("input", { type: "color", value: colour, "aria-label": "Colour", hidden: !colours });
    this.eraser = h("button", { type: "button", class: "button small", "aria-pressed": "false", onclick: () => this.#erase() }, "Eraser");
    this.tools = h("div", { class: "board-tools" }, this.brush.element,
      h("div", { class: "row" }, this.colour, this.eraser,
        h("button", { type: "button", class: "button small", onclick: () => this.undo() }, "Undo"),
        h("button", { type: "button", class: "button small", onclick: () => this.clear() }, "Clear")));
    this.element = h("div", { class: "board stack tight" }, this.surface, this.tools);
    this.#listen();
    this.resize(width, height);
  }

  /** Takes other proportions; strokes stay. @param {number} width @param {number} height */
  resize(width, height) {
    const scale = SIDE / Math.max(width, height);
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    this.surface.style.aspectRatio = `${width} / ${height}`;
    this.surface.classList.toggle("tall", height > width);
    this.#draw();
  }

  /** Shows a picture behind what is drawn. @param {string} address */
  behind(address) {
    this.backdrop.src = address;
    this.backdrop.hidden = false;
  }

  /** Takes the last stroke away. */
  undo() {
    this.strokes.pop();
    this.#draw();
    this.onChange();
  }

  /** Takes all strokes away. */
  clear() {
    this.strokes = [];
    this.#draw();
    this.onChange();
  }

  /**
   * What is drawn, at a size.
   * @param {number} width @param {number} height
   * @param {{ground?: string, colour?: string}} [look] other colours than it is seen in
   * @returns {HTMLCanvasElement}
   */
  drawn(width, height, { ground = this.ground ?? "#000000", colour } = {}) {
    const canvas = h("canvas", { width, height });
    paint(canvas, this.strokes, ground, colour);
    return canvas;
  }

  #erase() {
    this.#erases = !this.#erases;
    this.eraser.setAttribute("aria-pressed", String(this.#erases));
  }

  #draw() {
    paint(this.canvas, this.strokes, this.ground);
    if (this.mask) hatch(this.canvas);
  }

  /** @param {[number, number]} point @returns {Stroke} */
  #begin(point) {
    const stroke = { points: [point], size: this.brush.get() / 100, colour: this.#erases ? null : this.colour.value };
    this.strokes.push(stroke);
    return stroke;
  }

  #listen() {
    const { canvas } = this;
    const place = (/** @type {PointerEvent} */ event) => {
      const box = canvas.getBoundingClientRect();
      return /** @type {[number, number]} */ ([(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]);
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      this.#now = this.#begin(place(event));
      this.#changed();
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.#now) return;
      this.#now.points.push(place(event));
      this.#changed();
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { this.#now = null; });
    canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (by) {
      this.#cursor = /** @type {[number, number]} */ (this.#cursor.map((at, axis) =>
        Math.min(1, Math.max(0, at + KEY_STEP * by[axis]))));
      this.#draw();
      this.#mark();
    } else if (event.key === " ") {
      this.#begin(this.#cursor);
      this.#changed();
    } else if (event.key === "Backspace" || (event.key === "z" && (event.ctrlKey || event.metaKey))) {
      this.undo();
    } else if (event.key === "[" || event.key === "]") {
      this.brush.set(this.brush.get() + (event.key === "]" ? 2 : -2));
    } else return;
    event.preventDefault();
  }

  /** Shows where keys would draw. */
  #mark() {
    const pen = penOf(this.canvas);
    const { width, height } = this.canvas;
    pen.beginPath();
    pen.arc(this.#cursor[0] * width, this.#cursor[1] * height, (this.brush.get() / 200) * width, 0, 7);
    for (const [colour, wide] of [["#000000", 6], ["#ffffff", 2]]) {
      pen.lineWidth = Number(wide);
      pen.strokeStyle = String(colour);
      pen.stroke();
    }
  }

  #changed() {
    this.#draw();
    this.onChange();
  }
}

/** @param {HTMLCanvasElement} canvas @returns {CanvasRenderingContext2D} */
function penOf(canvas) {
  return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
}

/** Puts stripes of black and of white, the picture between them, in the place of what is drawn, and an edge of both
 * around it. @param {HTMLCanvasElement} canvas */
function hatch(canvas) {
  const { width, height } = canvas;
  const drawn = h("canvas", { width, height });
  penOf(drawn).drawImage(canvas, 0, 0);
  const pen = penOf(canvas);
  pen.globalCompositeOperation = "source-in";
  pen.fillStyle = /** @type {CanvasPattern} */ (pen.createPattern(stripes(), "repeat"));
  pen.fillRect(0, 0, width, height);
  pen.globalCompositeOperation = "destination-over";
  for (const [colour, far] of EDGES) pen.drawImage(around(drawn, colour, far), 0, 0);
  pen.globalCompositeOperation = "source-over";
}

/** A tile of slanted stripes. @returns {HTMLCanvasElement} */
function stripes() {
  const tile = h("canvas", { width: STRIPE, height: STRIPE });
  const pen = penOf(tile);
  pen.lineWidth = STRIPE / 6;
  for (const [colour, at] of /** @type {[string, number][]} */ ([["rgb(0 0 0 / 70%)", 0], ["rgb(255 255 255 / 80%)", STRIPE / 4]])) {
    pen.strokeStyle = colour;
    for (const by of [-STRIPE, 0, STRIPE]) {
      pen.beginPath();
      pen.moveTo(at + by - STRIPE, 2 * STRIPE);
      pen.lineTo(at + by + 2 * STRIPE, -STRIPE);
      pen.stroke();
    }
  }
  return tile;
}

/** What lies within some pixels of what is drawn, and not in it, in one colour.
 * @param {HTMLCanvasElement} drawn @param {string} colour @param {number} far @returns {HTMLCanvasElement} */
function around(drawn, colour, far) {
  const { width, height } = drawn;
  const ring = h("canvas", { width, height });
  const pen = penOf(ring);
  for (let eighth = 0; eighth < 8; eighth++) {
    const angle = (eighth * Math.PI) / 4;
    pen.drawImage(drawn, far * Math.cos(angle), far * Math.sin(angle));
  }
  pen.globalCompositeOperation = "destination-out";
  pen.drawImage(drawn, 0, 0);
  pen.globalCompositeOperation = "source-in";
  pen.fillStyle = colour;
  pen.fillRect(0, 0, width, height);
  return ring;
}

/** @param {HTMLCanvasElement} canvas @param {Stroke[]} strokes @param {string | null} ground @param {string} [colour] */
function paint(canvas, strokes, ground, colour) {
  const pen = penOf(canvas);
  const { width, height } = canvas;
  pen.clearRect(0, 0, width, height);
  pen.lineCap = pen.lineJoin = "round";
  for (const stroke of strokes) {
    pen.globalCompositeOperation = stroke.colour === null ? "destination-out" : "source-over";
    pen.strokeStyle = colour ?? stroke.colour ?? "#000000";
    pen.lineWidth = Math.max(1, stroke.size * width);
    pen.beginPath();
    pen.moveTo(stroke.points[0][0] * width, stroke.points[0][1] * height);
    for (const [x, y] of stroke.points) pen.lineTo(x * width, y * height);
    pen.stroke();
  }
  pen.globalCompositeOperation = "destination-over";
  if (ground) {
    pen.fillStyle = ground;
    pen.fillRect(0, 0, width, height);
  }
  pen.globalCompositeOperation = "source-over";
}
