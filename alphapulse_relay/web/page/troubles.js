// What is wrong, found in a status. Knows no document: findings in, findings out.

import { countsOf } from "./counters.js";
import { count, counted, duration, size } from "./formats.js";

const ORDERLY_ENDS = new Set(["closed", "finished", "shutdown"]);
/**
 * Losses and the disk come first and are severe; what a peer did wrong comes last. Of some only
 * the total is told, not what came lately.
 */
const GROUPS = {
  journal: { severe: true, onlyTotal: true, title: (reason) => JOURNAL[reason] },
  missed: { severe: true, title: (reason) => `Messages missed: ${reason}` },
  dropped: { severe: false, title: (reason) => `Messages dropped: ${reason}` },
  missing: { severe: false, title: (source) => `Source ${source}: sequence numbers missing` },
  repeated: { severe: false, title: (source) => `Source ${source}: sequence numbers repeated` },
  malformed: {
    severe: false,
    onlyTotal: true,
    title: () => "Messages whose TLVs cannot be read",
  },
  refused: { severe: false, title: (reason) => `Connections refused: ${reason}` },
  ended: { severe: false, title: (reason) => `Connections ended: ${reason}` },
};
const JOURNAL = {
  failures: "Journal had to go on in memory",
  damages: "Journal places found damaged",
  sync_failures: "Journal syncs failed",
};
const MEANINGS = {
  "dropped.magic": "did not begin with the magic number, which ended the connection",
  "dropped.size": "larger than the relay takes, which ended the connection",
  "dropped.checksum": "the checksum did not fit the bytes",
  "dropped.domain": "of a relay domain that is not accepted",
  "dropped.tlv": "the payload broke the rules for TLVs",
  "dropped.compression": "compressed bytes that cannot be unpacked",
  "dropped.control": "a control message that cannot be read or granted",
  "dropped.read_only": "from a WebSocket peer that may only read",
  "dropped.torn": "the connection ended inside the message",
  "missed.overtaken": "the peer read too slowly; what it needed next was no longer kept",
  "missed.muted": "a publisher that did not read",
  "missed.skipped": "the peer was behind and had wished to be moved to the head",
  "missed.damaged": "the journal cannot read them any more",
  "refused.too_many_peers": "as many peers as allowed were connected",
  "refused.too_many_web_connections": "the side port had as many connections as it takes",
  "refused.leaving": "the relay was about to leave",
  "refused.timeout": "no whole request came in time",
  "refused.stalled": "what was asked for was not read",
  "refused.host": "the request named another host than this",
  "refused.origin": "a page of another origin asked for a WebSocket",
  "refused.token": "the token was missing or wrong",
  "refused.request": "asked for what cannot be had",
  "ended.reset": "the peer vanished without closing",
  "ended.overtaken": "it read too slowly",
  "ended.damaged": "what it needed next cannot be read from the disk",
  "ended.unread": "it asked and asked and did not read the answers",
  "ended.undurable": "it wanted acknowledgements, and the disk has failed",
  "ended.unresponsive": "it did not answer a ping",
  "ended.violation": "it broke the WebSocket protocol",
  "ended.oversized": "its frame or message was too large",
  "ended.refused": "what it asked for cannot be had",
  "ended.fault": "the relay failed at it: the log has the traceback",
  "journal.failures": "see the log, make room or replace the disk",
  "journal.damages": "what is not damaged is served",
  "journal.sync_failures": "what a power cut takes may be more than --fsync says",
  "malformed.tlvs": "they are forwarded all the same",
};
/** Listed, but no reason for alarm: browsers connect ahead of need, and people mistype. */
const MINOR = new Set(["refused.timeout", "refused.leaving", "dropped.control"]);
/** Findings that another one tells already. */
const TOLD_BY = {
  "ended.magic": "dropped.magic",
  "ended.size": "dropped.size",
  "journal.failures": "failure",
};
/** A sync may be late by so many of its intervals, and by so many seconds, before it is told. */
const LATE_INTERVALS = 3;
const LATE_SECONDS = 5;

