// What is wrong with the mirror, from what it tells. Pure.

import { bytes, duration, percent, plural } from "./format.js";

const RANK = { bad: 0, warn: 1 };

/**
 * What is wrong, the worst first: `{id, level, what, means, error, at}`. `level`: `bad` (somebody is, or will soon be,
 * without a module) or `warn`; `what` is a short sentence, `means` what follows from it and what to do.
 */
export function problems({ overview, upstreams, replicas }) {
  const found = [];
  if (overview) found.push(...ofMirror(overview));
  for (const one of upstreams?.upstreams ?? []) found.push(...ofUpstream(one));
  for (const one of replicas?.others ?? []) {
    if (!one.answers) {
      found.push({
        id: `replica ${one.address}`,
        level: "warn",
        what: `The replica ${one.address} does not answer`,
        means: "This one goes on without it, and fetches from upstream what it would have had from there.",
      });
    }
  }
  return found.sort((a, b) => RANK[a.level] - RANK[b.level]);
}

function ofMirror({ disk, metadata, draining }) {
  const found = [];
  if (draining) {
    found.push({
      id: "draining",
      level: "warn",
      what: "This mirror is stopping",
      means: "It still answers, for a moment, and takes no new work; agents are to go to another replica.",
    });
  }
  if (disk.problem) {
    found.push({
      id: "disk",
      level: "bad",
      what: "The disk has a problem",
      means: "What is held is served. What is not is streamed through from upstream, and not kept.",
      error: disk.problem,
    });
  } else if (disk.limit && kept(disk) > 0.9) {
    found.push({
      id: "full",
      level: "warn",
      what: `Pinned and hosted content takes ${percent(kept(disk))} of the disk's limit`,
      means:
        "Nothing of it is ever evicted, so little else can be kept. " +
        `Unpin, or raise cache.max_size (the limit is ${bytes(disk.limit)}).`,
    });
  }
  if (!metadata.up) {
    const redis = metadata.store === "redis";
    found.push({
      id: "metadata",
      level: redis ? "warn" : "bad",
      what: redis ? "Redis is away" : "The database does not answer",
      means: redis
        ? "This replica goes on with its own database, and no pull fails. " +
          "Pushes and deletes of hosted content wait until Redis is back."
        : "What is held is served by digest; the mirror's log says what has happened to the file.",
    });
  }
  return found;
}

/** The part of the limit that is never evicted. */
function kept({ pinned, hosted, limit }) {
  return ((pinned ?? 0) + (hosted ?? 0)) / limit;
}

function ofUpstream({ name, offline, reachable, endpoints }) {
  const failing = endpoints.filter((one) => !one.healthy);
  const latest = latestError(failing.length ? failing : endpoints);
  if (offline) return [];
  if (!reachable) {
    return [
      {
        id: `upstream ${name}`,
        level: "bad",
        what: `${name} is not reachable`,
        means: `What is held of it is served; what is not cannot be fetched. ${again(endpoints)}`,
        error: latest?.last_error,
        at: latest?.last_error_at,
      },
    ];
  }
  const found = failing.map((one) => ({
    id: `endpoint ${name} ${one.host}`,
    level: "warn",
    what: `${one.host}, an endpoint of ${name}, is left alone`,
    means: `The others are asked. ${again([one])}`,
    error: one.last_error,
    at: one.last_error_at,
  }));
  for (const one of endpoints) {
    if (one.rate_limit !== null && one.rate_limit < 0.1) {
      found.push({
        id: `limit ${name} ${one.host}`,
        level: "warn",
        what: `${percent(one.rate_limit)} of the rate limit of ${one.host} is left`,
        means:
          "What can wait gives way to what agents wait for. Credentials for this upstream usually raise the limit.",
      });
    }
  }
  return found;
}

/** The endpoint whose error is the latest; undefined where none has failed. */
export function latestError(endpoints) {
  const failed = endpoints.filter((one) => one.last_error);
  return failed.sort((a, b) => (b.last_error_at ?? 0) - (a.last_error_at ?? 0))[0];
}

function again(endpoints) {
  const pauses = endpoints.map((one) => Math.max(one.opens_for, one.rests_for)).filter((seconds) => seconds > 0);
  return pauses.length
    ? `It is tried again within ${duration(Math.min(...pauses))}.`
    : "It is tried again with the next pull.";
}

/** The state of the whole in one line: `{level, text, more}`. */
export function summary(found, { overview, upstreams }) {
  if (found.length) {
    const [{ level, what }, ...others] = found;
    return { level, text: what, more: others.length ? `and ${plural(others.length, "more problem")}` : "" };
  }
  const count = upstreams?.upstreams.length ?? 0;
  const ratio = overview?.last_hour.ratio;
  const hits =
    ratio === null || ratio === undefined
      ? "nothing was asked for in the last hour"
      : `${percent(ratio)} hits in the last hour`;
  return { level: "good", text: "All well", more: `${plural(count, "upstream")} can be asked, ${hits}` };
}
