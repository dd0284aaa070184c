// "What is wrong": the findings as a table, and how the journal and its disk stand.

import { byId, element, matchChildren, setText } from "./dom.js";
import { count, counted, NOTHING, size, timeOrDate } from "./formats.js";

/** Draw the findings of findTroubles; `link` tells if they still hold. */
export function drawTrouble(link, status, troubles) {
  const wrong = troubles.filter((trouble) => trouble.now);
  const gone = link.state === "gone";
  const { dataset } = byId("trouble");
  dataset.wrong = gone ? "unknown" : String(wrong.length);
  dataset.level = wrong.some((trouble) => trouble.severe) ? "bad" : "warn";
  const words = gone ? lastVerdict(wrong) : verdict(wrong, troubles);
  setText(byId("trouble-verdict"), words);
  byId("findings").hidden = troubles.length === 0;
  matchChildren(byId("findings").tBodies[0], troubles, makeFinding, (row, trouble) =>
    fillFinding(row, trouble, link.now),
  );
  drawJournal(status);
}

function verdict(wrong, troubles) {
  if (wrong.length === 1) return "One thing is wrong.";
  if (wrong.length) return `${wrong.length} things are wrong.`;
  return troubles.length ? "Nothing is wrong now. Earlier:" : "Nothing is wrong.";
}

function lastVerdict(wrong) {
  const rest = wrong.length ? "When last seen:" : "Nothing else was wrong when last seen.";
  return `The relay is gone. ${rest}`;
}

function makeFinding() {
  const dot = element("span", { className: "dot" });
  const note = element("span", { className: "muted" });
  const last = element("span", { className: "last muted" });
  const counts = [1, 2].map(() => element("td", { className: "number" }));
  return element("tr", {}, element("td", {}, dot, element("b"), " ", note, last), ...counts);
}

function fillFinding(row, { key, title, note, severe, now, recent, total, last }, at) {
  const [what, lately, all] = row.children;
  row.dataset.key = key;
  row.dataset.level = now ? (severe ? "bad" : "warn") : "past";
  setText(what.children[1], title);
  setText(what.children[2], note);
  setText(what.children[3], last === null ? "" : lastText(last, at));
  setText(lately, total === null ? "now" : known(recent));
  setText(all, known(total));
}

function known(number) {
  return number === null ? NOTHING : count(number);
}

function lastText({ at, peer, detail }, now) {
  return `last at ${timeOrDate(at, now)} from peer ${peer}${detail ? `: ${detail}` : ""}`;
}

function drawJournal({ journal, log }) {
  const facts = journal === null ? memoryFacts(log) : journalFacts(journal, log);
  matchChildren(byId("journal-facts"), facts, makeFact, fillFact);
}

function memoryFacts(log) {
  return [
    ["Journal", "none: history ends with the relay", ""],
    ["Kept in memory", `${size(log.head - log.tail)} of ${size(log.window)}`, ""],
  ];
}

function journalFacts(journal, log) {
  const unsynced = Math.max(0, log.head - journal.synced);
  const failing = journal.failure !== null;
  return [
    ["State", failing ? journal.failure : "written to disk", failing ? "bad" : ""],
    ["Segments", segmentsText(log.segments), log.segments.memory ? "warn" : ""],
    ["Space", `${size(journal.bytes)} of ${size(journal.size)}`, ""],
    ["History kept", size(log.head - log.tail), ""],
    ["Unsynced", `${size(unsynced)} (${syncText(journal.fsync)})`, ""],
    ["Sync failures", count(journal.sync_failures), journal.sync_failures ? "bad" : ""],
    ["Damaged places", count(journal.damages), journal.damages ? "bad" : ""],
    ["Directory", journal.directory, ""],
  ];
}

function syncText(fsync) {
  return ["always", "never"].includes(fsync) ? `synced ${fsync}` : `every ${fsync} s`;
}

function segmentsText({ files, memory }) {
  return memory ? `${counted(files, "file")}, ${count(memory)} in memory` : counted(files, "file");
}

function makeFact() {
  return element("div", {}, element("dt"), element("dd"));
}

function fillFact(node, [name, text, level]) {
  setText(node.children[0], name);
  setText(node.children[1], text);
  node.dataset.level = level;
}
