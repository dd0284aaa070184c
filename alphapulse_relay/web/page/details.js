// The panel beside the table: all fields of one message, and its bytes.

import { byId, element, setText } from "./dom.js";
import { counted, dateTime, hex, hexDump, utcNs } from "./formats.js";
import { fieldText } from "./layouts.js";

const DUMPED = 4096;
const COPIED_MS = 1500;
const DOMAINS = { 1: "market data", 2: "signal", 3: "execution", 4: "system" };

/** Calls `onClose` when the user closes it. */
export class Details {
  #panel = byId("details");
  #body = byId("details-body");
  row = null;

  constructor(onClose) {
    byId("details-close").addEventListener("click", onClose);
  }

  get open() {
    return !this.#panel.hidden;
  }

  show(row) {
    this.row = row;
    const { header, decoded } = row;
    setText(byId("details-title"), `${decoded.name}, source ${header.publisher}`);
    this.#body.replaceChildren(
      ...(decoded.fault === null ? [] : [element("p", { className: "notice bad" }, decoded.fault)]),
      ...decoded.signals.flatMap(signalParts),
      ...part("Header", headerFields(row)),
      ...bytesParts(row.bytes),
    );
    this.#body.scrollTop = 0;
    this.#panel.hidden = false;
    document.body.classList.add("details-open");
  }

  hide() {
    this.row = null;
    this.#panel.hidden = true;
    document.body.classList.remove("details-open");
  }
}

function part(title, fields) {
  return [element("h4", {}, title), fieldList(fields)];
}

function fieldList(fields) {
  const pairs = fields.map(([name, text, note]) => {
    const value = element("dd", { className: text.startsWith("0x") ? "hex" : "" }, text);
    if (note) value.append(" ", element("span", { className: "muted" }, note));
    return element("div", {}, element("dt", {}, name), value);
  });
  return element("dl", { className: "fields" }, ...pairs);
}

function signalParts(signal) {
  const note = `type ${signal.type}, ${counted(signal.size, "byte")}`;
  const title = element("h4", {}, signal.name, " ", element("span", { className: "muted" }, note));
  if (signal.hex === null) return [title, fieldList(signal.fields.map(fieldEntry))];
  const value = signal.hex === "0x" ? "empty" : signal.hex;
  return [title, element("p", { className: "hex" }, value)];
}

function fieldEntry(field) {
  return [field.name, fieldText(field), meaning(field)];
}

/** What a number says in words, where its name tells the unit. */
function meaning({ name, value }) {
  if (name === "valid_until" && value) return dateTime(value);
  if (name === "timestamp_ns" && value) return utcNs(value);
  if (name.endsWith("_bps")) return `${(value / 100).toFixed(2)} %`;
  return "";
}

function headerFields({ header, bytes }) {
  const flags = `0x${header.flags.toString(16).padStart(2, "0")}`;
  const checksum = `0x${header.checksum.toString(16).padStart(8, "0")}`;
  return [
    ["time", utcNs(header.timestamp), ""],
    ["timestamp", String(header.timestamp), "ns"],
    ["source", String(header.publisher), header.legacy ? "legacy writer" : ""],
    ["sequence", String(header.sequence), ""],
    ["domain", String(header.domain), DOMAINS[header.domain] ?? ""],
    ...(header.legacy ? [] : [["version", String(header.version), ""], ["flags", flags, ""]]),
    ["checksum", checksum, header.checksum ? "" : "not computed"],
    ["size", counted(bytes.length, "byte"), `payload ${counted(header.payloadSize, "byte")}`],
  ];
}

function bytesParts(bytes) {
  const properties = { type: "button", className: "quiet", id: "details-copy" };
  const copy = element("button", properties, "Copy hex");
  copy.addEventListener("click", () => copyText(copy, hex(bytes).slice(2)));
  const shown = hexDump(bytes.subarray(0, DUMPED));
  const rest = bytes.length - DUMPED;
  const more = rest > 0 ? [element("p", { className: "muted" }, counted(rest, "more byte"))] : [];
  const head = element("div", { className: "bytes-head" }, element("h4", {}, "Bytes"), copy);
  return [head, element("pre", { className: "dump", tabIndex: 0 }, shown), ...more];
}

async function copyText(button, text) {
  // Without a secure context there is no clipboard: http on another host than this one.
  const done = await (navigator.clipboard?.writeText(text) ?? Promise.reject()).then(
    () => "Copied",
    () => "Cannot copy here",
  );
  setText(button, done);
  setTimeout(() => setText(button, "Copy hex"), COPIED_MS);
}
