// A module's own page: who takes it, what it is, its versions, who asked for it, what it imports and exports.

import { get, path, post, remove } from "./api.js";
import { description } from "./description.js";
import { h, keyed, setAttribute, setText, show } from "./dom.js";
import { count, parts, plural, setWhen, when } from "./format.js";
import { COLUMNS, moduleRow } from "./modules.js";
import { mirrorHost } from "./routes.js";
import { on, state } from "./state.js";
import { button, card, carryOut, code, confirmed, copyable, notice, row, table, tellResults } from "./ui.js";

const REST = 3000; // ms between two looks
const MOST = 100; // versions

/** The page of what this reference names. */
export function modulePage(reference) {
  const about = description();
  const [others, clients] = [versions(reference), askers()];
  const taken = actions(reference, { changed: look, moved: describe });
  const url = copyable(address(reference));
  const root = h(
    "div",
    { class: "page" },
    h("p", { class: "trail" }, h("a", { href: "#/" }, "Overview"), " / Modules"),
    h("h1", { class: "reference", tabindex: "-1" }, reference),
    h("div", { class: "line" }, h("span", { class: "sub" }, "For agents:"), url.root),
    taken.root,
    about.root,
    others.root,
    clients.root,
  );
  let timer = null;
  let lookedAt = 0;
  let gone = false;

  async function look() {
    clearTimeout(timer);
    timer = null;
    lookedAt = Date.now();
    const { upstream, repository } = parts(reference);
    await Promise.all([
      others.ask(get("modules", { upstream, repository, sort: "fetched", order: "desc", limit: MOST })),
      clients.ask(get("askers", { reference })),
    ]);
    taken.pinned(others.own()?.pinned);
  }

  function describe() {
    return about.ask(get(`modules/${path(reference)}`), () => gone);
  }

  const stops = [
    on(["changed"], () => {
      if (state("changed")) timer ??= setTimeout(look, Math.max(0, lookedAt + REST - Date.now()));
    }),
    on(["overview"], () => url.update(address(reference))),
  ];
  document.title = `${reference} · wasm-mirror`;
  look();
  describe();
  return {
    root,
    stop() {
      gone = true;
      clearTimeout(timer);
      stops.forEach((stop) => stop());
    },
  };
}

const address = (reference) => `oci://${mirrorHost()}/${reference}`;

/** The buttons. */
function actions(reference, { changed, moved }) {
  const act = (work) => async (event) => {
    await carryOut(event.currentTarget, work);
    await changed();
  };
  const pin = button(
    "Pin",
    act(async () => tellResults((await post("pins", { references: [reference] })).results, ["pinned", "already"])),
  );
  const unpin = button(
    "Unpin…",
    act(async () => {
      const words = ["What it protects at all replicas may then be evicted, if nothing else pins it."];
      if (!(await confirmed(`Unpin ${reference}?`, words, "Unpin"))) return;
      await remove(`pins/${path(reference)}`);
      notice(`${reference}: unpinned`);
    }),
    { hidden: true },
  );
  const refresh = button(
    "Refresh",
    act(async () => {
      tellResults((await post("refresh", { references: [reference] })).results, [
        "unchanged",
        "moved",
        "held",
        "fetched",
      ]);
      await moved();
    }),
    { title: "Ask its upstream now what it names" },
  );
  const purge = button(
    "Purge…",
    act(async () => {
      const words = [
        "What it names goes from the disks of all replicas. The next pull fetches it anew.",
        "While its upstream does not answer, no agent can pull it.",
      ];
      if (!(await confirmed(`Purge ${reference}?`, words, "Purge"))) return;
      tellResults((await post("purge", { references: [reference] })).results, ["purged", "absent"]);
    }),
    { class: "danger" },
  );
  const root = h(
    "div",
    { class: "actions", role: "group", "aria-label": "What can be done" },
    pin,
    unpin,
    refresh,
    purge,
  );
  return {
    root,
    pinned(is) {
      const focused = document.activeElement;
      show(pin, !is);
      show(unpin, Boolean(is));
      if (focused === pin && is) unpin.focus();
      if (focused === unpin && !is) pin.focus();
    },
  };
}

/** The other tags and digests of its repository. */
function versions(reference) {
  const list = table("Versions", COLUMNS, { class: "modules" });
  const empty = h("p", { class: "empty" });
  const made = card("versions", "Versions", list.root, empty);
  let rows = [];
  return {
    root: made.root,
    own: () => rows.find((one) => one.reference === reference),
    async ask(answer) {
      try {
        const { modules, total } = await answer;
        rows = modules;
        keyed(
          list.body,
          rows,
          (one) => one.reference,
          (one) => version(list, one.reference === reference),
        );
        setText(
          made.note,
          total > rows.length ? `the last ${rows.length} of ${count(total)}` : plural(total, "version"),
        );
        setText(empty, "No tag of this repository is known here any more. The next pull brings it back.");
      } catch (error) {
        setText(empty, error.message);
        rows = [];
      }
      show(list.root, rows.length > 0);
      show(empty, rows.length === 0);
    },
  };
}

function version(list, isThis) {
  const made = moduleRow(list);
  setAttribute(made.root, "aria-current", isThis ? "true" : null);
  return made;
}

/** Who asked for it lately. */
function askers() {
  const list = table("Who asked for it", [
    { title: "Client" },
    { title: "User agent", class: "broad" },
    { title: "User" },
    { title: "Times", class: "number" },
    { title: "First" },
    { title: "Last" },
  ]);
  const empty = h("p", { class: "empty" });
  const made = card("askers", "Who asked for it", list.root, empty);
  return {
    root: made.root,
    async ask(answer) {
      let all = [];
      try {
        const told = await answer;
        all = told.askers;
        setText(made.note, `${plural(told.total, "client")}, at this replica`);
        setText(empty, "Nobody lately, at this replica.");
      } catch (error) {
        setText(empty, error.message);
      }
      keyed(
        list.body,
        all,
        (one) => JSON.stringify([one.client, one.agent, one.user]),
        () => asker(list),
      );
      show(list.root, all.length > 0);
      show(empty, all.length === 0);
    },
  };
}

function asker(list) {
  const client = code("");
  const [agent, user, times] = [h("span", { class: "words" }), h("span"), h("span")];
  const [first, last] = [when(null), when(null)];
  const root = row(list, [client, agent, user, times, first, last]);
  const update = (one) => {
    setText(client, one.client);
    setText(agent, one.agent ?? "–");
    setText(user, one.user ?? "–");
    setText(times, count(one.count));
    setWhen(first, one.first_at);
    setWhen(last, one.last_at);
  };
  return { root, update };
}
