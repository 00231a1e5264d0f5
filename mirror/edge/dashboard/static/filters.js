// What stands above the table of modules: search, filters, and the order where there are no columns to press.

import { h, keyed, setAttribute, setText } from "./dom.js";
import { count } from "./format.js";
import { on, state } from "./state.js";
import { button } from "./ui.js";

const PAUSE = 250; // ms after the last key before it is searched

const CHOICES = [
  { name: "all", title: "All", filters: {} },
  { name: "accepted", title: "Accepted", filters: { verdict: "accepted" } },
  { name: "refused", title: "Refused", filters: { verdict: "refused" } },
  { name: "pinned", title: "Pinned", filters: { pinned: "true" } },
];

const ORDERS = [
  ["reference asc", "name"],
  ["used desc", "last pull"],
  ["hits desc", "most hits"],
  ["size desc", "largest"],
  ["fetched desc", "last checked"],
];

/** The controls; `change(filters)` hears what is wanted. Filters are those of the API's `modules`. */
export function controls(first, change) {
  let filters = first;
  let timer = null;
  const search = h("input", {
    type: "search",
    id: "search",
    autocomplete: "off",
    spellcheck: "false",
    placeholder: "Part of a name",
    maxlength: 255,
    on: {
      input() {
        clearTimeout(timer);
        timer = setTimeout(() => change({ ...filters, search: search.value.trim() }), PAUSE);
      },
    },
  });
  const upstream = h("select", {
    id: "upstream",
    on: { change: () => change({ ...filters, upstream: upstream.value }) },
  });
  const order = h(
    "select",
    {
      id: "order",
      on: { change: () => change({ ...filters, sort: order.value.split(" ")[0], order: order.value.split(" ")[1] }) },
    },
    ...ORDERS.map(([value, title]) => h("option", { value }, title)),
  );
  const choices = CHOICES.map(({ name, title, filters: chosen }) => {
    const number = h("span", { class: "number" });
    const root = button(title, () => change({ ...filters, verdict: "", pinned: "", ...chosen }), {
      "data-choice": name,
    });
    root.append(" ", number);
    return { root, number, name, chosen };
  });
  const root = h(
    "div",
    { class: "controls", role: "search", "aria-label": "Modules" },
    field("Search", search),
    field("Upstream", upstream),
    h("div", { class: "choices", role: "group", "aria-label": "Which modules" }, ...choices.map((one) => one.root)),
    field("Sort by", order, "narrow"),
  );

  const stop = on(["upstreams"], () => {
    const names = ["", ...state("upstreams").upstreams.map((one) => one.name), "hosted"];
    keyed(
      upstream,
      names,
      (name) => name,
      (name) => ({ root: h("option", { value: name }, name || "all") }),
    );
    upstream.value = filters.upstream ?? "";
  });

  function update(to) {
    filters = to;
    if (document.activeElement !== search && search.value.trim() !== (to.search ?? "")) search.value = to.search ?? "";
    upstream.value = to.upstream ?? "";
    order.value = `${to.sort || "reference"} ${to.order || "asc"}`;
    for (const { root: control, chosen } of choices) {
      const on_ = (chosen.verdict ?? "") === (to.verdict ?? "") && (chosen.pinned ?? "") === (to.pinned ?? "");
      setAttribute(control, "aria-pressed", String(on_));
    }
  }

  return {
    root,
    update,
    counts: (numbers) =>
      choices.forEach(({ name, number }) => setText(number, name in numbers ? count(numbers[name]) : "")),
    filtered: ({ search: text, upstream: of, verdict, pinned }) => Boolean(text || of || verdict || pinned),
    stop() {
      clearTimeout(timer);
      stop();
    },
  };
}

function field(label, control, name = "") {
  return h("label", { class: `field ${name}`, for: control.id }, h("span", {}, label), control);
}
