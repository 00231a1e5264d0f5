// What an artifact is, and who would take it, as GET modules/{reference} tells it.

import { h, setAttribute, setText, show } from "./dom.js";
import { bytes, count, plural } from "./format.js";
import { badge, card, code } from "./ui.js";

const WHO = { agents: "Istio agents", envoy: "Envoy", envoy_gateway: "Envoy Gateway" };

/** The cards; `ask(answer, gone)` fills them from the promise of a description. */
export function description() {
  const verdicts = h("div", { class: "verdicts" });
  const warnings = h("ul", { class: "warnings" });
  const waiting = h("p", { class: "empty", role: "status" }, "It is being looked at.");
  const facts = h("dl", { class: "facts" });
  const takers = card("verdicts", "Who takes it", waiting, verdicts, warnings);
  const what = card("facts", "What it is", facts);
  const imports = card("imports", "Imports");
  const exports_ = card("exports", "Exports");
  const all = [what, imports, exports_];
  const root = h(
    "div",
    { class: "stack" },
    takers.root,
    what.root,
    h("div", { class: "columns" }, imports.root, exports_.root),
  );
  for (const one of all) show(one.root, false);

  function told(one) {
    show(waiting, false);
    verdicts.replaceChildren(...Object.entries(WHO).map(([name, title]) => verdict(title, one.accepted_by[name])));
    warnings.replaceChildren(...one.warnings.map((text) => h("li", {}, text)));
    facts.replaceChildren(...factsOf(one).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
    for (const each of all) show(each.root, true);
    for (const each of [imports, exports_]) each.root.replaceChildren(each.head);
    const { module } = one;
    if (!module) {
      for (const each of [imports, exports_]) show(each.root, false);
      return;
    }
    const asked = Object.entries(module.imports);
    const total = asked.reduce((sum, [, items]) => sum + items.length, 0);
    setText(imports.note, plural(total, "import"));
    imports.root.append(
      ...asked.map(([from, items]) =>
        group(from, items, new Set((module.lacking[from] ?? []).map((item) => item.name))),
      ),
    );
    if (!asked.length) imports.root.append(h("p", { class: "empty" }, "It imports nothing."));
    setText(exports_.note, plural(module.exports.length, "export"));
    exports_.root.append(
      module.exports.length ? group("", module.exports, new Set()) : h("p", { class: "empty" }, "It exports nothing."),
    );
    if (module.left_out)
      exports_.root.append(h("p", { class: "sub" }, `${plural(module.left_out, "more name")} are not told.`));
  }

  return {
    root,
    async ask(answer, gone) {
      try {
        const one = await answer;
        if (!gone()) told(one);
      } catch (error) {
        setText(waiting, `It cannot be looked at now. ${error.message}`);
        setAttribute(waiting, "class", "banner warn");
        show(waiting, true);
      }
    },
  };
}

function verdict(who, { accepted, reason, remedy }) {
  return h(
    "div",
    { class: `verdict ${accepted ? "good" : "bad"}` },
    h("h3", {}, who),
    badge(accepted ? "good" : "bad", accepted ? "accepted" : "refused").root,
    reason ? h("p", {}, reason) : null,
    remedy ? h("p", { class: "remedy" }, h("b", {}, "To mend it: "), remedy) : null,
  );
}

function factsOf({ layout, digest, media_type: type, index, module, problem, found, complete }) {
  const facts = [["Layout", layout]];
  if (digest) facts.push(["Manifest", code(digest)]);
  if (type) facts.push(["Media type", code(type)]);
  if (index) facts.push(["Out of the index", code(index)]);
  if (problem) facts.push(["Module", problem]);
  if (module) {
    if (module.sha256) facts.push(["sha256 of the module", code(module.sha256)]);
    facts.push(["Size of the module", `${bytes(module.size)} (${count(module.size)} bytes)`]);
    facts.push(["ABI", module.abi.join(", ") || "none of Proxy-Wasm's"]);
    if (module.name) facts.push(["Name", module.name]);
    if (module.producers.length) {
      facts.push(["Made by", module.producers.map((one) => `${one.name} ${one.version}`.trim()).join(", ")]);
    }
    const pages = module.memories.map(
      (one) => `${bytes(one.minimum * 65536)}${one.maximum === null ? "" : ` to ${bytes(one.maximum * 65536)}`}`,
    );
    if (pages.length) facts.push(["Memory", pages.join(", ")]);
  }
  if (found.length) {
    facts.push([
      "In its layers",
      h(
        "ul",
        { class: "found" },
        ...found.map((one) =>
          h(
            "li",
            {},
            `${one.layer}: ${one.name ?? "the layer itself"}, ${bytes(one.size)}${one.wasm ? ", a module" : ""}`,
          ),
        ),
      ),
    ]);
  }
  if (!complete) facts.push(["Not looked at", "A layer could not be had."]);
  return facts;
}

/** Imports of one module, or exports, folded where they are many; those in `lacking` Envoy does not have. */
function group(from, items, lacking) {
  const list = h(
    "ul",
    { class: "items" },
    ...items.map((item) =>
      h(
        "li",
        {},
        code(item.name),
        " ",
        h("span", { class: "sub" }, item.signature ? `${item.kind}: ${item.signature}` : item.kind),
        lacking.has(item.name) ? badge("bad", "Envoy lacks it").root : null,
      ),
    ),
  );
  const title = `${from ? `${from}: ` : ""}${count(items.length)}`;
  return h("details", { open: items.length <= 12 || lacking.size > 0 }, h("summary", {}, title), list);
}
