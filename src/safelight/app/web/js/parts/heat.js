/** Maps as heat: dark and clear where there is little, then red, then the light of the lamp. */

const STOPS = [[20, 6, 16, 150], [110, 16, 40, 165], [226, 58, 32, 185], [255, 150, 50, 205], [255, 244, 200, 225]];

/**
 * Draws a grey map, the address of an image, as heat; one that comes late does not cover a newer one.
 * @param {HTMLCanvasElement} canvas @param {string} address
 */
export async function drawHeat(canvas, address) {
  canvas.dataset.map = address;
  const image = new Image();
  image.src = address;
  await image.decode();
  if (canvas.dataset.map !== address) return;
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < pixels.data.length; i += 4) pixels.data.set(colourOf(pixels.data[i] / 255), i);
  context.putImageData(pixels, 0, 0);
}

/** @param {number} part 0 to 1 @returns {number[]} red, green, blue, opacity */
export function colourOf(part) {
  const place = part * (STOPS.length - 1);
  const first = Math.min(Math.floor(place), STOPS.length - 2);
  return STOPS[first].map((value, i) => Math.round(value + (place - first) * (STOPS[first + 1][i] - value)));
}
