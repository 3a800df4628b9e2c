/**
 * Jobs: handed in, watched and shown while they go on.
 *
 * @typedef {object} JobPicture
 * @property {number} place
 * @property {string} url
 * @property {string} media
 *
 * @typedef {object} Job
 * @property {string} id
 * @property {"queued" | "running" | "done" | "failed" | "cancelled"} state
 * @property {string} model
 * @property {number} count
 * @property {number} created
 * @property {number | null} ahead
 * @property {{place: number, step: number, steps: number} | null} progress
 * @property {JobPicture[]} pictures
 * @property {{message: string} | null} error
 * @property {Record<string, any>} asked
 */

import { fill, h, icon } from "../dom.js";
import { CROSS } from "./dialog.js";
import { lineOf } from "./saying.js";

/** @typedef {import("../api.js").Api} Api */

export const PREVIEWS = 8;
const PAUSE = 2000; // milliseconds before a stream that broke is asked for again

/** @param {Job} job @returns {boolean} */
export const hasEnded = (job) => !["queued", "running"].includes(job.state);

/**
 * A card of each job that goes on: how far it is, what it looks like, and its cancelling.
 * @param {Api} api @param {AbortSignal} signal
 * @param {{onPicture?: (job: Job) => void, onEnd: (job: Job) => void}} hear what of jobs is told
 */
export function jobCards(api, signal, hear) {
  const element = h("div", { class: "stack tight", hidden: true });
  return { element, follow };

  /** Shows a job until it has ended. @param {Job} job @returns {Promise<void>} */
  async function follow(job) {
    const card = jobCard(job, () => cancel(job.id));
    element.append(card.element);
    element.hidden = false;
    try {
      for await (const [event, told] of untilEnded(api, job.id, signal)) {
        if (event === "state") {
          job = told;
          card.state(told);
        } else if (event === "progress") card.progress(told);
        else if (event === "picture") hear.onPicture?.(job);
      }
    } catch (error) {
      if (signal.aborted) return;
      card.fail(lineOf(error));
      return;
    }
    if (job.state === "failed") {
      card.fail(job.error?.message ?? "The job failed.");
    } else {
      card.element.remove();
      element.hidden = !element.childElementCount;
    }
    hear.onEnd(job);
  }

  /** @param {string} id */
  async function cancel(id) {
    await api.delete(`v1/jobs/${id}`).catch(() => {});
  }
}

/**
 * A job's events until it has ended; a stream that breaks off is asked for again.
 * @param {Api} api @param {string} id @param {AbortSignal} signal
 * @returns {AsyncGenerator<[string, any]>}
 */
async function* untilEnded(api, id, signal) {
  for (;;) {
    let ended = false;
    for await (const [event, told] of api.events(`v1/jobs/${id}/events`, { signal })) {
      yield [event, told];
      ended = event === "state" && hasEnded(told);
    }
    if (ended) return;
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
    if (signal.aborted) return;
  }
}

/** @param {Job} job @param {() => void} cancel */
function jobCard(job, cancel) {
  const preview = h("img", { class: "preview", alt: "What it looks like so far", hidden: true });
  const line = h("p", { class: "small number" });
  const bar = h("i");
  const meter = h("div", { class: "meter", role: "progressbar", "aria-label": "Progress", "aria-valuemin": 0, "aria-valuemax": 100 }, bar);
  const button = h("button", { type: "button", class: "button small", onclick: cancel }, "Cancel");
  const element = h("article", { class: "job panel" },
    preview,
    h("div", { class: "stack tight grow" },
      h("p", { class: "job-prompt" }, job.asked.prompt || (job.asked.what === "clip" ? "A clip" : "A picture without a prompt")),
      meter, h("div", { class: "row spread" }, line, button)));
  state(job);
  return { element, state, progress, fail };

  /** @param {Job} now */
  function state(now) {
    if (now.state === "queued") line.textContent = now.ahead ? `${now.ahead} before it` : "Next in line";
    else if (now.state === "running" && !now.progress) line.textContent = "Begins";
    if (now.progress) progress(now.progress);
  }

  /** @param {{place: number, step: number, steps: number, preview?: string}} now */
  function progress(now) {
    const part = (now.place + now.step / now.steps) / job.count;
    bar.style.width = `${Math.round(100 * part)}%`;
    meter.setAttribute("aria-valuenow", String(Math.round(100 * part)));
    const which = job.count > 1 ? `, picture ${now.place + 1} of ${job.count}` : "";
    line.textContent = `Step ${now.step} of ${now.steps}${which}`;
    if (now.preview) {
      preview.src = `data:image/png;base64,${now.preview}`;
      preview.hidden = false;
    }
  }

  /** @param {string} why */
  function fail(why) {
    meter.hidden = true;
    preview.hidden = true;
    line.className = "bad small";
    line.textContent = why;
    const dismiss = h("button", { type: "button", class: "button quiet small icon-only", "aria-label": "Dismiss",
      onclick: () => element.remove() }, icon(CROSS));
    fill(/** @type {HTMLElement} */ (button.parentElement), line, dismiss);
  }
}
