/** The reference of the server's APIs, put together from its own description, /openapi.json. */

import { Api } from "./api.js";
import { fill, h } from "./dom.js";
import { lineOf, say } from "./parts/saying.js";
import { themeSwitch } from "./theme.js";

const VERBS = ["get", "post", "put", "patch", "delete"];
const at = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));

at("bar-end").append(themeSwitch(), h("a", { href: "./" }, "Page"));
show().catch((error) => say(lineOf(error), "bad"));

/** @returns {Promise<void>} */
async function show() {
  const described = await new Api().get("openapi.json");
  /** @type {Map<string, HTMLElement[]>} */
  const parts = new Map();
  for (const [address, operations] of Object.entries(described.paths)) {
    for (const verb of VERBS.filter((one) => one in operations)) {
      const part = operations[verb].tags?.[0] ?? "more";
      parts.set(part, [...(parts.get(part) ?? []), operation(verb, address, operations[verb], described)]);
    }
  }
  fill(at("nav"), [...parts.keys()].map((part) => h("a", { href: `#${slug(part)}` }, part)));
  fill(at("view"),
    h("header", { class: "head" },
      h("h1", {}, "What the server answers"),
      h("p", {}, "version ", described.info.version, "; to machines at ", h("a", { href: "openapi.json" }, "/openapi.json"))),
    [...parts].map(([part, operations]) => h("section", { class: "part", id: slug(part) }, h("h2", {}, part), operations)));
}

/** @param {string} verb @param {string} address @param {any} told @param {any} described */
function operation(verb, address, told, described) {
  const [type, body] = Object.entries(told.requestBody?.content ?? {})[0] ?? [];
  const fields = body ? fieldsOf(body.schema, described) : [];
  return h("details", { class: "operation" },
    h("summary", {},
      h("span", { class: "verb" }, verb.toUpperCase()),
      h("span", { class: "address" }, address),
      h("span", { class: "what" }, told.summary ?? "")),
    h("div", { class: "stack" },
      told.description ? h("p", {}, told.description) : null,
      told.parameters?.length ? table("Parameters", told.parameters.map((/** @type {any} */ one) => [
        one.name, `${one.in}${one.required ? ", must be there" : ""}`, kindOf(one.schema), one.description ?? ""])) : null,
      fields.length ? table(`Body, ${type}`, fields) : null,
      table("Answers", Object.entries(told.responses ?? {}).map(([status, answer]) => [
        status, answer.description ?? "", Object.keys(answer.content ?? {}).join(", "), ""]))));
}

/** @param {any} schema @param {any} described @returns {string[][]} */
function fieldsOf(schema, described) {
  const found = resolved(schema, described);
  const needed = new Set(found.required ?? []);
  return Object.entries(found.properties ?? {}).map(([name, field]) => [
    name,
    needed.has(name) ? "must be there" : "default" in field ? `else ${JSON.stringify(field.default)}` : "",
    kindOf(field),
    field.description ?? "",
  ]);
}

/** @param {any} schema @param {any} described @returns {any} */
function resolved(schema, described) {
  const name = schema?.$ref?.split("/").pop();
  return name ? described.components.schemas[name] : schema ?? {};
}

/** A kind of value in words. @param {any} schema @returns {string} */
function kindOf(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return choices.map(kindOf).filter((/** @type {string} */ one) => one !== "null").join(" or ");
  if (schema.enum) return schema.enum.map((/** @type {unknown} */ one) => JSON.stringify(one)).join(", ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === "array") return `list of ${kindOf(schema.items) || "values"}`;
  return schema.type ?? "";
}

/** @param {string} title @param {string[][]} rows */
function table(title, rows) {
  return h("div", { class: "stack tight" },
    h("h3", {}, title),
    h("table", { class: "plain" }, h("tbody", {}, rows.map(([name, ...more]) =>
      h("tr", {}, h("td", { class: "mono" }, name), more.map((one) => h("td", {}, one)))))));
}

/** @param {string} text */
function slug(text) {
  return text.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-");
}