/** Notices how long nothing has been synced although there is something to sync. */
export class SyncWatch {
  #synced = null;
  #since = 0;
  /** Seconds for which the journal waits to be synced. */
  waiting = 0;

  add({ journal, log }, now) {
    const idle = journal === null || journal.fsync === "never" || journal.synced >= log.head;
    if (idle || journal.synced !== this.#synced) this.#since = now;
    this.#synced = journal?.synced ?? null;
    this.waiting = now - this.#since;
  }
}

/** Whether a peer is slow: behind, muted, or a quarter of the window away from the head. */
export function isSlow(peer, log) {
  return peer.state !== "live" || (!peer.replaying && peer.bytes_behind > log.window / 4);
}

/**
 * Return findings {key, title, note, severe, now, recent, total, last}, what matters most first.
 * `now`: it lasts, or came lately; `recent` and `total` are null where they are not known, `total`
 * only for what is no counter; `last` is {at, peer, detail} or null. `lately` is what
 * Rates.troubles() told.
 */
export function findTroubles(status, watch, lately) {
  const troubles = [
    ...relayTroubles(status),
    ...journalTroubles(status, watch),
    ...slowPeers(status),
    ...countedTroubles(status, lately),
  ];
  const keys = new Set(troubles.map(({ key }) => key));
  const rank = (trouble) => (trouble.now ? 0 : 2) + (trouble.severe ? 0 : 1);
  return troubles
    .filter(({ key }) => !keys.has(TOLD_BY[key]))
    .sort((one, other) => rank(one) - rank(other));
}

function trouble(key, title, note, severe) {
  return { key, title, note, severe, now: true, recent: null, total: null, last: null };
}

function* relayTroubles({ ready, held, journal, counters }) {
  if (!ready && !journal?.failure) {
    yield trouble("unready", "Relay is not ready", "/readyz says why", true);
  }
  if (held) {
    const time = duration(counters.held_seconds);
    const note = `consumers do not keep up; held for ${time} since start`;
    yield trouble("held", `${counted(held, "publisher")} held back`, note, false);
  }
}

function* journalTroubles({ journal, log }, watch) {
  if (journal === null) return;
  if (journal.failure) {
    const note = `${journal.failure}; the log goes on in memory`;
    yield trouble("failure", "Disk does not take the journal", note, true);
  }
  const allowed = Math.max(LATE_SECONDS, LATE_INTERVALS * (Number(journal.fsync) || 0));
  if (watch.waiting > allowed) {
    const note = `${size(log.head - journal.synced)} wait for it`;
    yield trouble("unsynced", `Nothing synced for ${duration(watch.waiting)}`, note, true);
  }
}

function* slowPeers({ peers, log }) {
  const slow = peers.filter((peer) => isSlow(peer, log));
  if (slow.length === 0) return;
  const names = slow.slice(0, 3).map((peer) => `${peerName(peer)} (${peer.state})`);
  const more = slow.length > 3 ? `, and ${count(slow.length - 3)} more` : "";
  yield trouble("slow", counted(slow.length, "slow peer"), names.join(", ") + more, false);
}

/** What a peer is called: its own word, its program, its address, or its number. */
export function peerName(peer) {
  return peer.client_name ?? peer.name ?? peer.address ?? `peer ${peer.number}`;
}

function countedTroubles(status, lately) {
  const lastDropped = status.counters.last_dropped ?? {};
  const troubles = [];
  for (const [key, total] of countsOf(status)) {
    const [group, reason] = key.split(".");
    if (total === 0 || (group === "ended" && ORDERLY_ENDS.has(reason))) continue;
    const { severe, onlyTotal, title } = GROUPS[group];
    const recent = onlyTotal || lately === null ? null : lately.get(key) ?? 0;
    const note = MEANINGS[key] ?? "";
    const now = recent > 0 && !MINOR.has(key);
    const last = group === "dropped" ? lastDropped[reason] ?? null : null;
    troubles.push({ key, title: title(reason), note, severe, now, recent, total, last });
  }
  const order = Object.keys(GROUPS);
  const place = (it) => order.indexOf(it.key.split(".")[0]);
  return troubles.sort((one, other) => place(one) - place(other));
}
