// What the mirror has told last, and who wants to hear of it.

const told = new Map();
const listeners = new Map();

/** What is known of a kind: `overview`, `upstreams`, `fills`, `replicas`, `prewarm`, `points`, `live`; or undefined. */
export const state = (kind) => told.get(kind);

/** Something new is known of it. */
export function tell(kind, value) {
  told.set(kind, value);
  for (const listener of listeners.get(kind) ?? []) listener(value);
}

/** Forget all of it: who looks may not see it any more. */
export function forgetAll() {
  told.clear();
}

/** Call `listener` now, if there is something to tell, and at each news of these kinds; gives what ends that. */
export function on(kinds, listener) {
  const heard = () => listener();
  for (const kind of kinds) {
    if (!listeners.has(kind)) listeners.set(kind, new Set());
    listeners.get(kind).add(heard);
  }
  if (kinds.some((kind) => told.has(kind))) listener();
  return () => kinds.forEach((kind) => listeners.get(kind).delete(heard));
}
