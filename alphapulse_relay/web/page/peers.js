// "Who is connected": a table that sorts, and who left lately.

import { byId, element, matchChildren, setAttribute, setText } from "./dom.js";
import {
  age,
  count,
  counted,
  dateTime,
  duration,
  NOTHING,
  rate,
  shortCount,
  size,
  timeOfDay,
} from "./formats.js";
import { isSlow, peerName } from "./troubles.js";

const DRAWN = 200;
const DEPARTED_DRAWN = 20;
/** The name of a relay's bridge: a client that passes on what it is sent. */
const BRIDGE = "bridge";

const QUEUE_TITLE = "Bytes that were handed to the connection and that the peer has not taken";
const LAG_TITLE = "Bytes of the log from what the peer was sent last to the newest message";
const STATE_TITLE =
  "live: at the newest, or being sent to; behind: its connection is full; " +
  "muted: it publishes and does not read; replaying: it is sent what was before";

/** `read` gives what is sorted by; `text` what is shown, where that is not the same. */
const COLUMNS = [
  { key: "name", label: "Peer", read: peerName },
  { key: "transport", label: "Transport", read: ({ transport }) => transport },
  { key: "user", label: "User", read: userText },
  { key: "filter", label: "Filter", read: filterText },
  numeric("in", "In/s", (peer) => peer.in, speed),
  numeric("out", "Out/s", (peer) => peer.out, speed),
  numeric("messages_in", "In", (peer) => peer.messages_in, shortCount),
  numeric("messages_out", "Out", (peer) => peer.messages_out, shortCount),
  numeric("queue", "Queue", (peer) => peer.queued_bytes ?? null, queueText, QUEUE_TITLE),
  numeric("lag", "Lag", (peer) => peer.bytes_behind, size, LAG_TITLE),
  { key: "state", label: "State", read: stateText, title: STATE_TITLE },
  numeric("since", "Connected", (peer) => peer.connected_seconds, age),
];

function numeric(key, label, read, show, title) {
  return { key, label, title, read, text: (peer) => show(read(peer)), number: true };
}

function userText({ user, uid }) {
  return user ?? (Number.isInteger(uid) ? `uid ${uid}` : "");
}

function queueText(bytes) {
  return bytes === null ? NOTHING : size(bytes);
}

function speed(perSecond) {
  return perSecond === null ? NOTHING : rate(perSecond);
}

function filterText({ filter }) {
  if (filter === null) return "all";
  const types = filter.types.length ? `types ${filter.types.join(", ")}` : "";
  const sources = filter.sources.length ? `sources ${filter.sources.join(", ")}` : "";
  return [types, sources].filter(Boolean).join("; ") || "all";
}

function stateText({ state, replaying, messages_missed: missed }) {
  if (missed) return `${state}, missed ${shortCount(missed)}`;
  return replaying ? `${state}, replaying` : state;
}

export class Peers {
  #peers = [];
  #previous = new Map();
  #sortKey = "in";
  #descending = true;

  /** `redraw` asks for a drawing. */
  constructor(redraw) {
    const sort = (key, numeric) => {
      this.#descending = this.#sortKey === key ? !this.#descending : numeric;
      this.#sortKey = key;
      redraw();
    };
    byId("peers").tHead.rows[0].append(...COLUMNS.map((column) => makeHead(column, sort)));
  }

