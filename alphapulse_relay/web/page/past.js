// The past in place of the live table: which page of it is shown, and what leads on from there.

import { byId, setText } from "./dom.js";
import { emptyPage, Past } from "./lookback.js";
import { pastWords } from "./signalwords.js";

/** So long the words of the filter must stand still until the past is read for them. */
const STILL_MS = 300;

export class PastView {
  /**
   * What is shown: {from, page, loading, searched}, `from` being the Unix seconds where the page
   * begins, `searched` whether there are words to search for; null while the table is live.
   */
  shown = null;
  #api;
  #context;
  #source = null;
  #timer = null;

  /**
   * `context` has now() (the relay's time), table(), filter() (as the query has it), words(), and
   * onChange(), called when something else is to be shown.
   */
  constructor(api, context) {
    this.#api = api;
    this.#context = context;
    byId("past-next").addEventListener("click", () => this.#next());
    for (const button of this.#jumps) {
      button.addEventListener("click", () => this.open(this.#target(button)));
    }
  }

  get #jumps() {
    return byId("past").querySelectorAll("[data-jump]");
  }

  /** Show the journal from a time in Unix seconds. */
  open(from) {
    this.close();
    const { table, filter, words, onChange } = this.#context;
    this.#source = new Past(this.#api, {
      filter: filter(),
      words: words(),
      table,
      onPage: (page) => {
        Object.assign(this.shown, { page, loading: false });
        onChange();
      },
    });
    const searched = words().length > 0;
    this.shown = { from, page: emptyPage(), loading: true, searched };
    this.#source.begin(from);
    onChange();
  }

  close() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.shown = null;
  }

  /** Read again from where the page begins, once the filters stand still. */
  refresh() {
    clearTimeout(this.#timer);
    if (this.shown) this.#timer = setTimeout(() => this.open(this.shown.from), STILL_MS);
  }

  #next() {
    Object.assign(this.shown, { from: this.#timeOf(this.shown.page.last), loading: true });
    this.#source.next();
    this.#context.onChange();
  }

  /** Where a button leads to; on from the first message that there is, back from the page. */
  #target(button) {
    const step = Number(button.dataset.jump);
    const { from, page } = this.shown;
    return (step > 0 ? this.#timeOf(page.first) : from) + step;
  }

  /** Unix seconds of a message of the page; what publishers take for the time may be anything. */
  #timeOf(timestamp) {
    const seconds = Number((timestamp ?? 0n) / 1000n) / 1e6;
    const { from } = this.shown;
    return seconds > from && seconds < this.#context.now() ? seconds : from;
  }

  draw() {
    byId("past").hidden = this.shown === null;
    if (!this.shown) return;
    const { page, loading } = this.shown;
    byId("past-next").disabled = loading || page.end;
    for (const button of this.#jumps) {
      button.disabled = this.#target(button) > this.#context.now();
    }
    setText(byId("past-text"), pastWords(this.shown, this.#source.looked));
  }
}
