/** A figure whose joints are put where they should be: by the pointer, or by the arrow keys. */

import { h, svg } from "../dom.js";

/** OpenPose's joints in its order. */
const JOINTS = [
  "nose", "neck", "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow", "left wrist",
  "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle", "right eye", "left eye", "right ear", "left ear",
];
const LIMBS = [[1, 2], [1, 5], [2, 3], [3, 4], [5, 6], [6, 7], [1, 8], [8, 9], [9, 10], [1, 11], [11, 12], [12, 13],
  [1, 0], [0, 14], [14, 16], [0, 15], [15, 17]];
/** A figure that stands, as parts of the picture. */
const STANDING = [
  [0.5, 0.2], [0.5, 0.32], [0.42, 0.32], [0.36, 0.46], [0.33, 0.59], [0.58, 0.32], [0.64, 0.46], [0.67, 0.59],
  [0.45, 0.58], [0.44, 0.74], [0.43, 0.91], [0.55, 0.58], [0.56, 0.74], [0.57, 0.91],
  [0.48, 0.18], [0.52, 0.18], [0.45, 0.19], [0.55, 0.19],
];
const VIEW = 1000; // units of the drawing's longer side
const KEY_STEP = 0.01;

export class Pose {
  /** @param {{width: number, height: number, onChange: () => void}} options */
  constructor({ width, height, onChange }) {
    this.onChange = onChange;
    /** @type {[number, number][]} */
    this.joints = STANDING.map(([x, y]) => [x, y]);
    /** @type {Set<number>} */
    this.hidden = new Set();
    this.drawing = svg("svg", { class: "pose" });
    this.limbs = LIMBS.map((_, place) => svg("line", { stroke: hue(place), "stroke-width": 16, "stroke-linecap": "round", opacity: 0.7 }));
    this.dots = JOINTS.map((name, joint) => this.#dot(name, joint));
    this.drawing.append(...this.limbs, ...this.dots);
    this.element = h("div", { class: "stack tight" },
      h("div", { class: "pose-ground" }, this.drawing),
      h("div", { class: "row spread" },
        h("p", { class: "muted small" }, "Drag the joints, or choose one by Tab and move it by the arrow keys. Delete hides one."),
        h("button", { type: "button", class: "button small", onclick: () => this.reset() }, "Stand up")));
    this.resize(width, height);
  }

  /** @param {number} width @param {number} height */
  resize(width, height) {
    const scale = VIEW / Math.max(width, height);
    this.size = [width * scale, height * scale];
    this.drawing.setAttribute("viewBox", `0 0 ${this.size[0]} ${this.size[1]}`);
    this.#show();
  }

  /** The figure as it was. */
  reset() {
    this.joints = STANDING.map(([x, y]) => [x, y]);
    this.hidden.clear();
    this.#changed();
  }

  /** Joints as the server takes them. @returns {([number, number] | null)[]} */
  get person() {
    return this.joints.map((joint, place) => (this.hidden.has(place) ? null : joint));
  }

  /** @param {string} name @param {number} joint */
  #dot(name, joint) {
    const dot = svg("circle", { r: 17, fill: hue(joint), tabindex: 0, role: "button", "aria-label": name, class: "joint" });
    dot.addEventListener("pointerdown", (event) => {
      dot.setPointerCapture(event.pointerId);
      dot.focus();
    });
    dot.addEventListener("pointermove", (event) => {
      if (!dot.hasPointerCapture(event.pointerId)) return;
      const box = this.drawing.getBoundingClientRect();
      this.#put(joint, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    });
    dot.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (by) this.#put(joint, this.joints[joint][0] + KEY_STEP * by[0], this.joints[joint][1] + KEY_STEP * by[1]);
      else if (event.key === "Delete" || event.key === "Backspace") this.#toggle(joint);
      else return;
      event.preventDefault();
    });
    return dot;
  }

  /** @param {number} joint @param {number} x @param {number} y */
  #put(joint, x, y) {
    const inside = (/** @type {number} */ part) => Math.min(1, Math.max(0, part));
    this.joints[joint] = [inside(x), inside(y)];
    this.#changed();
  }

  /** @param {number} joint */
  #toggle(joint) {
    if (!this.hidden.delete(joint)) this.hidden.add(joint);
    this.#changed();
  }

  #changed() {
    this.#show();
    this.onChange();
  }

  #show() {
    const at = this.joints.map(([x, y]) => [x * this.size[0], y * this.size[1]]);
    for (const [place, [from, to]] of LIMBS.entries()) {
      const line = this.limbs[place];
      for (const [name, value] of Object.entries({ x1: at[from][0], y1: at[from][1], x2: at[to][0], y2: at[to][1] })) {
        line.setAttribute(name, String(value));
      }
      line.setAttribute("visibility", this.hidden.has(from) || this.hidden.has(to) ? "hidden" : "visible");
    }
    for (const [joint, dot] of this.dots.entries()) {
      dot.setAttribute("cx", String(at[joint][0]));
      dot.setAttribute("cy", String(at[joint][1]));
      dot.classList.toggle("unseen", this.hidden.has(joint));
    }
  }
}

/** @param {number} place @returns {string} its colour among OpenPose's 18 */
function hue(place) {
  return `hsl(${place * 20} 100% 50%)`;
}
