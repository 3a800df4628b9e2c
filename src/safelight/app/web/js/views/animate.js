/** Animate: clips of a picture, of a prompt, or of both. */

import { fill, h } from "../dom.js";
import { checkField, choiceField, numberField, textField } from "../parts/fields.js";
import { hasEnded, jobCards } from "../parts/jobs.js";
import { offerOf } from "../parts/offer.js";
import { addressOf, download } from "../parts/pictures.js";
import { promptField } from "../parts/prompt.js";
import { lineOf } from "../parts/saying.js";
import { sourceOf } from "./edit_ways.js";

const SHOWN = 30; // jobs that are looked through for clips

/** @type {import("../registry.js").View} */
export const view = {
  id: "animate",
  title: "Animate",
  icon: "M4 5h16v14H4zM10 9l5 3-5 3z",
  async mount(root, context) {
    const { api, signal, say, brought } = context;
    const offer = await offerOf(api);
    const models = offer.models.filter((model) => model.clips);
    root.append(h("header", { class: "head" }, h("h1", {}, "Animate"), h("p", {}, "A picture becomes a clip.")));
    if (!models.length) {
      root.append(none());
      return;
    }
    const model = choiceField("Model", models.map((one) => one.name));
    const prompt = promptField("Prompt", { rows: 2, value: brought?.prompt ?? "" });
    const numbers = {
      frames: numberField("Frames", { min: 1, max: offer.limits.frames, placeholder: "the model's" }),
      fps: numberField("Frames a second", { min: 1, max: 60, placeholder: "the model's" }),
      steps: numberField("Steps", { min: 1, max: offer.limits.steps, placeholder: "the model's" }),
      motion: numberField("Motion", { min: 0, max: 255, placeholder: "the model's" }),
    };
    const seed = textField("Seed", { placeholder: "by chance", inputMode: "numeric" });
    const loop = checkField("The first frame follows the last");
    const format = choiceField("File", offer.clip_formats.map((one) => [one, one === "mp4" ? "MP4" : "WebP, exact"]));
    const source = sourceOf(context);
    const send = h("button", { type: "submit", class: "button main" }, "Animate");
    const cards = jobCards(api, signal, { onEnd: (job) => add(job, true) });
    const clips = h("div", { class: "stack" });
    root.append(h("div", { class: "work" },
      h("form", { class: "panel stack", onsubmit: submit }, source.element, prompt.element, send, model.element,
        h("div", { class: "grid-2" }, Object.values(numbers).map((field) => field.element), seed.element, format.element), loop.element),
      h("div", { class: "stack" }, cards.element, clips)));
    if (brought?.picture) source.take(brought.picture);
    const kept = await api.get(`v1/jobs?limit=${SHOWN}`, { signal });
    for (const job of kept.jobs.filter((/** @type {any} */ one) => one.asked.what === "clip")) {
      if (hasEnded(job)) add(job, false);
      else cards.follow(job);
    }

    /** @param {Event} event */
    async function submit(event) {
      event.preventDefault();
      send.disabled = true;
      try {
        const told = { ...Object.fromEntries(Object.entries(numbers).map(([name, field]) => [name, field.get()])),
          prompt: prompt.get(), seed: seed.get().trim() || null, format: format.get() };
        const asked = Object.fromEntries(Object.entries(told).filter(([, value]) => value !== null && value !== ""));
        const image = await source.base64().catch(() => null);
        cards.follow(await api.post("v1/clips",
          { ...asked, model: model.get(), loop: loop.get(), ...(image ? { image } : {}) }, { signal }));
      } catch (error) {
        if (!signal.aborted) say(lineOf(error), "bad");
      } finally {
        send.disabled = false;
      }
    }

    /** @param {import("../parts/jobs.js").Job} job @param {boolean} first */
    async function add(job, first) {
      const clip = job.pictures[0];
      if (!clip) return;
      const address = await addressOf(api, clip.url);
      const name = job.asked.prompt || "A clip";
      const film = clip.media.startsWith("video/");
      const player = film
        ? h("video", { src: address, controls: true, loop: true, muted: true, autoplay: first, playsInline: true, "aria-label": name })
        : h("img", { src: address, alt: name });
      player.classList.add("player");
      const shown = h("article", { class: "panel stack" }, player, h("div", { class: "row spread" },
        h("p", { class: "small" }, name),
        h("button", { type: "button", class: "button small",
          onclick: () => download(api, clip.url, `${job.id.slice(0, 8)}.${film ? "mp4" : "webp"}`) }, "Download")));
      if (first) clips.prepend(shown);
      else clips.append(shown);
    }
  },
};

/** What is said where nothing here makes clips. */
function none() {
  const box = h("div", { class: "empty" });
  fill(box,
    h("h2", {}, "No video model is here yet"),
    h("p", {}, "The bundled models make pictures. Start the server with a video model, such as"),
    h("code", {}, "safelight serve --model stabilityai/stable-video-diffusion-img2vid"),
    h("p", {}, "or put one that you trained into a folder that SAFELIGHT_MODELS names."));
  return box;
}
