// The rows of signals in the document. Elements are moved and filled anew, not made anew.

import { sourceSeries, typeSeries } from "./colours.js";
import { byId, element } from "./dom.js";
import { age, count, dollars, NOTHING, timeOrDateNs } from "./formats.js";

const PROFIT = "expected_profit_usd_q8";
const NET_PROFIT = "net_profit_usd_q8";
const CAPITAL = "required_capital_usd_q8";

const EXPIRES_TITLE = "How long the signal is still valid, by its own field valid_until";

const money = (name) => (row) => {
  const value = row.decoded.fields.get(name);
  return value === undefined ? "" : dollars(value);
};

const COLUMNS = [
  { key: "time", label: "Time", text: (row, now) => timeOrDateNs(row.header.timestamp, now) },
  { key: "age", label: "Age", number: true, text: ageText },
  { key: "type", label: "Type", text: (row) => row.decoded.name },
  { key: "source", label: "Source", text: (row) => String(row.header.publisher) },
  { key: "sequence", label: "Sequence", number: true, text: (row) => String(row.header.sequence) },
  { key: "spread", label: "Spread", unit: "bps", number: true, text: spreadText },
  { key: "profit", label: "Profit", unit: "$", number: true, text: money(PROFIT) },
  { key: "net", label: "Net", unit: "$", number: true, text: money(NET_PROFIT) },
  { key: "capital", label: "Capital", unit: "$", number: true, text: money(CAPITAL) },
  { key: "venues", label: "Venues", text: venuesText },
  { key: "expires", label: "Expires", number: true, text: expiryText, title: EXPIRES_TITLE },
  { key: "other", label: "Other fields", text: (row) => row.decoded.other },
];
const TYPE = COLUMNS.findIndex(({ key }) => key === "type");
const SOURCE = COLUMNS.findIndex(({ key }) => key === "source");
const NET = COLUMNS.findIndex(({ key }) => key === "net");
const EXPIRES = COLUMNS.findIndex(({ key }) => key === "expires");
/** The columns that change while a row stands. */
const TICKING = [COLUMNS.findIndex(({ key }) => key === "age"), EXPIRES];
const SOON_SECONDS = 5;
/** The height of a row at least, and how many are drawn beyond what is seen of them. */
const ROW_PX = 25;
const SPARE_ROWS = 8;

function ageText(row, now) {
  return row.header.timestamp === 0n ? NOTHING : age(now - row.seconds);
}

function spreadText({ decoded: { fields } }) {
  const spread = fields.get("spread_bps");
  return spread === undefined ? "" : count(spread);
}

function venuesText({ decoded: { fields } }) {
  if (!fields.has("source_venue")) return "";
  return `${fields.get("source_venue")} \u2192 ${fields.get("target_venue") ?? NOTHING}`;
}

function expiryText({ decoded: { fields } }, now) {
  const until = fields.get("valid_until");
  if (!until) return "";
  const left = until - now;
  return left > 0 ? age(left) : "expired";
}

/** One table row, for whichever message it shows now. */
class Line {
  row = null;

  constructor() {
    this.cells = COLUMNS.map(({ key, number }) =>
      element("td", { className: `${key}${number ? " number" : ""}` }),
    );
    this.texts = this.cells.map((cell) => cell.appendChild(document.createTextNode("")));
    this.swatches = [TYPE, SOURCE].map((index) => {
      const swatch = element("span", { className: "swatch" });
      this.cells[index].prepend(swatch);
      return swatch;
    });
    this.node = element("tr", {}, ...this.cells);
  }

  fill(row, now, selected) {
    this.row = row;
    this.node.id = `signal-${row.id}`;
    this.node.className = row.kind;
    this.select(row.id === selected);
    if (row.kind === "note") {
      this.texts[0].data = row.text;
      return;
    }
    COLUMNS.forEach(({ text }, index) => {
      this.texts[index].data = text(row, now);
    });
    this.#mark(row);
    this.#markExpiry(now);
  }

