/** A live stream over the server's WebSocket: what is said and drawn goes there, pictures come back. */

/**
 * What a stream is opened with, as the server's `AskedStream`.
 * @typedef {Record<string, any>} Opening
 *
 * @typedef {object} Hear
 * @property {(begun: {width: number, height: number, draws: boolean, hint: boolean}) => void} begun
 * @property {(picture: ImageData) => void} picture
 * @property {(line: string) => void} wrong      something was refused; the stream goes on
 * @property {(line: string) => void} ended      the stream is over
 */

const HEAD = 8; // bytes before a picture: its width and height

/**
 * Opens a stream. Of what is told while the server is busy the newest alone is sent.
 * @param {import("../api.js").Api} api @param {Opening} opening @param {Hear} hear
 */
export function openStream(api, opening, hear) {
  const socket = api.socket("v1/live");
  let why = "";
  let over = false;
  /** @type {Map<string, () => string | ArrayBuffer>} */
  const waiting = new Map();
  socket.addEventListener("open", () => socket.send(JSON.stringify(opening)));
  socket.addEventListener("message", ({ data }) => {
    if (over) return;
    if (typeof data !== "string") {
      hear.picture(pictureIn(data));
      return;
    }
    const told = JSON.parse(data);
    if (told.kind === "begun") hear.begun(told);
    else if (told.kind === "wrong") hear.wrong(told.line);
    else why = told.line;
  });
  socket.addEventListener("close", () => {
    if (!over) hear.ended(why || "The server does not let this page stream, or is not there any more.");
    over = true;
  });
  return { tell, close };

  /**
   * Sends something as soon as there is room; what waits of the same name gives way.
   * @param {string} name @param {() => string | ArrayBuffer} make
   */
  function tell(name, make) {
    waiting.set(name, make);
    flush();
  }

  function flush() {
    if (over || !waiting.size || socket.readyState !== WebSocket.OPEN) return;
    if (socket.bufferedAmount > 0) {
      setTimeout(flush, 20);
      return;
    }
    for (const make of waiting.values()) socket.send(make());
    waiting.clear();
  }

  function close() {
    over = true;
    socket.close();
  }
}

/** @param {ArrayBuffer} bytes @returns {ImageData} */
function pictureIn(bytes) {
  const head = new DataView(bytes);
  const [width, height] = [head.getUint32(0, true), head.getUint32(4, true)];
  const levels = new Uint8Array(bytes, HEAD);
  const picture = new ImageData(width, height);
  for (let from = 0, to = 0; from < levels.length; from += 3, to += 4) {
    picture.data[to] = levels[from];
    picture.data[to + 1] = levels[from + 1];
    picture.data[to + 2] = levels[from + 2];
    picture.data[to + 3] = 255;
  }
  return picture;
}

/** A drawing as the server takes it. @param {HTMLCanvasElement} canvas @returns {ArrayBuffer} */
export function drawingOf(canvas) {
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
  const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
  const bytes = new Uint8Array(4 + data.length);
  new DataView(bytes.buffer).setUint32(0, canvas.width, true);
  bytes.set(data, 4);
  return bytes.buffer;
}
