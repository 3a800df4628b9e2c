/** Starts the page. */

import { Api } from "./api.js";
import { h } from "./dom.js";
import { follow } from "./router.js";
import { themeSwitch } from "./theme.js";

const at = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));

at("bar-end").append(themeSwitch(), h("a", { href: "docs" }, "API"));
follow(at("view"), at("nav"), new Api());
