// What came in the last hour, as two plots, and the same numbers as a table.

import { h, keyed, setAttribute, setText, show, svg } from "./dom.js";
import { bytes, clock, count, percent } from "./format.js";
import { on, state } from "./state.js";
import { card, row, table } from "./ui.js";

const WIDTH = 600;
const HEIGHT = 120;
const HOUR = 3600;

const hits = (point) => point.hit + point.stale + point.negative;
const lookups = (point) => hits(point) + point.collapsed + point.miss;

const RATIO = {
  title: "Hit ratio",
  about: "Lookups that waited for no upstream",
  top: () => 1,
  scale: percent,
  lines: [{ name: "hits", of: (point) => (lookups(point) ? hits(point) / lookups(point) : null), filled: true }],
  read: (point) =>
    lookups(point) ? `${percent(hits(point) / lookups(point))} of ${count(lookups(point))}` : "nothing was asked for",
  sum(points) {
    const all = points.reduce((total, point) => total + lookups(point), 0);
    const held = points.reduce((total, point) => total + hits(point), 0);
    return all ? percent(held / all) : "–";
  },
};

const BYTES = {
  title: "Bytes",
  about: "Sent to clients, and come from upstreams",
  top: (points) => Math.max(1024, ...points.map((point) => Math.max(point.sent_bytes, point.upstream_bytes))),
  scale: bytes,
  lines: [
    { name: "sent", of: (point) => point.sent_bytes, filled: true },
    { name: "upstream", of: (point) => point.upstream_bytes },
  ],
  read: (point) => `${bytes(point.sent_bytes)} sent, ${bytes(point.upstream_bytes)} from upstreams`,
  sum(points) {
    const sent = points.reduce((total, point) => total + point.sent_bytes, 0);
    const came = points.reduce((total, point) => total + point.upstream_bytes, 0);
    return `${bytes(sent)} sent, ${bytes(came)} from upstreams`;
  },
};

/** The card of both; gives `{root, stop}`. */
export function history() {
  const plots = [plot(RATIO), plot(BYTES)];
  const numbers = table(
    "The last hour",
    [
      { title: "Until" },
      { title: "Hits", class: "number" },
      { title: "Lookups", class: "number" },
      { title: "Failures", class: "number" },
      { title: "Sent", class: "number" },
      { title: "From upstreams", class: "number" },
    ],
    { class: "plain" },
  );
  const details = h(
    "details",
    { on: { toggle: update } },
    h("summary", {}, "The same as a table"),
    h(
      "div",
      { class: "scrolls", tabindex: "0", role: "region", "aria-label": "The last hour as a table" },
      numbers.root,
    ),
  );
  const empty = h(
    "p",
    { class: "empty" },
    "Nothing was counted yet. A point is added each half minute; the first pull shows here.",
  );
  const both = h("div", { class: "plots" }, ...plots.map((one) => one.root));
  const made = card("history", "The last hour", both, empty, details);

  function update() {
    const { step, points } = state("points") ?? { step: 30, points: [] };
    show(empty, points.length === 0);
    show(both, points.length > 0);
    show(details, points.length > 0);
    if (!points.length) return;
    for (const one of plots) one.update(points, step);
    if (details.open) {
      keyed(
        numbers.body,
        [...points].reverse(),
        (point) => point.at,
        (point) => ({
          root: row(numbers, [
            clock(point.at),
            count(hits(point)),
            count(lookups(point)),
            count(point.failures),
            bytes(point.sent_bytes),
            bytes(point.upstream_bytes),
          ]),
        }),
      );
    }
  }
  return { root: made.root, stop: on(["points"], update) };
}

