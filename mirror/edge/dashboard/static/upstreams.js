// The registries that are pulled from, and how they stand.

import { h, keyed, setText, show } from "./dom.js";
import { bytes, count, duration, percent, plural, setWhen, when } from "./format.js";
import { latestError } from "./health.js";
import { on, state } from "./state.js";
import { badge, card, code, row, table } from "./ui.js";

/** The card of upstreams; gives `{root, stop}`. */
export function upstreams() {
  const list = table("Upstreams", [
    { title: "Upstream" },
    { title: "Health" },
    { title: "Latency", class: "number" },
    { title: "Rate limit left", class: "number" },
    { title: "Asked", class: "number" },
    { title: "Fetched", class: "number" },
    { title: "Last error", class: "broad" },
  ]);
  const empty = h(
    "p",
    { class: "empty" },
    "No registry may be pulled from: name one under ",
    code("upstreams"),
    " in the settings, such as ",
    code("ghcr.io: {}"),
    ".",
  );
  const made = card("upstreams", "Upstreams", list.root, empty);
  show(empty, false);
  const stop = on(["upstreams"], () => {
    const all = state("upstreams").upstreams;
    show(list.root, all.length > 0);
    show(empty, all.length === 0);
    keyed(
      list.body,
      all,
      (one) => one.name,
      () => upstream(list),
    );
  });
  return { root: made.root, stop };
}

function upstream(list) {
  const name = h("span", { class: "name" });
  const notes = h("span", { class: "sub" });
  const health = badge("none", "");
  const endpoints = h("ul", { class: "endpoints" });
  const latency = h("span");
  const limit = h("span");
  const asked = h("span");
  const fetched = h("span");
  const error = h("span", { class: "error" });
  const at = when(null);
  const root = row(list, [[name, notes], [health.root, endpoints], latency, limit, asked, fetched, [error, " ", at]]);

  const update = (one) => {
    setText(name, one.name);
    setText(
      notes,
      [
        one.allow.some((pattern) => pattern !== "**") ? `only ${one.allow.join(", ")}` : "",
        one.push === "through" ? "takes pushes" : "",
      ]
        .filter(Boolean)
        .join("; "),
    );
    health.update(...standing(one));
    show(endpoints, one.endpoints.length > 1);
    if (one.endpoints.length > 1) keyed(endpoints, one.endpoints, (each) => each.host, endpoint);
    setText(latency, duration(one.mean_seconds));
    const limits = one.endpoints.map((each) => each.rate_limit).filter((each) => each !== null);
    setText(limit, limits.length ? percent(Math.min(...limits)) : "not told");
    setText(asked, `${count(one.requests)}${one.failures ? `, ${count(one.failures)} failed` : ""}`);
    setText(fetched, bytes(one.bytes));
    const latest = latestError(one.endpoints);
    setText(error, latest?.last_error ?? "none");
    setWhen(at, latest?.last_error_at, "");
  };
  return { root, update };
}

function standing({ offline, reachable, endpoints }) {
  if (offline) return ["none", "offline by the settings"];
  if (!reachable) return ["bad", "not reachable"];
  const failing = endpoints.filter((one) => !one.healthy).length;
  return failing ? ["warn", `${failing} of ${plural(endpoints.length, "endpoint")} failing`] : ["good", "healthy"];
}

function endpoint() {
  const mark = badge("none", "");
  const root = h("li", {}, mark.root);
  const update = ({ host, healthy, breaker, opens_for: open, rests_for: rests, cools_for: cools }) => {
    if (rests > 0) mark.update("warn", `${host}: asked for ${duration(rests)} of rest`);
    else if (breaker === "half-open") mark.update("warn", `${host}: being tried`);
    else if (!healthy) mark.update("bad", `${host}: left alone for ${duration(open)}`);
    else if (cools > 0) mark.update("warn", `${host}: asked last, it sent wrong bytes`);
    else mark.update("good", host);
  };
  return { root, update };
}
