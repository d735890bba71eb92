"use strict";

/** An element of HTML. Attributes that are functions are listeners; children that are texts stay texts, never markup. */
function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** An element of SVG, likewise. */
function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(key, value);
    else if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** A number with so many significant digits, or a dash where there is none. */
function digits(value, count = 4) {
  if (value === null || value === undefined) return "–";
  if (value !== 0 && (Math.abs(value) < 1e-4 || Math.abs(value) >= 1e6)) return value.toExponential(count - 1);
  return String(Number(value.toPrecision(count)));
}

function percent(share, count = 3) {
  return share === null || share === undefined ? "–" : `${digits(100 * share, count)} %`;
}

function bytes(count) {
  const units = ["bytes", "kB", "MB", "GB"];
  let unit = 0;
  for (; count >= 1000 && unit < 3; unit++) count /= 1000;
  return `${digits(count, 3)} ${units[unit]}`;
}

/** A section of the page under its heading. */
function section(title, ...children) {
  const heading = element("h2", {}, title);
  return element("section", { "aria-label": title }, heading, ...children);
}

/** A table: the first cell of a row is its heading. A cell is a text, or { text, class, link }. */
function table(header, rows, numeric = true) {
  const side = (i) => (numeric && i ? "number" : "");
  const cell = (content, i) => {
    const { text, link, class: own = "" } = typeof content === "string" ? { text: content } : content;
    const inside = link ? element("a", { href: link }, text) : text;
    return i ? element("td", { class: `${side(i)} ${own}`.trim() }, inside) : element("th", { scope: "row" }, inside);
  };
  return element("div", { class: "scroll" }, element("table", {},
    element("thead", {}, element("tr", {}, ...header.map((text, i) => element("th", { scope: "col", class: side(i) }, text)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map(cell))))));
}

/** How many colours charts have: --c0, --c1, ... of the style. */
const COLOURS = 8;

/** Colour number i of a chart's lines. */
function colour(i) {
  return `var(--c${i % COLOURS})`;
}
