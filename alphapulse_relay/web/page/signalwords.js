// What is said about the table of signals, in words.

import { counted, dateTime, rate, timeOfDayNs } from "./formats.js";
import { SAMPLE } from "./live.js";

/** From so many messages a second on it may be that not all are sent. */
const SAMPLED = 5 * SAMPLE;
const HELD = {
  paused: "paused",
  scrolled: "held while scrolled down",
  selected: "held while a row is selected",
};

/** How the table stands, as {name, text}; `past` and `held` are null where that does not hold. */
export function stateWords({ past, held, live }) {
  if (past) return { name: "past", text: "showing the past" };
  if (live.state === "lost") {
    const reason = live.reason ? ` (${live.reason})` : "";
    return { name: "lost", text: `no live feed${reason}, trying again` };
  }
  if (held) return { name: "held", text: HELD[held.reason] };
  return { name: live.state, text: live.state === "open" ? "live" : "connecting" };
}

/** How much arrives; `received` is what the relay gets of it all, or null if that is not known. */
export function rateWords({ past, held, live, received }) {
  if (past || live.state !== "open") return "";
  if (held) return `${counted(live.list.added - held.added, "new one", "new ones")} since`;
  const shown = `${rate(live.arrivalRate)}/s`;
  if (live.arrivalRate < SAMPLED) return shown;
  if (received === null) return `a sample: ${shown}`;
  return received > 1.2 * live.arrivalRate ? `a sample: ${shown} of ${rate(received)}/s` : shown;
}

/** What the page of the past holds. */
export function pastWords({ rows, from, end, problem, loading }) {
  const start = `The past, from ${dateTime(from)}`;
  if (loading) return `${start}: reading\u2026`;
  const words = [contentWords(rows.filter(({ kind }) => kind === "message"))];
  if (problem) words.push(problem);
  else if (end) words.push("that is all until now");
  return `${start}: ${words.join("; ")}.`;
}

function contentWords(messages) {
  if (messages.length === 0) return "no signals";
  const [first, last] = [messages[0], messages.at(-1)].map(({ header }) =>
    timeOfDayNs(header.timestamp),
  );
  return `${counted(messages.length, "signal")}, ${first} to ${last}, oldest on top`;
}

/** Why no row is there. */
export function emptyWords({ past, live, filtered }) {
  if (past) return past.loading ? "Reading the journal\u2026" : "No signals there.";
  if (live.state === "lost") return "There is no connection to the relay.";
  return filtered ? "No signal that passes the filters has come yet." : "No signal has come yet.";
}
