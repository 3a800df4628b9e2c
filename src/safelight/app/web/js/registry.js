/**
 * The views of the page, in the order of the navigation.
 *
 * A view is one module in `views/` that exports a `View` as `view`:
 *
 *     export const view = {
 *       id: "create",              // its address is #/create; #/create/a/b gives context.rest
 *       title: "Create",           // one word, as the navigation and the tab show it
 *       icon: "M4 12h16",          // the path of a line drawing of 24 x 24
 *       async mount(root, context) { root.append(...); },
 *     };
 *
 * `mount` fills `root`, an empty element, each time the view is opened; what it raises is told to the
 * user. There is no unmount: `context.signal` is aborted when the view is left, so hand it to
 * `fetch` (the API client's calls take it), to `addEventListener(..., {signal})`, and stop timers and
 * sockets by it. Whatever is to outlive a visit is kept in the module or on the server.
 *
 * Build elements by `h` of dom.js, from parts/; styles that a view alone needs go into a file of its
 * own in css/, which index.html names. Foreign text never becomes markup.
 *
 * @typedef {object} Context
 * @property {import("./api.js").Api} api       speaks to the server, with the token
 * @property {AbortSignal} signal               aborted when the view is left
 * @property {string[]} rest                    what the address has behind the view's id
 * @property {any} brought                      what the view that led here gave to `go`
 * @property {(id: string, brought?: any) => void} go   opens another view
 * @property {(line: string, kind?: "good" | "bad") => void} say   tells the user one line
 *
 * @typedef {object} View
 * @property {string} id
 * @property {string} title
 * @property {string} icon
 * @property {(root: HTMLElement, context: Context) => void | Promise<void>} mount
 */

import { view as create } from "./views/create.js";
import { view as edit } from "./views/edit.js";
import { view as live } from "./views/live.js";
import { view as animate } from "./views/animate.js";
import { view as inside } from "./views/inside.js";
import { view as training } from "./views/training.js";

/** @type {View[]} */
export const VIEWS = [create, edit, live, animate, inside, training];
