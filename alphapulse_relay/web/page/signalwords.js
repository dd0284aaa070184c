// What is said about the table of signals, in words.

import { count, counted, dateTime, rate, timeOfDayNs } from "./formats.js";

const SECOND_MS = 1000;
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

/**
 * How much arrives. `received` is what the relay gets of it all a second, `receivedSince` what it
 * got since the table is held; null if that is not known.
 */
export function rateWords({ past, held, live, received, receivedSince }) {
  if (past || live.state !== "open") return "";
  if (held) return heldWords(held, live, receivedSince);
  const shown = `${rate(live.arrivalRate)}/s`;
  if (!isSample(live)) return shown;
  const of = received > live.arrivalRate ? ` of ${rate(received)}/s` : "";
  return `a sample: ${shown}${of}`;
}

function heldWords(held, live, receivedSince) {
  const came = live.list.added - held.added;
  const words = (number) => `${counted(number, "new one", "new ones")} since`;
  if (!live.sampledAfter(held.began)) return words(came);
  return receivedSince === null ? `at least ${words(came)}` : words(Math.max(came, receivedSince));
}

/** Whether not all that matches the filters by type and source comes to the page. */
function isSample(live) {
  return live.sampledAfter(performance.now() - SECOND_MS);
}

/** What the page of the past holds; `looked` messages were looked at so far while it loads. */
export function pastWords({ from, page, loading, searched }, looked) {
  const start = `The past, from ${dateTime(from)}`;
  const progress = searched && looked ? `, ${count(looked)} looked at` : "";
  if (loading) return `${start}: reading\u2026${progress}`;
  const words = [contentWords(page, searched)];
  if (page.problem) words.push(page.problem);
  else if (page.end) words.push("that is all until now");
  return `${start}: ${words.join("; ")}.`;
}

function contentWords({ shown, looked, first, last }, searched) {
  if (looked === 0) return "no signals";
  const range = `${timeOfDayNs(first)} to ${timeOfDayNs(last)}`;
  if (!searched) return `${counted(shown, "signal")}, ${range}, oldest on top`;
  if (shown === 0) return `${noneWords(looked)}, ${range}`;
  const match = shown === 1 ? "matches" : "match";
  return `${count(shown)} of ${count(looked)} looked at ${match}, ${range}, oldest on top`;
}

function noneWords(looked) {
  return `none of ${count(looked)} looked at matches`;
}

/** Why no row is there. */
export function emptyWords({ past, live, filtered, searched }) {
  if (past) return emptyPastWords(past);
  if (live.state === "lost") return "There is no connection to the relay.";
  if (searched && isSample(live)) {
    return "No signal matches, but only a sample was searched: look back to search all.";
  }
  return filtered ? "No signal that passes the filters has come yet." : "No signal has come yet.";
}

function emptyPastWords({ loading, searched, page: { looked, end } }) {
  if (loading) return "Reading the journal\u2026";
  if (!searched || looked === 0) return "No signals there.";
  const none = noneWords(looked);
  return `N${none.slice(1)}.${end ? "" : " Next goes on."}`;
}
