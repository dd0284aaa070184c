// Numbers, sizes and times as text. Whatever stands in columns keeps its width and its decimals.

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const cents = new Intl.NumberFormat("en-US", {
  minimumFractionDigits: 2,
  maximumFractionDigits: 2,
});
const clock = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});
const dayAndMonth = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const dayOfYear = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium" });
const Q8 = 100_000_000n;
const NS_PER_MS = 1_000_000n;
const SIZE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
const COUNT_UNITS = ["", "K", "M", "G", "T", "P"];

export const NOTHING = "\u2013";
const MINUS = "\u2212";

export function count(number) {
  return whole.format(number);
}

/** A count with its noun, in the plural where it is one. */
export function counted(number, noun, plural = `${noun}s`) {
  return `${count(number)} ${Number(number) === 1 ? noun : plural}`;
}

/** A total in at most four digits and a unit: 1.20 G. */
export function shortCount(number) {
  if (number < 10_000) return count(number);
  return scaled(number, 1000, COUNT_UNITS);
}

export function rate(perSecond) {
  if (perSecond === 0) return "0";
  return perSecond < 10 ? perSecond.toFixed(1) : whole.format(perSecond);
}

/** Bytes a second: ["8.73", "MB/s"], decimal units, kB below a tenth of an MB. */
export function byteRate(bytes) {
  const small = bytes < 1e5;
  const number = bytes / (small ? 1e3 : 1e6);
  const digits = number === 0 ? 0 : number < 10 ? 2 : 1;
  return [number.toFixed(digits), small ? "kB/s" : "MB/s"];
}

export function size(bytes) {
  return bytes < 1024 ? `${whole.format(bytes)} B` : scaled(bytes, 1024, SIZE_UNITS);
}

function scaled(number, step, units) {
  let unit = 0;
  while (number >= step && unit < units.length - 1) {
    number /= step;
    unit += 1;
  }
  const digits = number < 10 ? 2 : number < 100 ? 1 : 0;
  return `${number.toFixed(digits)} ${units[unit]}`;
}

/** Seconds in the two largest units that matter. */
export function duration(seconds) {
  const all = Math.max(0, Math.floor(seconds));
  const days = Math.floor(all / 86400);
  const hours = Math.floor(all / 3600) % 24;
  const minutes = Math.floor(all / 60) % 60;
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  if (minutes) return `${minutes} min ${all % 60} s`;
  return `${all} s`;
}

/** Seconds since something, for a narrow column. */
export function age(seconds) {
  if (seconds < 0) seconds = 0;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.floor(seconds)} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h`;
  return `${whole.format(Math.floor(seconds / 86400))} d`;
}

/** Time of day of Unix seconds, local. */
export function timeOfDay(seconds) {
  return clock.format(seconds * 1000);
}

/** Time of day of Unix seconds, local, with the date unless that is of `now`. */
export function timeOrDate(seconds, now) {
  return isSameDay(new Date(seconds * 1000), now) ? timeOfDay(seconds) : dateTime(seconds);
}

function isSameDay(date, now) {
  return date.toDateString() === new Date(now * 1000).toDateString();
}

/** Date and time of Unix seconds, local: 2026-05-04 12:30:00. */
export function dateTime(seconds) {
  return localText(new Date(seconds * 1000)).replace("T", " ");
}

/** What a datetime-local field takes. */
export function localText(date) {
  const pad = (number) => String(number).padStart(2, "0");
  const day = `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`;
  return `${day}T${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
}

/** Time of day of nanoseconds since the epoch (BigInt), local, with milliseconds. */
export function timeOfDayNs(timestamp) {
  const milliseconds = Number(timestamp / NS_PER_MS);
  const date = new Date(milliseconds);
  if (timestamp === 0n || Number.isNaN(date.getTime())) return NOTHING;
  return `${clock.format(date)}.${String(milliseconds % 1000).padStart(3, "0")}`;
}

/** The same of another day than that of `now` with the date, in about as little room. */
export function timeOrDateNs(timestamp, now) {
  const date = new Date(Number(timestamp / NS_PER_MS));
  if (timestamp === 0n || isSameDay(date, now)) return timeOfDayNs(timestamp);
  const sameYear = date.getFullYear() === new Date(now * 1000).getFullYear();
  return sameYear ? `${dayAndMonth.format(date)} ${clock.format(date)}` : dayOfYear.format(date);
}

/** Nanoseconds since the epoch (BigInt) as UTC text with all nine decimals. */
export function utcNs(timestamp) {
  const date = new Date(Number(timestamp / NS_PER_MS));
  if (timestamp === 0n || Number.isNaN(date.getTime())) return "no time";
  const fraction = String(timestamp % 1_000_000_000n).padStart(9, "0");
  return `${date.toISOString().slice(0, 19).replace("T", " ")}.${fraction} UTC`;
}

/** Dollars times 10^8 (BigInt) to the cent; amounts below a cent keep their decimals. */
export function dollars(q8) {
  const number = Number(q8) / 1e8;
  if (number !== 0 && Math.abs(number) < 0.005) return exactDollars(q8).replace("-", MINUS);
  return cents.format(number).replace("-", MINUS);
}

/** Dollars times 10^8 (BigInt) with all eight decimals, exact. */
export function exactDollars(q8) {
  const amount = q8 < 0n ? -q8 : q8;
  const fraction = String(amount % Q8).padStart(8, "0");
  return `${q8 < 0n ? "-" : ""}${amount / Q8}.${fraction}`;
}

export function hex(bytes) {
  let text = "0x";
  for (const byte of bytes) text += byte.toString(16).padStart(2, "0");
  return text;
}

/** 0x12345678…90ab for an address or another long hex value. */
export function shortHex(text) {
  if (text.length <= 20) return text;
  return `${text.slice(0, 10)}\u2026${text.endsWith("\u2026") ? "" : text.slice(-4)}`;
}

/** Lines of 16 bytes: offset, hex, and what is printable. */
export function hexDump(bytes) {
  const lines = [];
  for (let start = 0; start < bytes.length; start += 16) {
    const part = [...bytes.subarray(start, start + 16)];
    const pairs = part.map((byte) => byte.toString(16).padStart(2, "0"));
    const text = part.map((byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : "."));
    const halves = `${pairs.slice(0, 8).join(" ")}  ${pairs.slice(8).join(" ")}`;
    lines.push(`${start.toString(16).padStart(4, "0")}  ${halves.padEnd(49)} ${text.join("")}`);
  }
  return lines.join("\n");
}
