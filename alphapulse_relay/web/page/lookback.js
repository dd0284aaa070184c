// Pages of rows out of the journal, from a time or on from a position.

import { openSocket, signalsAddress } from "./feed.js";
import { gapRow, matches, MessageRow } from "./rows.js";

const PAGE_MESSAGES = 500;
/** So many messages are looked at for one page, where few of them match its words. */
const LOOKED_MAX = 20_000;
/** What may come beyond a page before its position does; a relay that sends more is left. */
const SURPLUS_MAX = 20_000;
const SILENCE_MS = 15_000;

/**
 * Reads the past for a filter as the query has it, and for words that the relay knows nothing of.
 * `onPage` gets {rows, shown, looked, first, last, end, problem}: of the `looked` messages,
 * with the timestamps `first` to `last`, those that match, at most 500, and gaps among them. `end`
 * tells if that is all until now; `problem` is null or words for a person.
 */
export class Past {
  #api;
  #filter;
  #words;
  #table;
  #onPage;
  #page = emptyPage();
  /** Messages and gaps that have come and were not looked at yet. */
  #surplus = [];
  #bookmark = null;
  #atHead = false;
  #socket = null;
  #timer = null;

  constructor(api, { filter, words, table, onPage }) {
    this.#api = api;
    this.#filter = filter;
    this.#words = words;
    this.#table = table;
    this.#onPage = onPage;
  }

  /** How many messages were looked at for the page that is being read. */
  get looked() {
    return this.#page.looked;
  }

  /** Begin at Unix seconds. */
  begin(seconds) {
    this.#read({ since: seconds.toFixed(3) });
  }

  /** Go on behind the last page. */
  next() {
    this.#page = emptyPage();
    this.#look();
    if (this.#atHead || this.#isFull) this.#deliver(null);
    else this.#read({ position: `${this.#bookmark.epoch}:${this.#bookmark.position}` });
  }

  close() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  #read(start) {
    const wishes = "positions,stop-at-head";
    const address = signalsAddress({ ...start, ...this.#filter, behind: "wait", wishes });
    const socket = openSocket(address, this.#api.protocols, (messages) => {
      if (socket === this.#socket) this.#take(messages);
    });
    this.#socket = socket;
    socket.addEventListener("close", ({ reason }) => {
      if (socket === this.#socket) this.#ended(reason);
    });
    this.#watch();
  }

  #watch() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#deliver("the relay does not answer"), SILENCE_MS);
  }

  #take(messages) {
    this.#watch();
    for (const message of messages) {
      const { control } = message;
      if (control === null || control.kind === "gap") this.#surplus.push(message);
      else if (control.kind === "sync") this.#mark(control);
      else if (control.kind === "error") this.#deliver(control.text);
      if (this.#socket === null) return;
    }
    this.#look();
    if (this.#surplus.length > SURPLUS_MAX) this.#deliver("more came than this page can hold");
  }

  #mark(sync) {
    this.#bookmark = sync;
    this.#atHead = sync.live;
    this.#look();
    if (sync.live || this.#isFull) this.#deliver(null);
  }

  get #isFull() {
    return this.#page.shown === PAGE_MESSAGES || this.#page.looked === LOOKED_MAX;
  }

  /** Move what matches to the page, until it is full. */
  #look() {
    const page = this.#page;
    let taken = 0;
    for (; taken < this.#surplus.length && !this.#isFull; taken += 1) {
      const message = this.#surplus[taken];
      if (message.control === null) this.#lookAt(new MessageRow(message, this.#table));
      else page.rows.push(gapRow(message.control));
    }
    this.#surplus.splice(0, taken);
  }

  #lookAt(row) {
    const page = this.#page;
    page.looked += 1;
    page.first ??= row.header.timestamp;
    page.last = row.header.timestamp;
    if (!matches(row, this.#words)) return;
    page.shown += 1;
    page.rows.push(row);
  }

  #ended(reason) {
    if (reason === "finished") this.#atHead = true;
    const problem = reason || "the relay closed the connection, or is gone";
    this.#deliver(this.#atHead ? null : problem);
  }

  #deliver(problem) {
    this.close();
    // Behind a problem there is no going on: what was shown may lie beyond the last position.
    const end = (this.#atHead && this.#surplus.length === 0) || problem !== null;
    this.#onPage({ ...this.#page, end, problem });
  }
}

export function emptyPage() {
  return { rows: [], shown: 0, looked: 0, first: null, last: null, end: false, problem: null };
}
