/** Live: a picture that follows what is drawn and typed. */

import { fill, h } from "../dom.js";
import { Board } from "../parts/board.js";
import { choiceField, numberField, sliderField, tabsField, textField } from "../parts/fields.js";
import { later } from "../parts/later.js";
import { modelOf, offerOf } from "../parts/offer.js";
import { pngOf } from "../parts/pictures.js";
import { promptField } from "../parts/prompt.js";
import { drawingOf, openStream } from "../parts/stream.js";

const SIDE = 512; // pixels of a picture where the model does not say its size
const LEAST = 256; // pixels of the longer side that a drawing is sent with
const PAUSE = 400; // milliseconds of quiet before a stream is opened anew
const LINES = ["scribble", "canny"]; // controls that lines are drawn for

/** @type {import("../registry.js").View} */
export const view = {
  id: "live",
  title: "Live",
  icon: "M12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM5.6 5.6a9 9 0 0 0 0 12.8M18.4 5.6a9 9 0 0 1 0 12.8",
  async mount(root, context) {
    const { api, signal, say, go } = context;
    const offer = await offerOf(api);
    const models = offer.models.filter((model) => model.pictures);
    const quick = models.find((model) => /turbo|lcm/.test(model.name)) ?? models[0];
    const prompt = promptField("Prompt", { rows: 2, value: "a 3d emoji of a red apple" });
    const negative = textField("Negative");
    const seed = textField("Seed", { value: "0", inputMode: "numeric" });
    const model = choiceField("Model", models.map((one) => one.name));
    model.set(quick.name);
    const steps = numberField("Steps", { min: 1, max: offer.limits.steps, value: quick.steps ?? 4 });
    const strength = sliderField("How much is made anew", { min: 0.1, max: 1, step: 0.05, value: 0.5 },
      (value) => `${Math.round(100 * value)} %`);
    const tabs = tabsField("What it follows", [["drawing", "A drawing"], ["lines", "Lines"], ["words", "Words alone"]], () => shape());
    const state = h("p", { class: "muted small", role: "status" }, "Begin, and draw.");
    const switched = h("button", { type: "button", class: "button main", onclick: () => (stream ? stop("It rests.") : start()) }, "Begin");
    const made = h("canvas", { class: "shown live-picture", role: "img", "aria-label": "The picture that follows" });
    const keep = h("button", { type: "button", class: "button small", disabled: true, onclick: edit }, "Edit this picture");
    const drawn = h("div");
    /** @type {Board} */
    let board;
    /** @type {ReturnType<typeof openStream> | null} */
    let stream = null;
    const again = later(PAUSE, () => { if (stream) start(); }, signal);
    shape();

    const panel = h("div", { class: "panel stack" }, prompt.element, switched, tabs.element, strength.element,
      model.element, h("div", { class: "grid-2" }, steps.element, seed.element), negative.element);
    root.append(
      h("header", { class: "head" }, h("h1", {}, "Live"), h("p", {}, "Draw or type, and the picture follows.")),
      h("div", { class: "work" }, panel, h("div", { class: "panel stack" }, state, h("div", { class: "canvases" }, drawn,
        h("div", { class: "stack tight" }, made, h("div", { class: "row" }, keep))))));
    for (const field of [prompt, negative, seed]) field.input.addEventListener("input", tell);
    for (const field of [steps, strength]) field.input.addEventListener("input", again);
    model.input.addEventListener("change", () => {
      steps.set(chosen().steps ?? 4);
      shape();
    });
    signal.addEventListener("abort", () => stream?.close());

    function chosen() {
      return modelOf(offer, model.get());
    }

    /** The control that lines are drawn for; none where the model has none. */
    function control() {
      return LINES.find((kind) => chosen().controls.includes(kind));
    }

    /** Puts the right canvas there for what is followed. */
    function shape() {
      const way = tabs.get();
      strength.element.hidden = way !== "drawing";
      const [width, height] = [chosen().width ?? SIDE, chosen().height ?? SIDE];
      Object.assign(made, { width, height });
      made.style.aspectRatio = `${width} / ${height}`;
      const lines = way === "lines";
      board = new Board({
        label: "Your drawing", width, height, ground: lines ? "#000000" : "#ffffff", colour: lines ? "#ffffff" : "#cc2222",
        colours: !lines, size: lines ? 0.03 : 0.12, onChange: draw,
      });
      if (way === "words") fill(drawn);
      else fill(drawn, board.element);
      drawn.hidden = way === "words";
      if (stream) again();
    }

    /** What the stream is opened with. */
    function opening() {
      const way = tabs.get();
      return {
        model: model.get(), prompt: prompt.get(), negative: negative.get(), seed: seed.get().trim() || "0", steps: steps.get() ?? 4,
        ...(way === "drawing" ? { strength: strength.get() } : {}),
        ...(way === "lines" ? { control: control() } : {}),
      };
    }

    function start() {
      if (tabs.get() === "lines" && !control()) {
        stop(`${model.get()} has no control for lines; choose another model.`);
        return;
      }
      stream?.close();
      fill(state, "The lamp warms up.");
      fill(switched, "Stop");
      const mine = openStream(api, opening(), {
        begun: () => { fill(state, "It follows."); tell(); draw(); },
        picture: (picture) => {
          Object.assign(made, { width: picture.width, height: picture.height });
          made.getContext("2d")?.putImageData(picture, 0, 0);
          keep.disabled = false;
          fill(state, "It follows.");
        },
        wrong: (line) => fill(state, line),
        ended: (line) => { if (stream === mine) stop(line); },
      });
      stream = mine;
    }

    /** @param {string} line */
    function stop(line) {
      stream?.close();
      stream = null;
      fill(state, line);
      fill(switched, "Begin");
    }

    function tell() {
      stream?.tell("say", () => JSON.stringify({ prompt: prompt.get(), negative: negative.get(), seed: seed.get().trim() || "0" }));
    }

    function draw() {
      if (tabs.get() === "words") return;
      stream?.tell("draw", () => {
        const scale = Math.max(1, LEAST / Math.max(made.width, made.height));
        return drawingOf(board.drawn(Math.round(made.width * scale), Math.round(made.height * scale)));
      });
    }

    async function edit() {
      try {
        go("edit", { picture: await pngOf(made), prompt: prompt.get() });
      } catch (error) {
        say(String(error), "bad");
      }
    }
  },
};
