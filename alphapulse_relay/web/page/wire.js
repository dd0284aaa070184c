// Protocol V2: messages, their TLVs, and what the relay says. Bytes in, values out.

const HEADER_SIZE = 32;
const MAGIC = 0xdeadbeef;
const VERSION = 1;
const EXTENDED = 255;
const SYSTEM_DOMAIN = 4;
const ZSTD = 1;

const CONTROL = { HEARTBEAT: 100, ERROR: 102, SEQUENCE_SYNC: 112, GAP: 221 };

export class WireError extends Error {}

/**
 * Cut a frame (ArrayBuffer) into whole messages: {header, bytes}. The bytes are copies, so that
 * a message that is kept does not keep its frame. Throws WireError.
 */
export function* messagesOf(buffer) {
  const view = new DataView(buffer);
  let start = 0;
  while (start < buffer.byteLength) {
    const header = readHeader(view, start);
    const stop = start + HEADER_SIZE + header.payloadSize;
    if (stop > buffer.byteLength) throw new WireError("the frame ends within a message");
    yield { header, bytes: new Uint8Array(buffer.slice(start, stop)) };
    start = stop;
  }
}

function readHeader(view, start) {
  if (view.byteLength - start < HEADER_SIZE) throw new WireError("a header is cut short");
  if (view.getUint32(start, true) !== MAGIC) throw new WireError("no message begins here");
  const version = view.getUint8(start + 5);
  const source = view.getUint8(start + 6);
  const flags = view.getUint8(start + 7);
  const legacy = version !== VERSION;
  return {
    domain: view.getUint8(start + 4),
    version,
    source,
    flags,
    sequence: view.getBigUint64(start + 8, true),
    timestamp: view.getBigUint64(start + 16, true),
    payloadSize: view.getUint32(start + 24, true),
    checksum: view.getUint32(start + 28, true),
    legacy,
    publisher: legacy ? version : source,
    compressed: !legacy && (flags & ZSTD) !== 0,
  };
}

/** Return a message's TLVs [{type, value}], and the fault that ends the walk, or null. */
export function readTlvs(bytes, header) {
  if (header.compressed) {
    return { tlvs: [], fault: `compressed with zstd, ${header.payloadSize} bytes` };
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const next = header.legacy ? legacySpan : span;
  const tlvs = [];
  try {
    for (let start = HEADER_SIZE; start < bytes.length; ) {
      const { type, from, to } = next(view, start);
      if (to > bytes.length) {
        throw new WireError(`type ${type}: ${to - from} bytes stated, ${bytes.length - from} left`);
      }
      tlvs.push({ type, value: bytes.subarray(from, to) });
      start = to;
    }
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    return { tlvs, fault: error.message };
  }
  return { tlvs, fault: null };
}

function span(view, start) {
  const type = view.getUint8(start);
  if (type !== EXTENDED) {
    needBytes(view, start + 2);
    return { type, from: start + 2, to: start + 2 + view.getUint8(start + 1) };
  }
  needBytes(view, start + 5);
  const inner = view.getUint8(start + 2);
  if (view.getUint8(start + 1) !== 0 || inner === EXTENDED) {
    throw new WireError("not the form of an extended TLV");
  }
  return { type: inner, from: start + 5, to: start + 5 + view.getUint16(start + 3, true) };
}

function legacySpan(view, start) {
  needBytes(view, start + 4);
  const type = view.getUint16(start, true);
  if (type > 255) throw new WireError(`legacy type ${type} is above 255`);
  return { type, from: start + 4, to: start + 4 + view.getUint16(start + 2, true) };
}

function needBytes(view, stop) {
  if (stop > view.byteLength) throw new WireError("a TLV header is cut short");
}

/** Return what a control message says as {kind, ...}; null for any other message. */
export function readControl(bytes, header) {
  if (header.domain !== SYSTEM_DOMAIN || header.legacy) return null;
  const { tlvs } = readTlvs(bytes, header);
  if (tlvs.length !== 1) return null;
  const { type, value } = tlvs[0];
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
  if (type === CONTROL.SEQUENCE_SYNC && value.length === 17) return sync(view);
  if (type === CONTROL.GAP && value.length === 25) return gap(view);
  if (type === CONTROL.ERROR && value.length >= 2) return failure(view, value);
  return { kind: "other", type };
}

function sync(view) {
  return {
    kind: "sync",
    epoch: view.getBigUint64(0, true),
    position: view.getBigUint64(8, true),
    live: view.getUint8(16) === 1,
  };
}

const GAP_REASONS = { 1: "retention", 2: "skipped", 3: "damage" };

function gap(view) {
  return {
    kind: "gap",
    epoch: view.getBigUint64(0, true),
    from: view.getBigUint64(8, true),
    to: view.getBigUint64(16, true),
    reason: GAP_REASONS[view.getUint8(24)] ?? "unknown",
  };
}

function failure(view, value) {
  return {
    kind: "error",
    code: view.getUint16(0, true),
    text: new TextDecoder().decode(value.subarray(2)),
  };
}
