// What is pinned, and the form that pins.

import { get, path, post, remove } from "./api.js";
import { h, keyed, setAttribute, setText, show } from "./dom.js";
import { bytes, plural, setWhen, when } from "./format.js";
import { moduleHref } from "./routes.js";
import { on, state } from "./state.js";
import { badge, button, card, carryOut, code, confirmed, notice, row, table, tellResults } from "./ui.js";

/** The page of pins. */
export function pinsPage() {
  const form = pinForm(look);
  const list = table("Pins", [
    { title: "Reference", class: "broad" },
    { title: "Here" },
    { title: "Size", class: "number" },
    { title: "Pinned" },
    { title: "By" },
    { title: "Action" },
  ]);
  const empty = h(
    "p",
    { class: "empty" },
    "Nothing is pinned: what was not asked for the longest goes first when the disk is full. ",
    "Pin above, or by ",
    code("wasm-mirror pin REF"),
    ".",
  );
  const made = card("pins", "Pinned", list.root, empty);
  const root = h(
    "div",
    { class: "page" },
    h("h1", { tabindex: "-1" }, "Pins"),
    h(
      "p",
      { class: "lead" },
      "What is pinned stays on the disk of every replica, whatever else has to go: " +
        "what the reference names now, and what it named before.",
    ),
    form,
    made.root,
  );
  show(empty, false);

  async function look() {
    try {
      const { pins } = await get("pins");
      keyed(
        list.body,
        pins,
        (one) => one.reference,
        () => pin(list, look),
      );
      setText(made.note, plural(pins.length, "pin"));
      show(list.root, pins.length > 0);
      show(empty, pins.length === 0);
    } catch (error) {
      setText(made.note, error.message);
    }
  }

  const stop = on(["changed"], () => state("changed") && look());
  document.title = "Pins · wasm-mirror";
  look();
  return { root, stop };
}

function pinForm(done) {
  const input = h("input", {
    id: "pin",
    name: "pin",
    required: true,
    autocomplete: "off",
    spellcheck: "false",
    placeholder: "ghcr.io/istio-ecosystem/wasm-extensions/basic_auth:1.12.0",
  });
  const submit = h("button", { type: "submit", class: "first" }, "Pin");
  return h(
    "form",
    {
      class: "card inline",
      on: {
        submit(event) {
          event.preventDefault();
          carryOut(submit, async () => {
            const { results } = await post("pins", { references: [input.value.trim()] });
            tellResults(results, ["pinned", "already"]);
            if (results.every((one) => one.result === "pinned" || one.result === "already")) input.value = "";
            await done();
          });
        },
      },
    },
    h("label", { class: "field", for: "pin" }, h("span", {}, "Reference"), input),
    submit,
  );
}

function pin(list, changed) {
  let reference = "";
  const link = h("a", { class: "reference" });
  const problem = h("span", { class: "sub why" });
  const here = badge("none", "");
  const [size, by] = [h("span"), h("span", { class: "words" })];
  const at = when(null);
  const unpin = button("Unpin…", () =>
    carryOut(unpin, async () => {
      const words = ["What it protects at all replicas may then be evicted, if nothing else pins it."];
      if (!(await confirmed(`Unpin ${reference}?`, words, "Unpin"))) return;
      await remove(`pins/${path(reference)}`);
      notice(`${reference}: unpinned`);
      await changed();
    }),
  );
  const root = row(list, [[link, problem], here.root, size, at, by, unpin]);
  const update = (one) => {
    reference = one.reference;
    setText(link, reference);
    setAttribute(link, "href", moduleHref(reference));
    setAttribute(unpin, "aria-label", `Unpin ${reference}…`);
    setText(problem, one.problem);
    show(problem, Boolean(one.problem));
    here.update(one.complete ? "good" : "warn", one.complete ? "whole" : "not whole");
    setText(size, bytes(one.bytes));
    setWhen(at, one.pinned_at);
    setText(by, one.by);
  };
  return { root, update };
}