function plot(kind) {
  const shapes = kind.lines.flatMap((line) => [
    line.filled ? svg("path", { class: `area ${line.name}` }) : null,
    svg("path", { class: `curve ${line.name}`, "vector-effect": "non-scaling-stroke" }),
  ]);
  const grid = [0, 0.5, 1].map((part) =>
    svg("line", {
      class: "grid",
      x1: 0,
      x2: WIDTH,
      y1: part * HEIGHT,
      y2: part * HEIGHT,
      "vector-effect": "non-scaling-stroke",
    }),
  );
  const cursor = svg("line", { class: "cursor", y1: 0, y2: HEIGHT, "vector-effect": "non-scaling-stroke" });
  const drawing = svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    ...grid,
    ...shapes,
    cursor,
  );
  const top = h("span");
  const scale = h("span", { class: "scale", "aria-hidden": "true" }, top, h("span", {}, "0"));
  const [from, until] = [h("span"), h("span")];
  const reading = h("output", { class: "reading" });
  const frame = h("div", { class: "frame", tabindex: "0", role: "img" }, scale, drawing);
  const legend =
    kind.lines.length > 1
      ? h(
          "span",
          { class: "legend" },
          h("span", { class: "key sent" }, "sent"),
          h("span", { class: "key upstream" }, "from upstreams"),
        )
      : null;
  const root = h(
    "figure",
    {},
    h("figcaption", {}, h("h3", {}, kind.title), legend, reading),
    frame,
    h("div", { class: "axis" }, from, until),
  );

  let shown = [];
  let place = null; // of the cursor, in `shown`
  let range = { first: 0, last: 1 };
  const x = (at) => ((at - range.first) / (range.last - range.first)) * WIDTH;

  function read() {
    const point = place === null ? null : shown[Math.min(place, shown.length - 1)];
    setAttribute(cursor, "visibility", point ? "visible" : "hidden");
    if (point) {
      setAttribute(cursor, "x1", x(point.at).toFixed(1));
      setAttribute(cursor, "x2", x(point.at).toFixed(1));
    }
    setText(reading, point ? `${clock(point.at)}: ${kind.read(point)}` : kind.sum(shown));
  }

  frame.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    const at = range.first + ((event.clientX - box.left) / box.width) * (range.last - range.first);
    place = shown.reduce((best, point, i) => (Math.abs(point.at - at) < Math.abs(shown[best].at - at) ? i : best), 0);
    read();
  });
  for (const event of ["pointerleave", "blur"])
    frame.addEventListener(event, () => {
      place = null;
      read();
    });
  frame.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    place = Math.max(0, Math.min(shown.length - 1, (place ?? shown.length - (step < 0 ? 0 : 1)) + step));
    read();
  });

  function update(points, step) {
    shown = points;
    const last = points[points.length - 1].at;
    range = { first: last - HOUR + step, last };
    const highest = kind.top(points);
    let next = 0;
    for (const line of kind.lines) {
      const runs = stretches(points, line.of, step, (point, value) => [
        x(point.at),
        HEIGHT - (value / highest) * HEIGHT,
      ]);
      if (line.filled) setAttribute(shapes[next], "d", runs.map(area).join(""));
      next += 1;
      setAttribute(shapes[next], "d", runs.map(stroke).join(""));
      next += 1;
    }
    setText(top, kind.scale(highest));
    setText(from, clock(range.first));
    setText(until, clock(last));
    setAttribute(
      frame,
      "aria-label",
      `${kind.title} of the last hour: ${kind.sum(points)}. ${kind.about}. ` +
        "Arrow keys read single points; a table is below.",
    );
    read();
  }
  return { root, update };
}

/** The points of a line as lists of `[x, y]`, broken where there is no value, or no point. */
function stretches(points, of, step, place) {
  const runs = [];
  let before = null;
  for (const point of points) {
    const value = of(point);
    if (value === null) {
      before = null;
      continue;
    }
    if (before === null || point.at - before > 1.5 * step) runs.push([]);
    runs[runs.length - 1].push(place(point, value));
    before = point.at;
  }
  return runs;
}

const stroke = (run) => {
  const text = run.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  return run.length === 1 ? `${text}h1` : text; // one point alone is a dot
};

const area = (run) =>
  `${stroke(run)}L${run[run.length - 1][0].toFixed(1)} ${HEIGHT}L${run[0][0].toFixed(1)} ${HEIGHT}Z`;
