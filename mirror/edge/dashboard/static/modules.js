// The table of modules: what was asked for, page by page, as the filters say.

import { get, Refused } from "./api.js";
import { setAttribute, setText, show, h, keyed } from "./dom.js";
import { controls } from "./filters.js";
import { bytes, count, parts, plural, setWhen, short, when } from "./format.js";
import { mirrorHost, moduleHref } from "./routes.js";
import { on, state } from "./state.js";
import { badge, button, card, code, copyable, row, table } from "./ui.js";

const ON_A_PAGE = 100;
const REST = 3000; // ms between two looks, however much changes

export const COLUMNS = [
  { title: "Module", sort: "reference", class: "broad" },
  { title: "Taken" },
  { title: "Layout" },
  { title: "ABI" },
  { title: "Size", sort: "size", class: "number" },
  { title: "Digest" },
  { title: "Hits", sort: "hits", class: "number" },
  { title: "Last pull", sort: "used" },
  { title: "Checked", sort: "fetched" },
  { title: "Pin" },
];

/** The card of modules; `wanted` are the filters of the address, `onWanted(filters)` hears of others. */
export function modules(wanted, onWanted) {
  let filters = wanted;
  let pages = [null]; // the `after` of each page up to the one that is shown
  let asking = null;
  let lookedAt = 0;
  let timer = null;

  const list = table("Modules", COLUMNS, { class: "modules" });
  const [previous, next] = [button("Previous page", () => turn(-1)), button("Next page", () => turn(1))];
  const place = h("span", { role: "status" });
  const problem = h("p", { class: "banner bad", role: "alert", hidden: true });
  const nothing = h("div", { class: "empty", hidden: true });
  const above = controls(filters, change);
  const made = card(
    "modules",
    "Modules",
    above.root,
    problem,
    list.root,
    nothing,
    h("nav", { class: "pages", "aria-label": "Pages of modules" }, previous, place, next),
  );
  sortable(list, (sort) => change({ ...filters, ...turned(filters, sort) }));

  function change(to) {
    filters = to;
    pages = [null];
    onWanted(filters);
    look();
  }

  function turn(by) {
    const control = by > 0 ? next : previous;
    if (control.getAttribute("aria-disabled") === "true") return;
    if (by > 0) pages.push(next.after);
    else pages.pop();
    made.heading.scrollIntoView();
    look();
  }

  async function look() {
    clearTimeout(timer);
    timer = null;
    asking?.abort();
    const own = new AbortController();
    asking = own;
    lookedAt = Date.now();
    mark(list, filters);
    above.update(filters);
    setAttribute(list.root, "aria-busy", "true");
    try {
      const query = { ...filters, limit: ON_A_PAGE, after: pages[pages.length - 1] };
      told(await get("modules", query, own.signal)); // first: how many there are of a kind is looked for behind it
      const refused = await get("modules", { verdict: "refused", limit: 1 }, own.signal);
      const pinned = await get("modules", { pinned: true, limit: 1 }, own.signal);
      above.counts({ refused: refused.total, pinned: pinned.total });
      show(problem, false);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (pages.length > 1 && error instanceof Refused && error.status === 400) {
        pages = [null];
        return look();
      }
      setText(problem, error.message);
      show(problem, error.status !== 401);
    } finally {
      if (asking === own) setAttribute(list.root, "aria-busy", null);
    }
  }

  function told({ modules: rows, next: after, total }) {
    keyed(
      list.body,
      rows,
      (one) => one.reference,
      () => moduleRow(list),
    );
    const first = (pages.length - 1) * ON_A_PAGE;
    setText(made.note, plural(total, "module"));
    setText(place, rows.length ? `${count(first + 1)} to ${count(first + rows.length)} of ${count(total)}` : "");
    next.after = after;
    setAttribute(previous, "aria-disabled", pages.length === 1 ? "true" : null);
    setAttribute(next, "aria-disabled", after === null ? "true" : null);
    show(place.parentNode, total > ON_A_PAGE || pages.length > 1);
    show(list.root, rows.length > 0);
    show(nothing, rows.length === 0);
    if (!rows.length)
      explain(nothing, above.filtered(filters), () => change({ sort: filters.sort, order: filters.order }));
  }

  const stops = [
    on(["changed"], () => {
      if (!state("changed")) return;
      timer ??= setTimeout(look, Math.max(0, lookedAt + REST - Date.now()));
    }),
  ];
  look();
  return {
    root: made.root,
    wanted(to) {
      filters = to;
      pages = [null];
      look();
    },
    stop() {
      asking?.abort();
      clearTimeout(timer);
      above.stop();
      stops.forEach((stop) => stop());
    },
  };
}

