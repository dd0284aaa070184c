// What the values of TLVs mean, by the relay's own signal table (/api/layouts).

import { count, exactDollars, hex, shortHex } from "./formats.js";

const WHOLE = /^([ui])(8|16|32|64|128)$/;
const RAW = /^(?:bytes|reserved):(\d+)$/;
const ADDRESS_BYTES = 20;
/** As much of a value without a layout is turned into hex; values are up to 64 KiB long. */
const HEX_BYTES = 512;

/** Layouts by TLV type. A value whose length does not fit its layout is hex, never guessed. */
export class SignalTable {
  #layouts;

  /** `document` is that of /api/layouts. */
  constructor(document = {}) {
    this.#layouts = new Map(Object.entries(document).map(([type, it]) => [Number(type), it]));
  }

  get types() {
    return [...this.#layouts.keys()];
  }

  /** The type's name; "type 24" for one that has none. */
  name(type) {
    return this.#layouts.get(type)?.name ?? `type ${type}`;
  }

  /** Return {type, name, size, fields: [{name, kind, value}], hex}: either fields or hex. */
  decode({ type, value }) {
    const layout = this.#layouts.get(type);
    const signal = { type, name: this.name(type), size: value.length, fields: [], hex: null };
    if (!layout?.fields?.length || value.length < layout.size || value.length > layout.size_max) {
      const rest = value.length > HEX_BYTES ? "\u2026" : "";
      return { ...signal, hex: hex(value.subarray(0, HEX_BYTES)) + rest };
    }
    let start = 0;
    for (const [name, kind] of layout.fields) {
      const stop = start + sizeOf(kind);
      if (!kind.startsWith("reserved:")) {
        signal.fields.push({ name, kind, value: read(kind, value.subarray(start, stop)) });
      }
      start = stop;
    }
    return signal;
  }
}

function sizeOf(kind) {
  const integer = WHOLE.exec(kind);
  if (integer) return Number(integer[2]) / 8;
  if (kind === "usd_q8") return 8;
  return kind === "address" ? ADDRESS_BYTES : Number(RAW.exec(kind)?.[1] ?? 0);
}

function read(kind, bytes) {
  const integer = WHOLE.exec(kind);
  if (integer) return readInteger(bytes, integer[1] === "i");
  return kind === "usd_q8" ? readInteger(bytes, true) : hex(bytes);
}

/** Little-endian bytes as a Number up to 32 bits, a BigInt beyond. */
function readInteger(bytes, signed) {
  let number = 0n;
  for (let index = bytes.length - 1; index >= 0; index -= 1) {
    number = (number << 8n) | BigInt(bytes[index]);
  }
  if (signed) number = BigInt.asIntN(bytes.length * 8, number);
  return bytes.length > 4 ? number : Number(number);
}

/** A field's value in full, for the details. */
export function fieldText({ kind, value }) {
  if (kind === "usd_q8") return `${exactDollars(value)} USD`;
  return typeof value === "string" ? value : String(value);
}

/** A field's value, shortened for a line. */
export function shortFieldText({ name, kind, value }) {
  if (kind === "usd_q8") return exactDollars(value).replace(/\.?0+$/, "");
  if (typeof value === "string") return shortHex(value);
  return name.endsWith("_id") ? String(value) : count(value);
}
