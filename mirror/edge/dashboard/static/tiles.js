// What an operator looks at first, in numbers: hits, bytes, downloads, the disk.

import { h, setAttribute, setText, show, svg } from "./dom.js";
import { bytes, count, percent, plural, setWhen, when } from "./format.js";
import { on, state } from "./state.js";

/** A row of numbers; gives `{root, stop}`. */
export function tiles() {
  const hits = tile("Hit ratio, last hour");
  const sent = tile("Sent to clients, last hour");
  const fills = tile("Downloads");
  const disk = tile("Disk");
  const bar = diskBar();
  disk.root.append(bar.root);
  const root = h("dl", { class: "tiles" }, hits.root, sent.root, fills.root, disk.root);

  const stop = on(["overview"], () => {
    const { last_hour: hour, fills: running, waiters, disk: held } = state("overview");
    hits.update(
      percent(hour.ratio),
      hour.lookups ? `${count(hour.hits)} of ${plural(hour.lookups, "lookup")}` : "nothing was asked for",
    );
    sent.update(bytes(hour.sent_bytes), `${bytes(hour.upstream_bytes)} came from upstreams`);
    fills.update(count(running), running ? `running, ${plural(waiters, "request")} waiting` : "none is running");
    const part = held.limit ? `of ${bytes(held.limit)} (${percent((held.bytes ?? 0) / held.limit)}), ` : "";
    disk.update(bytes(held.bytes), `${part}${bytes(held.free)} free`);
    setAttribute(disk.root, "title", plural(held.blobs ?? 0, "blob"));
    bar.update(held);
  });
  return { root, stop };
}

function tile(title) {
  const value = h("dd", { class: "value" }, "–");
  const about = h("dd", { class: "about" });
  const root = h("div", { class: "tile" }, h("dt", {}, title), value, about);
  return {
    root,
    update(next, words) {
      setText(value, next);
      setText(about, words);
    },
  };
}

/** How the limit is divided: hosted, pinned, all else, and what is left. */
function diskBar() {
  const kinds = ["hosted", "pinned", "other"];
  const rects = kinds.map((kind) => svg("rect", { class: kind, y: 0, height: 8 }));
  const drawing = svg(
    "svg",
    { class: "disk", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { class: "left", x: 0, y: 0, width: 100, height: 8 }),
    ...rects,
  );
  const words = h("div", { class: "about legend" });
  const keys = Object.fromEntries(["pinned", "hosted"].map((kind) => [kind, h("span", { class: `key ${kind}` })]));
  words.append(keys.pinned, keys.hosted);
  const root = h("dd", { hidden: true }, drawing, words);
  return {
    root,
    update({ bytes: used, limit, pinned, hosted }) {
      show(root, true);
      show(drawing, Boolean(limit));
      if (limit) {
        const sizes = { hosted: hosted ?? 0, pinned: pinned ?? 0 };
        sizes.other = Math.max(0, (used ?? 0) - sizes.hosted - sizes.pinned);
        let x = 0;
        kinds.forEach((kind, i) => {
          const width = Math.min(100 - x, (sizes[kind] / limit) * 100);
          setAttribute(rects[i], "x", x.toFixed(2));
          setAttribute(rects[i], "width", width.toFixed(2));
          x += width;
        });
      }
      setText(keys.pinned, `${bytes(pinned)} pinned`);
      setText(keys.hosted, `${bytes(hosted)} hosted`);
    },
  };
}

/** Who this mirror is, at the top: its address, version, and since when it runs. */
export function identity(root) {
  const name = h("span", { class: "host" });
  const version = h("span");
  const began = when(null);
  root.append(name, " ", version, " ", h("span", { class: "since" }, "started ", began));
  show(root, false);
  on(["overview"], () => {
    const { own, names, version: number, began_at: at, workers } = state("overview");
    setText(name, own?.replace(/^https?:\/\//, "") ?? names[0] ?? location.host);
    setText(version, `${number}${workers > 1 ? `, ${workers} workers` : ""}`);
    setWhen(began, at);
    show(root, true);
  });
}
