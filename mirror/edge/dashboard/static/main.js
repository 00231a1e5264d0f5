// The page's beginning: which part of it is shown, and what keeps it up to date.

import { get, setToken, token } from "./api.js";
import { h, setAttribute, show } from "./dom.js";
import { Live } from "./events.js";
import { fills, replicas } from "./fills.js";
import { setClock, tick } from "./format.js";
import { modulePage } from "./module.js";
import { modules } from "./modules.js";
import { pinsPage } from "./pins.js";
import { history } from "./plots.js";
import { prewarmPage } from "./prewarm.js";
import { current, overviewHref } from "./routes.js";
import { forgetAll, state, tell } from "./state.js";
import { liveness, status } from "./status.js";
import { identity, tiles } from "./tiles.js";
import { showForget, tokenForm } from "./token.js";
import { upstreams } from "./upstreams.js";

const MOST_POINTS = 120;
const main = document.getElementById("main");
const forget = document.getElementById("forget");
const top_ = document.getElementById("status");
let shown = { key: null, stop() {} };
let locked = false;

const PAGES = {
  overview: overviewPage,
  modules: modulePage,
  prewarm: prewarmPage,
  pins: pinsPage,
};

function overviewPage(_, filters) {
  const list = modules(filters, (wanted) => window.history.replaceState(null, "", overviewHref(wanted)));
  const parts = [tiles(), history(), upstreams(), fills(), replicas(), list];
  const [numbers, plots, registries, running, others] = parts.map((part) => part.root);
  const root = h(
    "div",
    { class: "page" },
    h("h1", { class: "unseen", tabindex: "-1" }, "Overview"),
    numbers,
    registries,
    h("div", { class: "columns" }, plots, h("div", { class: "stack" }, running, others)),
    list.root,
  );
  return { root, wanted: list.wanted, stop: () => parts.forEach((part) => part.stop()) };
}

/** Show what the address says. */
function go() {
  if (locked) return;
  const { page, parameter, filters } = current();
  const known = page in PAGES && (page !== "modules" || parameter) ? page : "overview";
  const key = `${known} ${parameter}`;
  for (const link of document.querySelectorAll(".bar nav a")) {
    const own = { "#/": "overview", "#/prewarm": "prewarm", "#/pins": "pins" }[link.getAttribute("href")];
    setAttribute(link, "aria-current", own === known ? "page" : null);
  }
  if (key === shown.key) {
    shown.wanted?.(filters);
    return;
  }
  const first = shown.key === null;
  shown.stop();
  shown = { ...PAGES[known](parameter, filters), key };
  main.replaceChildren(shown.root);
  if (!first) {
    scrollTo(0, 0);
    (main.querySelector("h1") ?? main).focus({ preventScroll: true });
  }
}

/** Ask for the token, and show nothing else. */
function lock({ detail: { refused, wrong } }) {
  if (wrong) setToken(null);
  showForget(forget, token());
  if (locked && !wrong) return;
  locked = true;
  forgetAll();
  shown.stop();
  shown = { key: null, stop() {} };
  for (const part of [top_, document.getElementById("own")]) show(part, false);
  const form = tokenForm(refused.message, wrong, unlock);
  main.replaceChildren(form.root);
  document.title = "Token · wasm-mirror";
  form.focus();
}

function unlock() {
  locked = false;
  showForget(forget, token());
  show(top_, true);
  go();
  live.restart();
}

function onEvent(kind, data) {
  if (kind === "overview") setClock(data.now);
  if (kind === "point") addPoint(data);
  else tell(kind === "modules" ? "changed" : kind, data);
}

function addPoint(point) {
  const { step, points } = state("points") ?? { step: 30, points: [] };
  const others = points.filter((one) => one.at !== point.at);
  tell("points", { step, points: [...others, point].slice(-MOST_POINTS) });
}

/** Ask for what events would have told, where the mirror answers but sends none: too many pages are open. */
async function lookOnce() {
  const kinds = ["overview", "upstreams", "fills", "replicas", "prewarm"];
  await Promise.allSettled(kinds.map(async (kind) => onEvent(kind, await get(kind))));
}

async function onPhase(phase, details) {
  const wasCut = state("live")?.phase === "cut";
  tell("live", { phase, ...details });
  if (phase === "cut" && details.answers) await lookOnce();
  if (phase === "live") {
    try {
      tell("points", await get("history"));
      if (wasCut) tell("changed", { changed: Date.now() });
    } catch {
      // The connection for events is cut as well, then, and says so.
    }
  }
}

const live = new Live(onEvent, onPhase);
top_.append(status().root);
liveness(document.getElementById("live"), () => live.retry());
identity(document.getElementById("own"));
forget.addEventListener("click", () => {
  setToken(null);
  location.reload(); // nothing of what was shown stays
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
document.addEventListener("locked", lock);
addEventListener("hashchange", go);
setInterval(tick, 5000);
showForget(forget, token());
go();
live.run();
