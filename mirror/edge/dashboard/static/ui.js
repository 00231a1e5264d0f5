// Parts that several pages have: badges, cards, tables, notices, the question before something goes.

import { h, setAttribute, setText } from "./dom.js";

const SIGNS = { good: "✓", warn: "!", bad: "✕", none: "–", busy: "↓" };

/** A word with a sign and a colour; `level` is `good`, `warn`, `bad`, `busy` or `none`. */
export function badge(level, text) {
  const sign = h("span", { class: "sign", "aria-hidden": "true" });
  const words = h("span");
  const root = h("span", {}, sign, words);
  const update = (nextLevel, nextText) => {
    setAttribute(root, "class", `badge ${nextLevel}`);
    setText(sign, SIGNS[nextLevel]);
    setText(words, nextText);
  };
  update(level, text);
  return { root, update };
}

/** A part of a page under a heading of its own. */
export function card(id, title, ...children) {
  const note = h("p", { class: "note" });
  const heading = h("h2", { id: `${id}-title`, tabindex: "-1" }, title);
  const head = h("div", { class: "card-head" }, heading, note);
  const root = h("section", { class: "card", id, "aria-labelledby": `${id}-title` }, head, ...children);
  return { root, head, note, heading };
}

/** A button. */
export function button(text, onClick, props = {}) {
  return h("button", { type: "button", on: { click: onClick }, ...props }, text);
}

/**
 * A table that becomes a list of cards where there is little room: `columns` are `{title, class}`. The roles are said
 * outright, for a table that is laid out as something else loses them.
 */
export function table(label, columns, props = {}) {
  const heads = columns.map(({ title, class: name }) =>
    h("th", { scope: "col", role: "columnheader", class: name }, title),
  );
  const body = h("tbody", { role: "rowgroup" });
  const head = h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...heads));
  const root = h("table", { role: "table", "aria-label": label, ...props }, head, body);
  return { root, body, heads, columns };
}

/** A row of such a table; `cells` are nodes, or lists of nodes, the first the row's header. */
export function row({ columns }, cells) {
  const made = cells.map((content, i) => {
    const props = { class: columns[i].class, "data-label": columns[i].title || null };
    const inside = Array.isArray(content) ? content : [content];
    return i === 0
      ? h("th", { scope: "row", role: "rowheader", ...props }, ...inside)
      : h("td", { role: "cell", ...props }, ...inside);
  });
  return h("tr", { role: "row" }, ...made);
}

/** Text in the font of programs. */
export const code = (text, props = {}) => h("code", props, text);

/** A command or an address with a button that copies it. */
export function copyable(text) {
  const words = code(text);
  const copy = button(
    "Copy",
    async () => {
      try {
        await navigator.clipboard.writeText(words.textContent);
        notice("Copied.");
      } catch {
        getSelection().selectAllChildren(words);
        notice("This browser copies only over HTTPS or on localhost: it is selected, copy it with the keyboard.");
      }
    },
    { class: "quiet", "aria-label": "Copy this" },
  );
  return { root: h("span", { class: "copyable" }, words, copy), update: (next) => setText(words, next) };
}

/** Say what became of something. What went well goes away by itself; `bad` stays until it is closed. */
export function notice(text, level = "good") {
  const close = button("✕", () => root.remove(), { class: "quiet", "aria-label": "Close this message" });
  const root = h("div", { class: `notice ${level}` }, badge(level, text).root, close);
  const all = document.getElementById("notices");
  all.append(root);
  while (all.childElementCount > 5) all.firstElementChild.remove();
  if (level === "good") setTimeout(() => root.remove(), 12_000);
}

/** Ask before something that cannot be taken back; whether the answer is yes. */
export function confirmed(title, words, yes) {
  return new Promise((resolve) => {
    const dialog = h("dialog", { "aria-labelledby": "question" });
    const done = (value) => () => dialog.close(value);
    dialog.append(
      h("h2", { id: "question" }, title),
      ...words.map((text) => h("p", {}, text)),
      h("div", { class: "actions" }, button("Cancel", done("no")), button(yes, done("yes"), { class: "danger" })),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Carry out what a button is for: it cannot be pressed again meanwhile, and what fails is said. */
export async function carryOut(control, work) {
  if (control.getAttribute("aria-disabled") === "true") return;
  control.setAttribute("aria-disabled", "true");
  try {
    await work();
  } catch (error) {
    notice(error.message, "bad");
  } finally {
    control.removeAttribute("aria-disabled");
  }
}

/** Say what became of references: `results` as the API gives them, of which those in `fine` are what was wanted. */
export function tellResults(results, fine) {
  for (const { reference, result, why, replica } of results) {
    const where = replica ? ` at ${replica}` : "";
    notice(`${reference}: ${result}${where}${why ? `. ${why}` : ""}`, fine.includes(result) ? "good" : "bad");
  }
}
