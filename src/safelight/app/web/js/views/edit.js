/** Edit: a picture made anew, in part or beyond its edges, or steered by lines and poses. */

import { fill, h } from "../dom.js";
import { tabsField } from "../parts/fields.js";
import { fullView } from "../parts/full.js";
import { jobCards, PREVIEWS } from "../parts/jobs.js";
import { offerOf } from "../parts/offer.js";
import { pictureOf } from "../parts/pictures.js";
import { lineOf } from "../parts/saying.js";
import { settingsForm } from "../parts/settings.js";
import { controlWay } from "./edit_control.js";
import { ways } from "./edit_ways.js";

/**
 * A way to edit: what is shown to work on, what is set beside the prompt, and what it adds to a request.
 * @typedef {object} Way
 * @property {HTMLElement} place
 * @property {HTMLElement} options
 * @property {() => Promise<Record<string, any>>} asked  raises an Error that says what is missing
 * @property {(picture: Blob) => void} take
 * @property {() => void} [modelChanged]
 */

const NAMES = /** @type {[string, string][]} */ ([
  ["whole", "Picture"], ["inside", "Inpaint"], ["beyond", "Outpaint"], ["control", "Control"],
]);

/** @type {import("../registry.js").View} */
export const view = {
  id: "edit",
  title: "Edit",
  icon: "M4 20l1-4L16 5l3 3L8 19zM14 7l3 3",
  async mount(root, context) {
    const { api, signal, say, brought } = context;
    const offer = await offerOf(api);
    /** @type {Way | undefined} */
    let control;
    const form = settingsForm(offer, {
      key: "safelight.edit", sized: false, example: "what should be seen",
      onModel: () => control?.modelChanged?.(),
    });
    control = controlWay(context, offer, form);
    /** @type {Record<string, Way>} */
    const known = { ...ways(context, form), control };
    /** @type {import("../parts/gallery.js").Made[]} */
    let made = [];
    const place = h("div", { class: "stack" });
    const options = h("div", { class: "stack" });
    const tabs = tabsField("Way of editing", NAMES, show);
    const send = h("button", { type: "submit", class: "button main" }, "Make it");
    const panel = h("form", { class: "panel stack", onsubmit: submit }, form.words, send, options, form.numbers);
    const cards = jobCards(api, signal, { onEnd: finished });
    const results = h("div", { class: "tiles" });
    root.append(
      h("header", { class: "head" }, h("h1", {}, "Edit"), h("p", {}, "Begin from a picture, or lead one by lines and poses.")),
      h("div", { class: "row edit-tabs" }, tabs.element),
      h("div", { class: "work" }, panel, h("div", { class: "stack" }, h("div", { class: "panel stack" }, place), cards.element, results)));
    if (brought?.picture) {
      for (const way of Object.values(known)) way.take(brought.picture);
      form.set({ prompt: brought.prompt });
    }
    const asked = context.rest[0] ?? "whole";
    tabs.set(asked in known ? asked : "whole");
    show(tabs.get());

    /** @param {string} name */
    function show(name) {
      fill(place, known[name].place);
      fill(options, known[name].options);
      known[name].modelChanged?.();
    }

    /** @param {Event} event */
    async function submit(event) {
      event.preventDefault();
      send.disabled = true;
      try {
        const request = { ...form.get(), previews: PREVIEWS, ...(await known[tabs.get()].asked()) };
        cards.follow(await api.post("v1/jobs", request, { signal }));
      } catch (error) {
        if (!signal.aborted) say(lineOf(error), "bad");
      } finally {
        send.disabled = false;
      }
    }

    /** @param {import("../parts/jobs.js").Job} job */
    function finished(job) {
      for (const picture of job.pictures) {
        const one = { job, picture };
        made = [one, ...made];
        results.prepend(h("div", { class: "tile" }, h("button", { type: "button", "aria-label": "Open the result",
          onclick: () => fullView(context, made, made.indexOf(one), (settings) => form.set(settings)) },
        pictureOf(api, picture.url, job.asked.prompt || "the result"))));
      }
    }
  },
};
