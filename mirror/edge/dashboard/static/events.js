// Server-sent events, read with fetch(), which can send a token; EventSource cannot.

import { Refused, stream } from "./api.js";

const QUIET = 40_000; // ms without a byte after which a connection is taken for cut: there is a heartbeat each 15 s
const FIRST = 1000;
const LONGEST = 15_000;

/** The events of a response, as `{event, data, id}`, `data` parsed. Source: HTML standard, "Server-sent events". */
export async function* read(response, heard = () => {}) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = {};
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      heard();
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        const [, field, text] = /^([^:]*):? ?(.*?)\r?$/.exec(line);
        if (field === "data") event.data = (event.data === undefined ? "" : `${event.data}\n`) + text;
        else if (field === "event" || field === "id") event[field] = text;
        else if (line.trim() === "") {
          if (event.data !== undefined) yield { ...event, data: JSON.parse(event.data) };
          event = {};
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/**
 * Follow `events` for as long as the page is open. `onEvent(kind, data)` gets each; `onPhase(phase, details)` hears
 * `live`, `cut` with `{why, at, retryAt, answers}`, the last of which is whether the mirror answered at all, and
 * `locked` where a token is asked for. After a cut it is tried again, later each time, and at once by `retry()`, or when the
 * browser says that it is online again.
 */
export class Live {
  constructor(onEvent, onPhase) {
    this.onEvent = onEvent;
    this.onPhase = onPhase;
    this.failed = 0;
    this.cutAt = null;
    this.wake = () => {};
    addEventListener("online", () => this.retry());
    document.addEventListener("visibilitychange", () => document.hidden || this.retry());
  }

  /** Try now, where it waits. */
  retry() {
    this.wake();
  }

  /** Begin anew, as another token may see something else. */
  restart() {
    this.again = true;
    this.failed = 0;
    this.controller?.abort();
    this.wake();
  }

  async run() {
    for (;;) {
      let why = "The mirror has ended the connection.";
      let [locked, answers] = [false, true];
      this.again = false;
      try {
        await this.follow();
      } catch (error) {
        why = error.message;
        locked = error instanceof Refused && error.status === 401;
        answers = error instanceof Refused && error.status > 0;
        if (error instanceof Refused && error.retryAfter > 0) this.failed = Math.max(this.failed, 3);
      }
      if (this.again) continue;
      if (locked) {
        this.onPhase("locked", {});
        await new Promise((resolve) => {
          this.wake = resolve;
        });
        continue;
      }
      this.cutAt ??= Date.now();
      const pause = Math.min(LONGEST, FIRST * 2 ** this.failed) * (0.8 + 0.4 * Math.random());
      this.failed += 1;
      this.onPhase("cut", { why, at: this.cutAt, retryAt: Date.now() + pause, answers });
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, pause);
        this.wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  async follow() {
    const controller = new AbortController();
    this.controller = controller;
    let timer;
    const heard = () => {
      clearTimeout(timer);
      timer = setTimeout(() => controller.abort(), QUIET);
    };
    heard();
    try {
      for await (const { event, data } of read(await stream("events", controller.signal), heard)) {
        if (this.cutAt !== null || this.failed || !this.isLive) {
          this.failed = 0;
          this.cutAt = null;
          this.isLive = true;
          this.onPhase("live", {});
        }
        try {
          this.onEvent(event, data);
        } catch (error) {
          reportError(error); // a fault of the page is not one of the connection
        }
      }
    } catch (error) {
      if (error.name === "AbortError") throw new Error("Nothing has come from the mirror for a while.");
      if (!(error instanceof Refused)) throw new Error("The connection to the mirror is cut.");
      throw error;
    } finally {
      clearTimeout(timer);
      this.isLive = false;
    }
  }
}
