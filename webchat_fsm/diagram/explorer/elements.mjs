/**
 * Makes elements. Texts are set as text, never as HTML, so that nothing in a recording or in the address can become
 * markup.
 */

/**
 * Return an element.
 * @param {string} tag
 * @param {Record<string, unknown>} [attributes] `on...` is a listener, true an empty attribute, false and null none
 * @param {...(Node|string|number|null|false|undefined)} children
 * @returns {HTMLElement}
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) setAttribute(element, name, value);
  append(element, children);
  return element;
}

function setAttribute(element, name, value) {
  if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
  else if (value === true) element.setAttribute(name, "");
  else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== false && child !== undefined && child !== "") element.append(child);
  }
}

/** Replace the children of an element. */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

/** Return the address of a place in the page: `#view=explore&state=offline&transport=v3`. */
export function address(place) {
  const given = Object.entries(place).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return `#${given.map(([key, value]) => `${key}=${encodeURIComponent(value)}`).join("&")}`;
}

/** Return the place of an address; what cannot be decoded stays as it is. */
export function placeOf(hash) {
  const parts = hash.replace(/^#/, "").split("&").filter(Boolean).map((part) => part.split(/=(.*)/s));
  return Object.fromEntries(parts.map(([key, value]) => [key, decoded(value ?? "")]));
}

function decoded(value) {
  try {
    return decodeURIComponent(value);
  } catch {
    return value; // a half escape, as of an address that was cut off
  }
}

/** Return a link to a place. */
export function link(place, ...children) {
  return h("a", { href: address(place) }, ...children);
}

/** Return a list of links, one for each name. */
export function links(names, placeFor) {
  return h("ul", { class: "links" }, names.map((name) => h("li", {}, link(placeFor(name), name))));
}

/** Return a section with a heading. */
export function section(title, ...children) {
  return h("section", {}, h("h3", {}, title), ...children);
}

/** Return a table in a frame that can be scrolled by keyboard. */
export function table(caption, header, rows) {
  const head = h("thead", {}, h("tr", {}, header.map((name) => h("th", { scope: "col" }, name))));
  const cell = (content, index) => h("td", { "data-column": header[index + 1] }, content);
  const line = ([first, ...rest]) => h("tr", {}, h("th", { scope: "row" }, first), rest.map(cell));
  const whole = h("table", {}, h("caption", {}, caption), head, h("tbody", {}, rows.map(line)));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, whole);
}