/** What to do where there is nothing to show. */
function explain(root, filtered, clear) {
  if (root.dataset.filtered === String(filtered)) return;
  root.dataset.filtered = String(filtered);
  if (filtered) {
    root.replaceChildren(h("p", {}, "No module is like that."), button("Show all modules", clear));
    return;
  }
  const host = mirrorHost();
  const upstream = state("upstreams")?.upstreams[0]?.name ?? "ghcr.io";
  const example = `${upstream}/team/plugin:1.0`;
  root.replaceChildren(
    h("p", {}, "Nothing is held yet. Let an agent pull through this mirror, by the URL in its WasmPlugin:"),
    copyable(`oci://${host}/${example}`).root,
    h(
      "p",
      {},
      "or bring modules here before anybody asks, on the page ",
      h("a", { href: "#/prewarm" }, "Pre-warm"),
      " or by",
    ),
    copyable(`wasm-mirror prewarm ${example}`).root,
  );
}

/** Buttons in the heads of the columns that can be sorted by. */
function sortable(list, sorted) {
  COLUMNS.forEach(({ title, sort }, i) => {
    if (sort) list.heads[i].replaceChildren(button(title, () => sorted(sort), { class: "sort" }));
  });
}

function mark(list, { sort = "reference", order = "asc" }) {
  COLUMNS.forEach((column, i) => {
    setAttribute(
      list.heads[i],
      "aria-sort",
      column.sort === sort ? { asc: "ascending", desc: "descending" }[order] : null,
    );
  });
}

/** The order after a press on a column's head: numbers begin with the largest. */
function turned({ sort = "reference", order = "asc" }, pressed) {
  if (pressed === sort) return { sort, order: order === "asc" ? "desc" : "asc" };
  return { sort: pressed, order: pressed === "reference" ? "asc" : "desc" };
}

/** A row of a table with these `COLUMNS`. */
export function moduleRow(list) {
  const upstream = h("span", { class: "dim" });
  const version = h("b");
  const repository = h("span");
  const link = h("a", { class: "reference" }, upstream, repository, version);
  const why = h("span", { class: "sub why" });
  const agents = badge("none", "");
  const [layout, abi, size, hits] = [h("span"), h("span"), h("span"), h("span")];
  const digest = code("", { class: "digest" });
  const [used, checked] = [when(null), when(null)];
  const pin = h("span");
  const root = row(list, [[link, why], agents.root, layout, abi, size, digest, hits, used, checked, pin]);

  const update = (one) => {
    const named = parts(one.reference);
    setText(upstream, `${named.upstream}/`);
    setText(repository, named.repository);
    setText(version, named.version.startsWith("@") ? `@${short(named.version.slice(1))}…` : named.version);
    setAttribute(link, "href", moduleHref(one.reference));
    setAttribute(link, "title", one.reference);
    setText(why, [one.why, one.complete ? "" : "Not all of it is here."].filter(Boolean).join(" "));
    show(why, why.textContent !== "");
    agents.update(...verdict(one));
    setText(layout, one.layout ?? "–");
    setText(abi, one.abi.length ? one.abi.join(", ") : "–");
    setText(size, bytes(one.size));
    setText(digest, short(one.digest));
    setAttribute(digest, "title", one.digest);
    setText(hits, count(one.hits));
    setWhen(used, one.used_at);
    setWhen(checked, one.fetched_at, "–");
    setText(pin, one.pinned ? "pinned" : "–");
    setAttribute(pin, "class", one.pinned ? "pinned" : "dim");
  };
  return { root, update };
}

/** What agents make of it, and Envoy of what they take, as a level and a word. */
function verdict({ verdict: made, why }) {
  if (made === "accepted") return why ? ["warn", "Envoy refuses"] : ["good", "accepted"];
  if (made === "refused") return ["bad", "refused"];
  return made === "not_wasm" ? ["none", "no module"] : ["none", "not known"];
}