  /** Take a status: rates are what changed since the one before. */
  add(status) {
    const at = status.started_at + status.uptime_seconds;
    const previous = this.#previous;
    this.#previous = new Map();
    this.#peers = status.peers.map((peer) => {
      const key = `${status.started_at} ${peer.number}`;
      const before = previous.get(key);
      this.#previous.set(key, { at, in: peer.messages_in, out: peer.messages_out });
      const seconds = before ? at - before.at : 0;
      const perSecond = (now, then) => (seconds > 0 ? Math.max(0, now - then) / seconds : null);
      return {
        ...peer,
        in: perSecond(peer.messages_in, before?.in),
        out: perSecond(peer.messages_out, before?.out),
        slow: isSlow(peer, status.log),
      };
    });
    this.#drawDeparted(status.departed ?? []);
  }

  draw() {
    const column = COLUMNS.find(({ key }) => key === this.#sortKey);
    const sign = this.#descending ? -1 : 1;
    const sorted = this.#peers.toSorted(
      (one, other) =>
        sign * compare(column.read(one), column.read(other)) || one.number - other.number,
    );
    for (const head of byId("peers").tHead.rows[0].cells) {
      const own = head.dataset.key === this.#sortKey;
      setAttribute(head, "aria-sort", own ? (this.#descending ? "descending" : "ascending") : null);
    }
    matchChildren(byId("peers").tBodies[0], sorted.slice(0, DRAWN), makeRow, fillRow);
    byId("peers-empty").hidden = sorted.length > 0;
    setText(byId("peers-note"), this.#note());
  }

  #note() {
    const slow = this.#peers.filter((peer) => peer.slow).length;
    const drawn = this.#peers.length > DRAWN ? `, the first ${DRAWN} of this order are shown` : "";
    return `${counted(this.#peers.length, "peer")}${slow ? `, ${count(slow)} slow` : ""}${drawn}`;
  }

  #drawDeparted(departed) {
    const latest = departed.toSorted((one, other) => other.at - one.at).slice(0, DEPARTED_DRAWN);
    const section = byId("departed");
    section.hidden = latest.length === 0;
    if (section.hidden) return;
    const [{ at, reason }] = latest;
    setText(byId("departed-note"), `last: ${peerName(latest[0])} at ${timeOfDay(at)}, ${reason}`);
    matchChildren(section.querySelector("tbody"), latest, makeDeparture, fillDeparture);
  }
}

function compare(one, other) {
  if (typeof one === "string") return one.localeCompare(other);
  return (one ?? -1) - (other ?? -1);
}

function makeHead({ key, label, number, title = "" }, sort) {
  const button = element("button", { type: "button" }, label);
  button.addEventListener("click", () => sort(key, Boolean(number)));
  const head = element("th", { scope: "col", className: number ? "number" : "", title }, button);
  head.dataset.key = key;
  return head;
}

function makeRow() {
  const who = element("span", { className: "muted" });
  const badge = element("span", { className: "badge", hidden: true });
  const name = element("th", { scope: "row" }, element("b"), " ", badge, " ", who);
  const rest = COLUMNS.slice(1).map(({ key, label, number }) =>
    element("td", { className: `${key}${number ? " number" : ""}`, "data-label": label }),
  );
  return element("tr", {}, name, ...rest);
}

function fillRow(row, peer) {
  row.dataset.number = peer.number;
  row.dataset.state = peer.state;
  row.classList.toggle("slow", peer.slow);
  row.title = peer.slow ? "slow" : "";
  const [name] = row.cells;
  setText(name.children[0], peerName(peer));
  name.children[1].hidden = peer.client_name !== BRIDGE;
  setText(name.children[1], bridgeText(peer));
  setText(name.children[2], whoElse(peer));
  COLUMNS.slice(1).forEach(({ read, text }, index) => {
    setText(row.cells[index + 1], (text ?? read)(peer));
  });
  row.cells[COLUMNS.length - 1].title = `for ${duration(peer.connected_seconds)}`;
}

function bridgeText({ bytes_behind: lag }) {
  return lag ? `bridge to NATS, ${size(lag)} behind` : "bridge to NATS";
}

/** What else is known of who a peer is, beside its name. */
function whoElse(peer) {
  const program = peer.client_name && peer.name !== peer.client_name ? peer.name : null;
  const process = peer.pid ? `pid ${peer.pid}` : null;
  const address = peer.client_name || peer.name ? peer.address : null;
  const rule = peer.rule ? `rule ${peer.rule}` : null;
  return [program, process, address, rule].filter(Boolean).join(" ");
}

function makeDeparture() {
  const cells = ["", "", "", "", "number", "number"];
  return element("tr", {}, ...cells.map((className) => element("td", { className })));
}

function fillDeparture(row, peer) {
  const texts = [
    dateTime(peer.at),
    `${peerName(peer)} ${whoElse(peer)}`.trim(),
    peer.transport,
    peer.reason,
    count(peer.messages_in),
    count(peer.messages_out),
  ];
  texts.forEach((text, index) => setText(row.cells[index], text));
}
