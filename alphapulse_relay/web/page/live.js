// What comes live: the newest rows, how much arrives, and whether the feed stands.

import { Feed } from "./feed.js";
import { timeOfDay } from "./formats.js";
import { gapRow, MessageRow, NoteRow, RowList } from "./rows.js";

/** Most messages of each tenth of a second that the relay sends for display: the newest. */
const SAMPLE = 200;
/** A sample comes in some frames at once; behind such a pause another one begins. */
const PAUSE_MS = 40;
/** Messages to begin with, so that the table says something also when little comes. */
const BEGUN_WITH = 100;

/** `table()` returns the SignalTable of now; `onChange` is called when there is news. */
export class Live {
  list = new RowList();
  /** "connecting", "open" or "lost". */
  state = "connecting";
  /** Why it is lost, as the relay has put it; "" where it has not. */
  reason = "";
  /** Messages that came within the last second. */
  arrivalRate = 0;
  #api;
  #feed;
  #table;
  #onChange;
  #arrived = 0;
  #sampled = 0;
  #cameAt = 0;
  #fullAt = -Infinity;
  #lostAt = null;

  constructor(api, table, onChange) {
    this.#api = api;
    this.#table = table;
    this.#onChange = onChange;
    this.#feed = new Feed(
      api,
      (messages) => this.#take(messages),
      (state, reason) => this.#become(state, reason),
    );
  }

  /** Begin anew with a filter {types, sources}, texts as the query has them. */
  open(filter) {
    this.#lostAt = null;
    this.state = "connecting";
    this.list.clear();
    this.#feed.open({ sample: SAMPLE, ...filter }, { last: BEGUN_WITH });
  }

  close() {
    this.#feed.close();
    this.state = "connecting";
  }

  /** Try to reach the relay at once, if there is no connection. */
  hasten() {
    if (this.state === "lost") this.#feed.reconnect();
  }

  /** A second has passed. */
  tick() {
    this.arrivalRate = this.#arrived;
    this.#arrived = 0;
  }

  /** Whether a sample came full after that moment (of performance.now): not all was sent then. */
  sampledAfter(moment) {
    return this.#fullAt > moment;
  }

  #take(messages) {
    this.#measure(messages.filter(({ control }) => control === null).length);
    for (const message of messages) {
      const { control } = message;
      if (control === null) {
        this.list.add(new MessageRow(message, this.#table));
      } else if (control.kind === "gap") {
        this.list.add(gapRow(control));
      } else if (control.kind === "error") {
        this.list.add(new NoteRow(`The relay says: ${control.text}`));
      }
    }
    this.list.trim();
    this.#onChange();
  }

  #measure(signals) {
    const now = performance.now();
    this.#arrived += signals;
    this.#sampled = signals + (now - this.#cameAt > PAUSE_MS ? 0 : this.#sampled);
    this.#cameAt = now;
    if (this.#sampled !== SAMPLE) return;
    this.#fullAt = now;
    this.#sampled = 0;
  }

  #become(state, reason) {
    if (state === "lost" && this.state === "open") this.#lostAt = Date.now() / 1000;
    if (state === "open" && this.#lostAt !== null) this.#noteAbsence();
    // Each try between two failures would only flicker.
    if (state !== "connecting" || this.state !== "lost") this.state = state;
    if (state === "lost") this.reason = reason;
    this.#onChange();
  }

  #noteAbsence() {
    const [from, to] = [timeOfDay(this.#lostAt), timeOfDay(Date.now() / 1000)];
    this.list.add(new NoteRow(`No connection from ${from} to ${to}: look back to see that time`));
    this.#lostAt = null;
  }
}