  #mark({ header, decoded: { type, fields, fault } }) {
    const series = type === null ? "none" : typeSeries.className(type);
    this.swatches[0].className = `swatch ${series}`;
    this.swatches[1].className = `swatch square ${sourceSeries.className(header.publisher)}`;
    this.cells[NET].classList.toggle("loss", (fields.get(NET_PROFIT) ?? 0n) < 0n);
    this.node.classList.toggle("fault", fault !== null);
    this.node.classList.toggle("plain", fields.size === 0);
  }

  tick(now) {
    if (this.row.kind === "note") return;
    for (const index of TICKING) {
      const text = COLUMNS[index].text(this.row, now);
      if (this.texts[index].data !== text) this.texts[index].data = text;
    }
    this.#markExpiry(now);
  }

  #markExpiry(now) {
    const left = (this.row.decoded.fields.get("valid_until") ?? 0) - now;
    this.cells[EXPIRES].classList.toggle("soon", left > 0 && left < SOON_SECONDS);
    this.cells[EXPIRES].classList.toggle("over", left <= 0);
  }

  select(selected) {
    this.node.setAttribute("aria-selected", String(selected));
  }
}

export class SignalTableView {
  #lines = [];
  #body;
  #table;
  #box = byId("signals-box");
  #selected = null;

  constructor() {
    this.#table = byId("signals");
    // Not with each row as it is filled: few are ever pointed at.
    this.#body = this.#table.tBodies[0];
    this.#body.addEventListener("pointerover", ({ target }) => {
      if (target.matches("td.other")) target.title = target.textContent;
    });
    this.#table.tHead.rows[0].append(...COLUMNS.map(makeHead));
    this.#table.querySelector("colgroup").append(
      ...COLUMNS.map(({ key }) => element("col", { className: `column-${key}` })),
    );
  }

  /** How many rows can be seen at once, and some more. */
  get capacity() {
    return Math.ceil(this.#box.clientHeight / ROW_PX) + SPARE_ROWS;
  }

  /** The rows that are drawn, from top to bottom. */
  get rows() {
    return this.#lines.map((line) => line.row);
  }

  /** The row that an element in the table belongs to; null for none. */
  rowAt(node) {
    const line = node.closest("tbody tr");
    return this.#lines.find((each) => each.node === line)?.row ?? null;
  }

  /** Show these rows, from top to bottom; `now` is the relay's time. */
  show(rows, now) {
    this.#rotate(rows);
    while (this.#lines.length > rows.length) this.#lines.pop().node.remove();
    while (this.#lines.length < rows.length) {
      const line = new Line();
      this.#lines.push(line);
      this.#body.append(line.node);
    }
    rows.forEach((row, index) => {
      const line = this.#lines[index];
      if (line.row !== row) line.fill(row, now, this.#selected);
    });
  }

  /** Move as many lines from the end to the top as there are new rows there. */
  #rotate(rows) {
    const shift = this.#lines.length ? rows.indexOf(this.#lines[0].row) : -1;
    if (shift <= 0 || shift >= this.#lines.length) return;
    const surplus = this.#lines.length + shift - rows.length;
    const moved = this.#lines.splice(this.#lines.length - Math.max(0, Math.min(shift, surplus)));
    this.#lines.unshift(...moved);
    this.#body.prepend(...moved.map((line) => line.node));
    for (let index = moved.length; index < shift; index += 1) {
      const line = new Line();
      this.#lines.unshift(line);
      this.#body.prepend(line.node);
    }
  }

  /** Fill all rows anew, as the meaning of their bytes may have changed. */
  refill(now) {
    for (const line of this.#lines) line.fill(line.row, now, this.#selected);
  }

  /** Bring ages and expiries up to date. */
  tick(now) {
    for (const line of this.#lines) line.tick(now);
  }

  /** Mark the row with this id; null for none. Scrolls to it if `reveal`. */
  select(id, reveal) {
    this.#selected = id;
    for (const line of this.#lines) line.select(line.row.id === id);
    if (id === null) this.#table.removeAttribute("aria-activedescendant");
    else this.#table.setAttribute("aria-activedescendant", `signal-${id}`);
    if (!reveal) return;
    const line = this.#lines.find((each) => each.row.id === id);
    line?.node.scrollIntoView({ block: "nearest", inline: "nearest", behavior: "instant" });
  }
}

function makeHead({ key, label, unit, number, title = "" }) {
  const units = unit ? [" ", element("span", { className: "unit" }, unit)] : [];
  const className = `${key}${number ? " number" : ""}`;
  return element("th", { scope: "col", className, title }, label, ...units);
}
