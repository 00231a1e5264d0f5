// The box that asks for the token, where the mirror has one.

import { setToken } from "./api.js";
import { h, show } from "./dom.js";

/** The form; `message` is what the mirror said, `entered()` is called when there is a token to try. */
export function tokenForm(message, wrong, entered) {
  const input = h("input", {
    type: "password",
    id: "token",
    name: "token",
    autocomplete: "current-password",
    required: true,
    spellcheck: "false",
    "aria-describedby": "token-note",
    "aria-invalid": wrong ? "true" : null,
  });
  const note = h(
    "p",
    { id: "token-note", class: wrong ? "banner bad" : "sub" },
    wrong ? `That token is not taken. ${message}` : message,
  );
  const keep = h("p", { class: "sub" }, "It is kept in this tab alone, until it is closed or the token is forgotten.");
  const form = h(
    "form",
    {
      class: "card token",
      on: {
        submit(event) {
          event.preventDefault();
          const text = input.value.trim();
          if (!/^[\x21-\x7e]+$/.test(text)) {
            input.setCustomValidity("A token is of ASCII characters without blanks.");
            input.reportValidity();
            return;
          }
          setToken(text);
          entered();
        },
      },
    },
    h("h1", {}, "This mirror asks for its token"),
    note,
    h("label", { class: "field", for: "token" }, h("span", {}, "Token"), input),
    keep,
    h("div", { class: "actions" }, h("button", { type: "submit", class: "first" }, "Show the dashboard")),
  );
  input.addEventListener("input", () => input.setCustomValidity(""));
  return { root: form, focus: () => input.focus() };
}

/** The button that forgets the token: shown while there is one. */
export function showForget(button, own) {
  show(button, own !== null);
}
