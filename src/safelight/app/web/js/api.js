/**
 * Speaks to the server: JSON, files, server-sent events and sockets, each with the token. Nothing else
 * on the page calls `fetch`.
 */

import { askForToken, token } from "./token.js";

/** What the server refused, in its own line. */
export class ApiError extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** @typedef {{signal?: AbortSignal}} Options */

export class Api {
  /** @type {Map<string, Promise<any>>} */
  #known = new Map();

  /** The JSON at an address. @param {string} path @param {Options} [options] @returns {Promise<any>} */
  async get(path, options = {}) {
    return (await this.#fetch(path, {}, options)).json();
  }

  /**
   * The same, asked for once and then remembered: for lists that stay.
   * @param {string} path @returns {Promise<any>}
   */
  known(path) {
    let found = this.#known.get(path);
    if (!found) {
      found = this.get(path);
      found.catch(() => this.#known.delete(path));
      this.#known.set(path, found);
    }
    return found;
  }

  /**
   * Sends JSON and gives the answer's.
   * @param {string} path @param {unknown} body @param {Options} [options] @returns {Promise<any>}
   */
  async post(path, body, options = {}) {
    return (await this.#post(path, body, options)).json();
  }

  /**
   * Sends JSON and gives the file that answers.
   * @param {string} path @param {unknown} body @param {Options} [options] @returns {Promise<Blob>}
   */
  async send(path, body, options = {}) {
    return (await this.#post(path, body, options)).blob();
  }

  /** Deletes. @param {string} path @param {Options} [options] @returns {Promise<any>} */
  async delete(path, options = {}) {
    return (await this.#fetch(path, { method: "DELETE" }, options)).json();
  }

  /** A file. @param {string} path @param {Options} [options] @returns {Promise<Blob>} */
  async blob(path, options = {}) {
    return (await this.#fetch(path, {}, options)).blob();
  }

  /**
   * Server-sent events, each as its name and its JSON, until the server ends them.
   * @param {string} path @param {Options} [options]
   * @returns {AsyncGenerator<[string, any]>}
   */
  async *events(path, options = {}) {
    const answer = await this.#fetch(path, { headers: { Accept: "text/event-stream" } }, options);
    if (!answer.body) return;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop() ?? "";
      for (const part of parts) {
        const event = /^event: (.*)$/m.exec(part);
        const data = /^data: (.*)$/m.exec(part);
        if (event && data) yield [event[1], JSON.parse(data[1])];
      }
    }
  }

  /**
   * A WebSocket; the token travels as one of the protocols, for a browser sends no other header.
   * @param {string} path @returns {WebSocket}
   */
  socket(path) {
    const address = new URL(path, document.baseURI);
    address.protocol = address.protocol.replace("http", "ws");
    const known = token();
    const secret = known === null ? [] : [`token.${base64url(known)}`];
    const socket = new WebSocket(address, ["safelight", ...secret]);
    socket.binaryType = "arraybuffer";
    return socket;
  }

  /** @param {string} path @param {unknown} body @param {Options} options @returns {Promise<Response>} */
  #post(path, body, options) {
    const headers = { "Content-Type": "application/json" };
    return this.#fetch(path, { method: "POST", headers, body: JSON.stringify(body) }, options);
  }

  /** @param {string} path @param {RequestInit} init @param {Options} options @returns {Promise<Response>} */
  async #fetch(path, init, { signal }) {
    const address = new URL(path.replace(/^\//, ""), document.baseURI);
    for (;;) {
      const known = token();
      const headers = { ...init.headers, ...(known === null ? {} : { Authorization: `Bearer ${known}` }) };
      // Without credentials, so that the browser does not ask for a password by itself.
      const answer = await fetch(address, { ...init, headers, signal, credentials: "omit" })
        .catch((error) => {
          if (signal?.aborted) throw error;
          throw new ApiError(0, "The server is not there any more; start safelight serve again.");
        });
      if (answer.status === 401) {
        if (known === token()) await askForToken(known !== null);
        continue;
      }
      if (!answer.ok) throw new ApiError(answer.status, await lineOf(answer));
      return answer;
    }
  }
}

/** @param {Response} answer @returns {Promise<string>} */
async function lineOf(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    return `The server answered ${answer.status}.`;
  }
}

/** @param {string} text @returns {string} */
function base64url(text) {
  const bytes = String.fromCharCode(...new TextEncoder().encode(text));
  return btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
