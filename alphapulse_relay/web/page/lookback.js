// Pages of 500 messages out of the journal, from a time or on from a position.

import { openSocket, signalsAddress } from "./feed.js";

const PAGE_MESSAGES = 500;
/** What may come beyond a page before its position does; a relay that sends more is left. */
const SURPLUS_MAX = 20_000;
const SILENCE_MS = 15_000;

/**
 * Reads the past for one filter. `onPage` gets {messages, end, problem}: at most 500 messages, gaps
 * among them; `end` tells if that is all until now; `problem` is null or words for a person.
 */
export class Past {
  #api;
  #filter;
  #onPage;
  #surplus = [];
  #bookmark = null;
  #atHead = false;
  #socket = null;
  #timer = null;

  constructor(api, filter, onPage) {
    this.#api = api;
    this.#filter = filter;
    this.#onPage = onPage;
  }

  /** Begin at Unix seconds. */
  begin(seconds) {
    this.#read({ since: seconds.toFixed(3) });
  }

  /** Go on behind the last page. */
  next() {
    if (this.#atHead || countMessages(this.#surplus) >= PAGE_MESSAGES) this.#deliver(null);
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
    this.#timer = setTimeout(() => this.#fail("the relay does not answer"), SILENCE_MS);
  }

  #take(messages) {
    this.#watch();
    for (const message of messages) {
      const { control } = message;
      if (control === null || control.kind === "gap") this.#surplus.push(message);
      else if (control.kind === "sync") this.#mark(control);
      else if (control.kind === "error") this.#fail(control.text);
      if (this.#socket === null) return;
    }
    if (this.#surplus.length > SURPLUS_MAX) this.#fail("more came than this page can hold");
  }

  #mark(sync) {
    this.#bookmark = sync;
    this.#atHead = sync.live;
    if (sync.live || countMessages(this.#surplus) >= PAGE_MESSAGES) this.#deliver(null);
  }

  #ended(reason) {
    if (reason === "finished") this.#atHead = true;
    const problem = reason || "the relay closed the connection, or is gone";
    this.#deliver(this.#atHead ? null : problem);
  }

  #fail(problem) {
    this.#deliver(problem);
  }

  #deliver(problem) {
    this.close();
    let stop = 0;
    for (let left = PAGE_MESSAGES; stop < this.#surplus.length && left > 0; stop += 1) {
      if (this.#surplus[stop].control === null) left -= 1;
    }
    const messages = this.#surplus.splice(0, stop);
    // Behind a problem there is no going on: what was shown may lie beyond the last position.
    const end = (this.#atHead && this.#surplus.length === 0) || problem !== null;
    this.#onPage({ messages, end, problem });
  }
}

function countMessages(messages) {
  return messages.reduce((sum, { control }) => sum + (control === null ? 1 : 0), 0);
}
