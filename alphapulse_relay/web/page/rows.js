// What the table of signals holds: messages, decoded when they are looked at, and notes of what
// did not come. Bounded in number and in bytes.

import { shortFieldText } from "./layouts.js";
import { count, counted, shortHex } from "./formats.js";
import { readTlvs } from "./wire.js";

const ROWS_MAX = 1000;
const BYTES_MAX = 32 * 1024 * 1024;
const TIMES = new Set(["timestamp_ns", "valid_until"]);
/** Fields with a column of their own, by name and kind. */
const IN_COLUMNS = new Map([
  ["spread_bps", "u16"],
  ["expected_profit_usd_q8", "usd_q8"],
  ["net_profit_usd_q8", "usd_q8"],
  ["required_capital_usd_q8", "usd_q8"],
  ["source_venue", "u16"],
  ["target_venue", "u16"],
  ["valid_until", "u32"],
]);

let lastId = 0;

/** A message as a row. `table()` returns the SignalTable of now. */
export class MessageRow {
  kind = "message";
  #table;
  #decoded = null;

  constructor({ header, bytes }, table) {
    this.id = lastId += 1;
    this.header = header;
    this.bytes = bytes;
    this.#table = table;
  }

  /** {signals, fault, fields: Map, type, name, other, search}, decoded at the first look. */
  get decoded() {
    const table = this.#table();
    if (this.#decoded?.table !== table) this.#decoded = { table, ...decode(this, table) };
    return this.#decoded;
  }

  /** When it was made, in Unix seconds. */
  get seconds() {
    return Number(this.header.timestamp / 1000n) / 1e6;
  }
}

/** A note between messages: positions that did not come, or a time without a connection. */
export class NoteRow {
  kind = "note";
  bytes = new Uint8Array(0);

  constructor(text) {
    this.id = lastId += 1;
    this.text = text;
  }
}

const GAP_WORDS = {
  retention: "not kept any more",
  skipped: "skipped, as this page was behind",
  damage: "damaged in the journal",
  unknown: "not sent",
};

/** The row of a Gap, as readControl tells it. */
export function gapRow({ from, to, reason }) {
  const range = `${count(from)} to ${count(to)}`;
  return new NoteRow(`${counted(to - from, "position")} ${GAP_WORDS[reason]} (${range})`);
}

function decode({ bytes, header }, table) {
  const { tlvs, fault } = readTlvs(bytes, header);
  const signals = tlvs.map((tlv) => table.decode(tlv));
  const fields = new Map();
  for (const { fields: own } of signals) {
    for (const field of own) {
      if (IN_COLUMNS.get(field.name) === field.kind && !fields.has(field.name)) {
        fields.set(field.name, field.value);
      }
    }
  }
  const type = signals[0]?.type ?? null;
  const name = nameOf(signals, fault);
  const other = otherText(signals, fault);
  return { signals, fault, fields, type, name, other, search: searchText(header, signals, other) };
}

function nameOf(signals, fault) {
  if (signals.length === 0) return fault === null ? "no TLVs" : "unreadable";
  return signals.length === 1 ? signals[0].name : `${signals[0].name} +${signals.length - 1}`;
}

function otherText(signals, fault) {
  const parts = fault === null ? [] : [fault];
  signals.forEach(({ name, fields, hex, size: bytes }, index) => {
    if (index > 0) parts.push(name);
    if (hex !== null) parts.push(`${shortHex(hex)} (${bytes} B)`);
    // Addresses last: they say least at a glance.
    const shown = fields.filter(isOther).sort((one, other) => isText(one) - isText(other));
    for (const field of shown) parts.push(`${label(field.name)} ${shortFieldText(field)}`);
  });
  return parts.join(" \u00b7 ");
}

function isOther({ name, kind }) {
  return IN_COLUMNS.get(name) !== kind && !TIMES.has(name);
}

function isText({ value }) {
  return typeof value === "string" ? 1 : 0;
}

function label(name) {
  return name.replace(/_usd_q8$|_gwei$|_bps$/, "").replaceAll("_", " ");
}

/** All that the text filter looks at, in small letters. */
function searchText(header, signals, other) {
  const parts = [`source ${header.publisher}`, `seq ${header.sequence}`, other];
  for (const { name, fields, hex } of signals) {
    parts.push(name);
    for (const field of fields) parts.push(`${field.name}=${fullText(field)}`);
    if (hex !== null) parts.push(hex);
  }
  return parts.join(" ").toLowerCase();
}

function fullText({ kind, value }) {
  return kind === "usd_q8" ? shortFieldText({ name: "", kind, value }) : String(value);
}

/** Whether a row is to be shown under a text filter: all its words occur. Notes always are. */
export function matches(row, words) {
  return row.kind === "note" || words.every((word) => row.decoded.search.includes(word));
}

/** The newest rows, oldest first. */
export class RowList {
  rows = [];
  /** How many were ever added. */
  added = 0;
  #bytes = 0;

  add(row) {
    this.rows.push(row);
    this.added += 1;
    this.#bytes += row.bytes.length;
  }

  /** Let go of what is more than is kept. */
  trim() {
    let surplus = Math.max(0, this.rows.length - ROWS_MAX);
    for (let index = 0; index < surplus; index += 1) this.#bytes -= this.rows[index].bytes.length;
    while (this.#bytes > BYTES_MAX && surplus < this.rows.length - 1) {
      this.#bytes -= this.rows[surplus].bytes.length;
      surplus += 1;
    }
    if (surplus) this.rows.splice(0, surplus);
  }

  clear() {
    this.rows.length = 0;
    this.#bytes = 0;
  }
}
