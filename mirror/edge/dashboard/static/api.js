// The admin API, asked with the token, if one was entered.

const ROOT = new URL("api/v1/", location.origin + location.pathname);
const KEY = "wasm-mirror token";

/** An answer that is an error: `status` (0: none came), and a sentence that says what to do. */
export class Refused extends Error {
  constructor(status, message, retryAfter = null) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** The token that was entered in this tab, or null. */
export const token = () => sessionStorage.getItem(KEY);

/** Keep it for as long as the tab is open; null: forget it. */
export function setToken(text) {
  if (text === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, text);
}

/** A part of an address that is one parameter: slashes stay, all else that means something is escaped. */
export const path = (reference) => reference.split("/").map(encodeURIComponent).join("/");

/** What GET answers; `query` leaves out what is null or empty. */
export async function get(address, query = {}, signal = undefined) {
  const url = new URL(address, ROOT);
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, value);
  }
  return (await answer(url, { signal })).json();
}

/** What POST with a JSON body answers. */
export async function post(address, body) {
  const headers = { "content-type": "application/json" };
  return (await answer(new URL(address, ROOT), { method: "POST", headers, body: JSON.stringify(body) })).json();
}

/** What DELETE answers. */
export async function remove(address) {
  return (await answer(new URL(address, ROOT), { method: "DELETE" })).json();
}

/** A stream of server-sent events, as its response. */
export function stream(address, signal, last = null) {
  const headers = { accept: "text/event-stream", ...(last === null ? {} : { "last-event-id": last }) };
  return answer(new URL(address, ROOT), { headers, signal });
}

async function answer(url, options) {
  const own = token();
  const headers = { ...options.headers, ...(own === null ? {} : { authorization: `Bearer ${own}` }) };
  let response;
  try {
    response = await fetch(url, { ...options, headers, cache: "no-store", credentials: "omit", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The mirror does not answer: it is stopped, or the network between is.");
  }
  if (response.ok) return response;
  const refused = new Refused(response.status, await message(response), Number(response.headers.get("retry-after")));
  if (response.status === 401 && own === token()) {
    document.dispatchEvent(new CustomEvent("locked", { detail: { refused, wrong: own !== null } }));
  }
  throw refused;
}

async function message(response) {
  try {
    const said = (await response.json()).errors[0].message;
    return said.charAt(0).toUpperCase() + said.slice(1);
  } catch {
    return `The answer was ${response.status}, which is none of this mirror's.`;
  }
}
