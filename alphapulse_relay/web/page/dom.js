// Small helpers around the DOM. Data only ever enters as text.

const FIELDS = "input, select, textarea";
const BUTTONS = "button, a, summary";

export function byId(id) {
  return document.getElementById(id);
}

/** Make an element; properties that are no properties of it are set as attributes. */
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** Set a node's text, touching the document only where it differs. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

/** Make a parent's children as many as there are values, reusing those it has. */
export function matchChildren(parent, values, make, fill) {
  while (parent.children.length > values.length) parent.lastElementChild.remove();
  while (parent.children.length < values.length) {
    parent.append(make(values[parent.children.length]));
  }
  values.forEach((value, index) => fill(parent.children[index], value, index));
}

/** Whether a key belongs to the control that has the focus rather than to the page. */
export function takesKey(node, key) {
  if (!(node instanceof Element)) return false;
  if (node.closest(FIELDS) !== null) return true;
  return (key === " " || key === "Enter") && node.closest(BUTTONS) !== null;
}
