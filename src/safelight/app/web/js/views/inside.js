/**
 * Inside: how a picture comes to be, step by step, word by word, and beside its neighbours.
 * #/inside/ID opens what a job left.
 */

import { fill, h } from "../dom.js";
import { gridSection } from "../parts/grid.js";
import { insideOf } from "../parts/inside_steps.js";
import { jobCards } from "../parts/jobs.js";
import { offerOf } from "../parts/offer.js";
import { lineOf } from "../parts/saying.js";
import { settingsForm } from "../parts/settings.js";
import { numberField } from "../parts/fields.js";

const STEPS = 12; // that are kept, where the user does not say
const MOST = 50;
const ROW = "1, 2, 4, 7, 10";

/** The last job that was looked into, for as long as the page is open. @type {string | null} */
let last = null;

/** @type {import("../registry.js").View} */
export const view = {
  id: "inside",
  title: "Inside",
  icon: "M10.5 17a6.5 6.5 0 1 0 0-13a6.5 6.5 0 0 0 0 13zM15.5 15.5L21 21M8 10.5h5M10.5 8v5",
  async mount(root, context) {
    const { api, signal, say, brought, rest } = context;
    const offer = await offerOf(api);
    const form = settingsForm(offer, { key: "safelight.inside", example: "a 3d emoji of a red apple" });
    form.fields.count.element.hidden = true;
    if (brought) form.set(brought);
    const kept = numberField("Steps that are kept", { min: 1, max: MOST, note: "Evenly spread, the first and the last among them." });
    kept.set(STEPS);
    const send = h("button", { type: "submit", class: "button main" }, "Look inside");
    const panel = h("form", { class: "panel stack", onsubmit: submit }, form.words, send, form.numbers, kept.element);
    const shown = h("div", { class: "stack" });
    const cards = jobCards(api, signal, { onEnd: (job) => { if (job.pictures.length) show(job.id); } });
    const row = gridSection(context, asked, {
      title: "The same seed under more and more guidance",
      says: "Guidance goes from what the network expects without the prompt to what it expects with it, and on in that"
        + " direction: x0 = without + scale (with - without). At 1 it is the prompt alone. Higher scales hold to the prompt"
        + " more closely and vary less, until colours and edges grow too strong. The noise is the same in all of these.",
      columns: ["scale", ROW], fixed: true,
    });
    const grid = gridSection(context, asked, {
      title: "A grid of two settings",
      says: "One picture for each pair of values, all of the form's other settings. With words, the first value is replaced"
        + " in the prompt by each of the others. Ranges are 5-20(+5) by their step, or 1-9[5] by their number.",
      columns: ["steps", "4, 8, 16"], rows: ["seed", "1-3"],
    });
    root.append(
      h("header", { class: "head" }, h("h1", {}, "Look inside"),
        h("p", {}, "A picture begins as noise, from which the network takes a part in each step.")),
      h("div", { class: "work" }, panel,
        h("div", { class: "stack" }, cards.element, shown, row, grid)));
    const looked = rest[0] ?? last;
    if (looked) await show(looked);
    else fill(shown, h("p", { class: "empty" }, "Ask for a picture to see its steps, and where each word of its prompt looks."));

    /** @returns {Record<string, any>} */
    function asked() {
      const { count, alone, ...told } = form.get();
      return told;
    }

    /** @param {Event} event */
    async function submit(event) {
      event.preventDefault();
      send.disabled = true;
      try {
        cards.follow(await api.post("v1/jobs", { ...asked(), inside: kept.get() ?? STEPS }, { signal }));
      } catch (error) {
        if (!signal.aborted) say(lineOf(error), "bad");
      } finally {
        send.disabled = false;
      }
    }

    /** @param {string} id */
    async function show(id) {
      try {
        const told = await api.get(`v1/jobs/${id}/pictures/0/inside`, { signal });
        last = id;
        fill(shown, insideOf(told));
      } catch (error) {
        if (id === last) last = null; // forgotten by the server
        if (!signal.aborted) say(lineOf(error), "bad");
      }
    }
  },
};
