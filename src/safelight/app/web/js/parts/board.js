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

export class Board {
  /** @type {Stroke[]} */
  strokes = [];
  /** @type {Stroke | null} */
  #now = null;
  #cursor = /** @type {[number, number]} */ ([0.5, 0.5]);
  #erases = false;

  /**
   * @param {{label: string, width: number, height: number, ground?: string | null, colour: string,
   *   colours?: boolean, size?: number, onChange?: () => void}} options `ground` null shows what is behind
   */
  constructor({ label, width, height, ground = null, colour, colours = false, size = 0.06, onChange }) {
    this.ground = ground;
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
    const pen = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    const { width, height } = this.canvas;
    pen.beginPath();
    pen.arc(this.#cursor[0] * width, this.#cursor[1] * height, (this.brush.get() / 200) * width, 0, 7);
    pen.lineWidth = 2;
    pen.strokeStyle = "#ff6a4a";
    pen.stroke();
  }

  #changed() {
    this.#draw();
    this.onChange();
  }
}

/** @param {HTMLCanvasElement} canvas @param {Stroke[]} strokes @param {string | null} ground @param {string} [colour] */
function paint(canvas, strokes, ground, colour) {
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
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
