// The top of every page: whether the page is live, the state of the whole in one line, and what is wrong.

import { h, keyed, setAttribute, setText, show } from "./dom.js";
import { clock, plural, setWhen, when } from "./format.js";
import { problems, summary } from "./health.js";
import { on, state } from "./state.js";
import { button } from "./ui.js";

const ALL = ["overview", "upstreams", "replicas"];
const DOTS = { good: "✓", warn: "!", bad: "✕" };

/** The line, and the list of what is wrong; gives `{root, stop}`. */
export function status() {
  const sign = h("span", { class: "sign", "aria-hidden": "true" }, "…");
  const text = h("p", { class: "text", id: "state" }, "Asking the mirror how it is");
  const more = h("span", { class: "more" });
  const line = h("div", { class: "state none", role: "status" }, sign, h("div", {}, text, more));
  const list = h("ul", { class: "problems", "aria-label": "What is wrong" });
  const root = h("div", { class: "status" }, line, list);

  const stop = on(ALL, () => {
    const told = Object.fromEntries(ALL.map((kind) => [kind, state(kind)]));
    if (!told.overview || !told.upstreams) return;
    const found = problems(told);
    const { level, text: words, more: rest } = summary(found, told);
    setAttribute(line, "class", `state ${level}`);
    setText(sign, DOTS[level]);
    setText(text, words);
    setText(more, rest);
    show(list, found.length > 0);
    keyed(
      list,
      found.map((one) => ({ ...one, alone: found.length === 1 })),
      (one) => one.id,
      problem,
    );
    document.title = level === "good" ? "All well · wasm-mirror" : `${plural(found.length, "problem")} · wasm-mirror`;
  });
  return { root, stop };
}

function problem() {
  const what = h("strong");
  const since = when(null);
  const error = h("code", { class: "error" });
  const said = h("p", { class: "said" }, error, " ", since);
  const means = h("p");
  const root = h("li", {}, what, means, said);
  const update = (one) => {
    setAttribute(root, "class", `problem ${one.level}`);
    setText(what, one.what);
    show(what, !one.alone); // the line above says the same
    setText(means, one.means);
    setText(error, one.error);
    setWhen(since, one.at, "");
    show(said, Boolean(one.error));
  };
  return { root, update };
}

/** The banner that says when what is shown is not live, in an element of its own, above every page. */
export function liveness(root, retry) {
  const words = h("span");
  const left = h("span", { "aria-hidden": "true" });
  const again = button("Try now", retry);
  const banner = h("p", { class: "banner warn", hidden: true }, words, " ", left, " ", again);
  root.append(banner);
  let timer = null;

  on(["live"], () => {
    const { phase, why, at, retryAt } = state("live");
    clearInterval(timer);
    show(banner, phase === "cut");
    if (phase !== "cut") return setText(words, "");
    setText(words, `Not live since ${clock(at / 1000)}. ${why}`);
    const count = () => {
      const seconds = Math.ceil((retryAt - Date.now()) / 1000);
      setText(left, seconds > 0 ? `It is tried again in ${seconds} s.` : "It is being tried.");
    };
    count();
    timer = setInterval(count, 500);
  });
}
