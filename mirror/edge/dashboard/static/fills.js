// What is being downloaded now; and the other replicas.

import { h, keyed, setAttribute, setText, show } from "./dom.js";
import { bytes, percent, plural, setWhen, short, when } from "./format.js";
import { on, state } from "./state.js";
import { badge, card, code } from "./ui.js";

/** The card of running downloads; gives `{root, stop}`. */
export function fills() {
  const list = h("ul", { class: "rows" });
  const empty = h("p", { class: "empty" }, "Nothing is being downloaded.");
  const made = card("fills", "Running downloads", list, empty);
  const stop = on(["fills"], () => {
    const { fills: all, total } = state("fills");
    show(list, all.length > 0);
    show(empty, all.length === 0);
    setText(made.note, total > all.length ? `${all.length} of ${total}` : "");
    keyed(list, all, (one) => one.digest, fill);
  });
  return { root: made.root, stop };
}

function fill(first) {
  const id = `fill-${short(first.digest)}`;
  const from = h("span", { class: "name", id });
  const digest = code("", { class: "digest" });
  const bar = h("progress", { "aria-labelledby": id });
  const size = h("span");
  const waiting = h("span");
  const since = when(null);
  const root = h(
    "li",
    {},
    h("div", { class: "line" }, from, digest),
    bar,
    h("div", { class: "line sub" }, size, waiting, h("span", {}, "began ", since)),
  );
  const update = (one) => {
    setText(from, one.repository ?? "a blob that another worker fetches");
    setText(digest, short(one.digest));
    setAttribute(digest, "title", one.digest);
    setAttribute(bar, "max", one.total ?? null);
    setAttribute(bar, "value", one.total ? one.bytes : null);
    setText(
      size,
      one.total
        ? `${bytes(one.bytes)} of ${bytes(one.total)} (${percent(one.bytes / one.total)})`
        : `${bytes(one.bytes)} so far`,
    );
    setText(waiting, one.waiters === null ? "" : `${plural(one.waiters, "request")} waiting`);
    show(since.parentNode, one.since !== null);
    setWhen(since, one.since);
  };
  return { root, update };
}

/** The card of replicas; gives `{root, stop}`. */
export function replicas() {
  const list = h("ul", { class: "rows" });
  const empty = h(
    "p",
    { class: "empty" },
    "This mirror is alone. Several share their downloads through a Redis: ",
    code("metadata.url"),
    " and ",
    code("cluster.advertise"),
    " in the settings of each.",
  );
  const made = card("replicas", "Replicas", list, empty);
  const stop = on(["replicas"], () => {
    const { own, others } = state("replicas");
    const all = own === null ? [] : [{ address: own, own: true, answers: true }, ...others];
    show(list, all.length > 0);
    show(empty, all.length === 0);
    setText(made.note, all.length ? plural(all.length, "replica") : "");
    keyed(list, all, (one) => one.address, replica);
  });
  return { root: made.root, stop };
}

function replica() {
  const name = h("span", { class: "name" });
  const mark = badge("none", "");
  const root = h("li", {}, h("div", { class: "line" }, name, mark.root));
  const update = ({ address, own, answers }) => {
    setText(name, address.replace(/^https?:\/\//, ""));
    setAttribute(name, "title", address);
    if (own) mark.update("good", "this one");
    else mark.update(answers ? "good" : "bad", answers ? "answers" : "does not answer");
  };
  return { root, update };
}
