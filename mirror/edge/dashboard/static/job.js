// One job in full: its progress as it goes, and what became of each reference.

import { get, path, remove, stream } from "./api.js";
import { h, keyed, setAttribute, setText, show } from "./dom.js";
import { read } from "./events.js";
import { bytes, count, duration, parts, plural } from "./format.js";
import { moduleHref } from "./routes.js";
import { on, state } from "./state.js";
import { badge, button, card, carryOut, row, table } from "./ui.js";

const LEVELS = { held: "good", fetched: "good", refused: "warn", failed: "bad" };
const MOST = 500; // results that are shown; those that went wrong first
const AGAIN = 2000; // ms after which a job is followed again, when the connection was cut

/** The card of a job. */
export function jobCard(job) {
  const bar = h("progress", { "aria-label": "References that are done" });
  const mark = badge("none", "");
  const sum = h("span", { role: "status" });
  const underway = h("ul", { class: "rows" });
  const cancel = button("Cancel", () => carryOut(cancel, async () => told(await remove(`prewarm/${path(job)}`))));
  const list = table("Results", [
    { title: "Reference", class: "broad" },
    { title: "Result" },
    { title: "Size", class: "number" },
    { title: "Took", class: "number" },
    { title: "Replica" },
  ]);
  const made = card(
    "job",
    "Job",
    h("div", { class: "line" }, mark.root, sum),
    bar,
    underway,
    list.root,
    h("div", { class: "actions" }, cancel),
  );
  const controller = new AbortController();
  const results = new Map();
  const moving = new Map();
  let last = null; // the id of the last result that came
  let ended = false;
  let timer = null;

  function told(one) {
    mark.update(...jobState(one));
    setAttribute(bar, "max", Math.max(one.total, 1));
    setAttribute(bar, "value", one.done);
    setText(made.note, `${plural(one.total, "reference")}, by ${one.by}`);
    setText(sum, `${one.done} of ${one.total} done: ${counted(one.counts)}`);
    ended = one.state !== "running";
    show(cancel, !ended);
    if (ended) moving.clear();
    draw();
  }

  function draw() {
    const rank = (one) => ["refused", "failed"].indexOf(one.result);
    const all = [...results.values()].sort((a, b) => rank(b) - rank(a)).slice(0, MOST);
    keyed(list.body, all, name, () => result(list));
    show(list.root, all.length > 0);
    keyed(underway, [...moving.values()], name, () => progress());
    show(underway, moving.size > 0);
  }

  async function follow() {
    try {
      for await (const { event, id, data } of read(
        await stream(`prewarm/${path(job)}/events`, controller.signal, last),
      )) {
        if (event === "result") {
          last = id ?? last;
          results.set(name(data), data);
          moving.delete(name(data));
          draw();
        } else if (event === "progress") {
          moving.set(name(data), data);
          draw();
        } else if (event === "end") {
          told(data);
        }
      }
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error.status === 404) {
        ended = true;
        setText(sum, error.message);
      }
    }
    if (!ended && !controller.signal.aborted) timer = setTimeout(follow, AGAIN);
  }

  const stop = on(["prewarm"], () => {
    const own = state("prewarm").jobs.find((one) => one.id === job);
    if (own) told(own);
  });
  get(`prewarm/${path(job)}`).then(told, () => {});
  show(cancel, false);
  follow();
  return {
    root: made.root,
    stop() {
      stop();
      clearTimeout(timer);
      controller.abort();
    },
  };
}

const name = ({ reference, replica }) => JSON.stringify([reference, replica]);

function progress() {
  const of = h("span", { class: "name" });
  const bar = h("progress");
  const size = h("span", { class: "sub" });
  const root = h("li", {}, h("div", { class: "line" }, of, size), bar);
  const update = (one) => {
    setText(of, one.reference);
    setAttribute(bar, "aria-label", one.reference);
    setAttribute(bar, "max", one.total);
    setAttribute(bar, "value", one.total === null ? null : one.bytes);
    setText(size, one.total === null ? bytes(one.bytes) : `${bytes(one.bytes)} of ${bytes(one.total)}`);
  };
  return { root, update };
}

function result(list) {
  const link = h("a", { class: "reference" });
  const why = h("span", { class: "sub why" });
  const mark = badge("none", "");
  const [size, took, where] = [h("span"), h("span"), h("span")];
  const root = row(list, [[link, why], mark.root, size, took, where]);
  const update = (one) => {
    setText(link, one.reference);
    setAttribute(link, "href", one.result === "failed" ? null : moduleHref(plain(one.reference)));
    setText(why, one.why);
    show(why, Boolean(one.why));
    mark.update(LEVELS[one.result] ?? "none", one.result);
    setText(size, bytes(one.bytes));
    setText(took, duration(one.seconds));
    setText(where, one.replica ?? "this one");
  };
  return { root, update };
}

/** A reference as the list of modules has it: without `oci://` and this mirror's own name. */
function plain(reference) {
  const bare = reference.replace(/^oci:\/\//, "");
  const { upstream, repository, version } = parts(bare);
  return state("overview")?.names.includes(upstream) ? repository + version : bare;
}

/** How a job stands, as a level and a word. */
export function jobState({ state: how, counts }) {
  if (how === "running") return ["busy", "running"];
  if (how === "cancelled") return ["none", "cancelled"];
  if (counts.failed) return ["bad", `${count(counts.failed)} failed`];
  return counts.refused ? ["warn", `${count(counts.refused)} refused by agents`] : ["good", "done"];
}

/** The counts of results that there are, in words. */
export function counted(counts) {
  const words = Object.entries(counts)
    .filter(([, number]) => number > 0)
    .map(([name, number]) => `${count(number)} ${name}`);
  return words.length ? words.join(", ") : "no result yet";
}
