// Making and changing elements. Text goes in as text: nothing here, or in any file beside it, parses HTML.

const rowsOf = new WeakMap(); // of a parent, by key

const SVG = "http://www.w3.org/2000/svg";

/** An element. `props`: `class`, `on` (listeners by event), and attributes; null, undefined and false leave one out. */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else {
      setAttribute(node, name, value);
    }
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Set an attribute if it is another one; null, undefined and false take it away, true is the empty text. */
export function setAttribute(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else {
    const text = value === true ? "" : String(value);
    if (node.getAttribute(name) !== text) node.setAttribute(name, text);
  }
}

/** Set the text of an element if it is another one, so that what a user has selected stays selected. */
export function setText(node, text) {
  const wanted = text === null || text === undefined ? "" : String(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** Show an element, or hide it. */
export function show(node, shown) {
  if (node.hidden === shown) node.hidden = !shown;
}

/**
 * Let the children of `parent` be one for each of `items`, in their order. A child is made once for a key by
 * `create(item)`, which gives `{root, update(item)}`; those that stay are not taken out of the page, so that focus,
 * selection and scroll stay, too.
 */
export function keyed(parent, items, key, create) {
  const before = rowsOf.get(parent) ?? new Map();
  const after = new Map();
  for (const item of items) {
    const name = key(item);
    if (after.has(name)) continue;
    const row = before.get(name) ?? create(item);
    row.update?.(item);
    after.set(name, row);
  }
  const focused = document.activeElement;
  for (const [name, row] of before) {
    if (!after.has(name)) row.root.remove();
  }
  let next = parent.firstElementChild;
  for (const { root } of after.values()) {
    if (root === next) next = next.nextElementSibling;
    else parent.insertBefore(root, next);
  }
  rowsOf.set(parent, after);
  if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
}

/** Let `node` have these children, if they are others than it has. */
export function setChildren(node, ...children) {
  const wanted = children.filter((child) => child !== null && child !== undefined);
  const same = wanted.length === node.childNodes.length && wanted.every((child, i) => child === node.childNodes[i]);
  if (!same) node.replaceChildren(...wanted);
}
