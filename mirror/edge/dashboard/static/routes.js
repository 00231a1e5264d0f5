// Addresses of the page's parts, behind the `#`.

import { state } from "./state.js";

const FILTERS = ["search", "upstream", "verdict", "pinned", "sort", "order"];

/** The address of a module's own page. */
export const moduleHref = (reference) => `#/modules/${encodeURIComponent(reference)}`;

/** The address of a job's page. */
export const jobHref = (job) => `#/prewarm/${encodeURIComponent(job)}`;

/** The address of the overview with these filters. */
export function overviewHref(filters) {
  const query = new URLSearchParams(FILTERS.filter((name) => filters[name]).map((name) => [name, filters[name]]));
  return query.size ? `#/?${query}` : "#/";
}

/** What is at the address: `{page, parameter, filters}`; what nobody knows is the overview. */
export function current() {
  const [address, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [page, ...rest] = address.split("/");
  const given = new URLSearchParams(query);
  const filters = Object.fromEntries(FILTERS.filter((name) => given.get(name)).map((name) => [name, given.get(name)]));
  let parameter = null;
  try {
    parameter = rest.length ? decodeURIComponent(rest.join("/")) : null;
  } catch {
    parameter = rest.join("/");
  }
  return { page: page || "overview", parameter, filters };
}

/** The mirror's host, as agents write it: the page's own, unless the settings say more. */
export function mirrorHost() {
  const overview = state("overview");
  if (overview?.names.length) return overview.names[0];
  return overview?.admin_listen ? overview.listen : location.host;
}
