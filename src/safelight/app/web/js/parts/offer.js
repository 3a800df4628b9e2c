/**
 * What the server offers: `GET /v1/offer`.
 *
 * @typedef {object} OfferedModel
 * @property {string} name
 * @property {string} family
 * @property {number} size
 * @property {string[]} controls
 * @property {boolean} pictures
 * @property {boolean} clips
 * @property {string | null} sampler
 * @property {number | null} steps
 * @property {number | null} scale
 * @property {number | null} width
 * @property {number | null} height
 *
 * @typedef {object} Offer
 * @property {string} version
 * @property {OfferedModel[]} models
 * @property {string[]} adapters
 * @property {string[]} samplers
 * @property {string[]} schedules
 * @property {string[]} annotators
 * @property {("mp4" | "webp")[]} clip_formats
 * @property {boolean} trainings
 * @property {{pixels: number, given_pixels: number, count: number, steps: number, prompt: number, frames: number}} limits
 */

/** @param {import("../api.js").Api} api @returns {Promise<Offer>} */
export function offerOf(api) {
  return api.known("v1/offer");
}

/**
 * Its model of a name, else the first. @param {Offer} offer @param {string | null | undefined} name
 * @returns {OfferedModel}
 */
export function modelOf(offer, name) {
  return offer.models.find((model) => model.name === name) ?? offer.models[0];
}
