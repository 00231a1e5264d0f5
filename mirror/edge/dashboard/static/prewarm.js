// Bringing modules to the disks of all replicas before anybody asks for them: the form, and the jobs.

import { get, post } from "./api.js";
import { h, keyed, setAttribute, setText, show } from "./dom.js";
import { plural, setWhen, when } from "./format.js";
import { counted, jobCard, jobState } from "./job.js";
import { jobHref } from "./routes.js";
import { on, state, tell } from "./state.js";
import { badge, card, carryOut, code, copyable, notice } from "./ui.js";

/** The page; with a job, that one in full. */
export function prewarmPage(job) {
  const opened = job === null ? null : jobCard(job);
  const list = h("ul", { class: "rows" });
  const empty = h(
    "div",
    { class: "empty" },
    h("p", {}, "No job yet. Fill in the form, or warm what the WasmPlugins in a folder name:"),
    copyable("wasm-mirror prewarm --pin -f plugins/").root,
  );
  const jobs = card("jobs", "Jobs", list, empty);
  const stop = on(["prewarm"], () => {
    const all = state("prewarm").jobs;
    keyed(
      list,
      all,
      (one) => one.id,
      () => jobLine(),
    );
    show(list, all.length > 0);
    show(empty, all.length === 0);
  });
  if (!state("prewarm"))
    get("prewarm").then(
      (told) => tell("prewarm", told),
      () => {},
    );
  const root = h(
    "div",
    { class: "page" },
    h("h1", { tabindex: "-1" }, "Pre-warm"),
    h(
      "p",
      { class: "lead" },
      "Brings modules to the disks of all replicas before a rollout, " +
        "so that no proxy waits for a registry, or fails on one.",
    ),
    opened?.root,
    form(),
    jobs.root,
  );
  document.title = "Pre-warm · wasm-mirror";
  return {
    root,
    stop() {
      stop();
      opened?.stop();
    },
  };
}

/** The references in a text: one a line, or several with blanks or commas between; `#` begins a remark. */
export function referencesIn(text) {
  const lines = text.split("\n").map((line) => line.replace(/(^|\s)#.*$/, ""));
  return [
    ...new Set(
      lines
        .join(" ")
        .split(/[\s,]+/)
        .filter(Boolean),
    ),
  ];
}

function form() {
  const field = h("textarea", {
    id: "references",
    name: "references",
    rows: 5,
    required: true,
    spellcheck: "false",
    autocomplete: "off",
    "aria-describedby": "references-note",
    placeholder: "ghcr.io/istio-ecosystem/wasm-extensions/basic_auth:1.12.0",
  });
  const pin = h("input", { type: "checkbox", id: "and-pin", name: "pin" });
  const submit = h("button", { type: "submit", class: "first" }, "Pre-warm");
  return h(
    "form",
    {
      class: "card",
      on: {
        submit(event) {
          event.preventDefault();
          const references = referencesIn(field.value);
          if (!references.length) return notice("There is no reference in the text.", "bad");
          carryOut(submit, async () => {
            const job = await post("prewarm", { references, pin: pin.checked });
            field.value = "";
            location.hash = jobHref(job.id);
          });
        },
      },
    },
    h("label", { class: "field", for: "references" }, h("span", {}, "References"), field),
    h(
      "p",
      { class: "sub", id: "references-note" },
      "One a line, as an agent would use them, with or without ",
      code("oci://"),
      ".",
    ),
    h("div", { class: "actions" }, submit, h("label", { class: "check", for: "and-pin" }, pin, "Pin them, too")),
  );
}

/** A job in a list of them. */
function jobLine() {
  const link = h("a");
  const state_ = badge("none", "");
  const bar = h("progress");
  const [sum, by] = [h("span"), h("span", { class: "words" })];
  const began = when(null);
  const root = h(
    "li",
    {},
    h("div", { class: "line" }, link, state_.root),
    bar,
    h("div", { class: "line sub" }, sum, by, began),
  );
  const update = (one) => {
    setText(link, plural(one.total, "reference"));
    setAttribute(link, "href", jobHref(one.id));
    setAttribute(link, "title", one.id);
    state_.update(...jobState(one));
    setAttribute(bar, "max", Math.max(one.total, 1));
    setAttribute(bar, "value", one.done);
    setAttribute(bar, "aria-label", `${one.done} of ${plural(one.total, "reference")}`);
    show(bar, one.state === "running");
    setText(sum, counted(one.counts));
    setText(by, `by ${one.by}${one.pin ? ", pinned" : ""}`);
    setWhen(began, one.began_at);
  };
  return { root, update };
}
