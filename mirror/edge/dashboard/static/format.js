// Numbers, ages and names as people read them.

import { h, setAttribute, setText } from "./dom.js";

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

let ahead = 0; // seconds by which the mirror's clock is ahead of this machine's

/** Heed the mirror's own clock: ages are told by it. */
export function setClock(now) {
  ahead = now - Date.now() / 1000;
}

/** Seconds since the epoch, by the mirror's clock. */
export function now() {
  return Date.now() / 1000 + ahead;
}

/** Such as `1.4 MiB`; "–" for what is not known. */
export function bytes(count) {
  if (count === null || count === undefined) return "–";
  let value = count;
  let unit = 0;
  while (value >= 1023.95 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 99.95 ? whole.format(value) : value.toFixed(1)} ${UNITS[unit]}`;
}

/** Such as `12,345`. */
export function count(number) {
  return number === null || number === undefined ? "–" : whole.format(number);
}

/** Such as `98.2 %`; never 100 % or 0 % for what is not. */
export function percent(ratio) {
  if (ratio === null || ratio === undefined) return "–";
  const value = Math.min(ratio < 1 ? 99.9 : 100, Math.max(ratio > 0 ? 0.1 : 0, ratio * 100));
  return `${Number.isInteger(Number(value.toFixed(1))) ? value.toFixed(0) : value.toFixed(1)} %`;
}

/** `one`, or the number and `many`: "1 fill", "3 fills". */
export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** Such as `84 ms`, `1.2 s`, `3 min`. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.0995) return `${(seconds * 1000).toFixed(seconds < 0.00995 ? 1 : 0)} ms`;
  if (seconds < 0.9995) return `${(seconds * 1000).toFixed(0)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  return span(seconds);
}

function span(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${whole.format(Math.floor(seconds / 86400))} days`;
}

/** Such as `3 min ago`. */
export function age(at) {
  const seconds = now() - at;
  return seconds < 5 ? "just now" : `${span(seconds)} ago`;
}

/** The date and time of the user's own place and zone. */
export function exact(at) {
  return new Date(at * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

/** The time of day, such as 14:05. */
export function clock(at) {
  return new Date(at * 1000).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
}

/** A `<time>` that goes on telling its age; `none` is what stands there for null. */
export function when(at, none = "never") {
  const node = h("time");
  setWhen(node, at, none);
  return node;
}

/** Let such a `<time>` tell another one. */
export function setWhen(node, at, none = "never") {
  const known = at !== null && at !== undefined;
  setAttribute(node, "data-at", known ? at : null);
  setAttribute(node, "datetime", known ? new Date(at * 1000).toISOString() : null);
  setAttribute(node, "title", known ? exact(at) : null);
  setText(node, known ? age(at) : none);
}

/** Let all ages on the page be those of this moment. */
export function tick() {
  for (const node of document.querySelectorAll("time[data-at]")) setText(node, age(Number(node.dataset.at)));
}

/** The digest's beginning, as people compare it: twelve digits. */
export function short(digest) {
  return digest.startsWith("sha256:") ? digest.slice(7, 19) : digest.slice(0, 19);
}

/** The parts of a reference: `{upstream, repository, version}`, the last with its `:` or `@`. */
export function parts(reference) {
  const slash = reference.indexOf("/");
  const at = reference.indexOf("@");
  const colon = reference.lastIndexOf(":", at < 0 ? undefined : at);
  const cut = at >= 0 ? at : colon > reference.lastIndexOf("/") ? colon : reference.length;
  return {
    upstream: slash < 0 ? reference : reference.slice(0, slash),
    repository: slash < 0 ? "" : reference.slice(slash + 1, cut),
    version: reference.slice(cut),
  };
}
