/** Create: pictures of a prompt. */

import { h } from "../dom.js";
import { gallery } from "../parts/gallery.js";
import { settingsIn } from "../parts/full.js";
import { hasEnded, jobCards, PREVIEWS } from "../parts/jobs.js";
import { offerOf } from "../parts/offer.js";
import { dropOf, takesDrops } from "../parts/pictures.js";
import { lineOf } from "../parts/saying.js";
import { settingsForm } from "../parts/settings.js";

/** @type {import("../registry.js").View} */
export const view = {
  id: "create",
  title: "Create",
  icon: "M12 3l1.9 5.6L19.5 10.5l-5.6 1.9L12 18l-1.9-5.6L4.5 10.5l5.6-1.9zM19 16v5M16.5 18.5h5",
  async mount(root, context) {
    const { api, signal, say } = context;
    const offer = await offerOf(api);
    const form = settingsForm(offer, { key: "safelight.create", example: "a 3d emoji of a red apple" });
    const send = h("button", { type: "submit", class: "button main" }, "Create");
    const panel = h("form", { class: "panel stack", onsubmit: submit },
      form.words, send, form.numbers,
      dropOf("Drop a picture here, or choose one, to get its settings back", take, { signal }));
    const cards = jobCards(api, signal, { onPicture: (job) => made.add(job), onEnd: (job) => made.add(job) });
    const seen = new Set();
    const made = gallery(context, {
      use,
      onFound: (job) => { if (!hasEnded(job) && job.asked.what !== "clip") follow(job); },
    });
    root.append(
      h("header", { class: "head" }, h("h1", {}, "Create"), h("p", {}, "Say what the picture should show.")),
      h("div", { class: "work" }, panel, h("div", { class: "stack" }, cards.element, made.element)));
    panel.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) panel.requestSubmit();
    });
    takesDrops(root, take);
    await made.load();

    /** @param {Event} event */
    async function submit(event) {
      event.preventDefault();
      send.disabled = true;
      try {
        follow(await api.post("v1/jobs", { ...form.get(), previews: PREVIEWS }, { signal }));
      } catch (error) {
        if (!signal.aborted) say(lineOf(error), "bad");
      } finally {
        send.disabled = false;
      }
    }

    /** @param {import("../parts/jobs.js").Job} job */
    function follow(job) {
      if (seen.has(job.id)) return;
      seen.add(job.id);
      cards.follow(job);
    }

    /** @param {any} settings */
    function use(settings) {
      form.set({ ...settings, count: 1 });
      form.fields.prompt.input.focus();
      say("These settings are in the form now.");
    }

    /** @param {File} file */
    async function take(file) {
      try {
        const told = await settingsIn(api, file);
        if (!told.settings) say("This picture tells nothing of its making.", "bad");
        else use(told.settings);
        for (const note of told.notes) say(note, "bad");
      } catch (error) {
        say(lineOf(error), "bad");
      }
    }
  },
};
