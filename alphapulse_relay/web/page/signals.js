// "Signals": what the table shows (live, held, or the past), and what the controls do to it.

import { sourceSeries, typeSeries } from "./colours.js";
import { Details } from "./details.js";
import { byId, setText } from "./dom.js";
import { FilterMenu } from "./filters.js";
import { Live } from "./live.js";
import { PastView } from "./past.js";
import { matches } from "./rows.js";
import { emptyWords, rateWords, stateWords } from "./signalwords.js";
import { SignalTableView } from "./table.js";

/** Rows in the document while the table stands still; while it moves as many as are seen. */
const DRAWN = 200;
/** Pixels from the top from which on the table counts as scrolled. */
const SCROLLED_PX = 4;

export class Signals {
  #view = new SignalTableView();
  #details = new Details(() => this.closeDetails());
  #live;
  #past;
  #context;
  #types;
  #sources;
  #words = [];
  #selected = null;
  /**
   * {rows, reason, added, at, began} while the table stands still: what it shows, why, what had
   * come until then, and when that was, by the relay and by performance.now().
   */
  #held = null;

  /**
   * `context` has now() (the relay's time), table(), types() and sources() (known numbers), names,
   * received() (what the relay receives a second, or null), receivedSince(then) (how many messages
   * it received since then, or null) and redraw(draw).
   */
  constructor(api, context) {
    this.#context = context;
    this.#live = new Live(api, context.table, () => this.#draw());
    this.#past = new PastView(api, {
      now: context.now,
      table: context.table,
      filter: () => this.#query(),
      words: () => this.#words,
      onChange: () => this.#showPast(),
    });
    this.#types = this.#menu("type", typeSeries);
    this.#sources = this.#menu("source", sourceSeries);
    this.#listen();
  }

  #menu(what, series) {
    const shape = what === "source" ? "square" : "";
    return new FilterMenu({
      button: byId(`filter-${what}`),
      list: byId(`menu-${what}`),
      noun: `${what}s`,
      options: () => this.#context[`${what}s`]().map((number) => ({
        number,
        name: this.#context.names[what](number),
        className: `${series.className(number)} ${shape}`,
      })),
      onChange: () => this.open(),
    });
  }

  #listen() {
    const box = byId("signals-box");
    byId("pause").addEventListener("click", () => this.togglePause());
    byId("filter-text").addEventListener("input", ({ target }) => this.#filterText(target.value));
    byId("filter-clear").addEventListener("click", () => this.#clearFilters());
    box.addEventListener("scroll", () => this.#scrolled(box.scrollTop));
    box.addEventListener("click", ({ target }) => {
      const row = this.#view.rowAt(target);
      if (row?.kind === "message") this.#choose(row, true);
    });
    byId("past-live").addEventListener("click", () => this.backToLive());
  }

  /** Begin the feed, or begin it anew with the filters of now. */
  open() {
    this.#release();
    this.#live.open(this.#query());
    this.#past.refresh();
    this.#draw();
  }

  /** Ask for nothing any more, until it is opened anew. */
  close() {
    this.#live.close();
    this.#past.close();
  }

  /** Try to reach the relay at once, if there is no connection. */
  hasten() {
    this.#live.hasten();
  }

  #query() {
    return { types: this.#types.text, sources: this.#sources.text };
  }

  #filterText(text) {
    this.#words = text.toLowerCase().split(/\s+/).filter(Boolean);
    this.#past.refresh();
    this.#draw();
  }

  /** Clear the filter by text. Returns whether there was any. */
  clearText() {
    const field = byId("filter-text");
    if (field.value === "") return false;
    field.value = "";
    this.#filterText("");
    return true;
  }

  #clearFilters() {
    this.#types.clear();
    this.#sources.clear();
    this.clearText();
    this.open();
  }

  // Standing still: paused, scrolled down, or with a row selected.

  togglePause() {
    if (this.#held) this.resume();
    else this.#hold("paused");
    this.#draw();
  }

  /** Go on: nothing selected, at the top. */
  resume() {
    this.#release();
    byId("signals-box").scrollTop = 0;
  }

  #hold(reason) {
    if (this.#past.shown) return;
    this.#held ??= {
      rows: [...this.#live.list.rows],
      added: this.#live.list.added,
      at: this.#context.now(),
      began: performance.now(),
    };
    this.#held.reason = reason;
  }

  #release() {
    this.#held = null;
    this.#selected = null;
    this.#view.select(null, false);
  }

  #scrolled(top) {
    if (top > SCROLLED_PX && !this.#held) this.#hold("scrolled");
    else if (top <= SCROLLED_PX && this.#held?.reason === "scrolled") this.#release();
    else return;
    this.#draw();
  }

  // Selection and details.

  /** Select the row `step` below the selected one (above, if negative). */
  move(step) {
    this.#hold("selected");
    this.draw();
    const rows = this.#view.rows.filter((row) => row.kind === "message");
    const at = rows.findIndex((row) => row.id === this.#selected);
    const next = rows[at < 0 ? 0 : Math.min(Math.max(at + step, 0), rows.length - 1)];
    if (next) this.#choose(next, this.#details.open, true);
  }

  /** Open the details of the selected row. */
  openDetails() {
    const row = this.#view.rows.find((each) => each.id === this.#selected);
    if (row) this.#choose(row, true);
  }

  #choose(row, details, reveal = false) {
    this.#hold("selected");
    this.#selected = row.id;
    this.#view.select(row.id, reveal);
    if (details) this.#details.show(row);
    this.#draw();
  }

  closeDetails() {
    this.#details.hide();
    byId("signals").focus({ preventScroll: true });
  }

  /** Close the details; else deselect; else nothing. Returns whether there was something. */
  escape() {
    if (this.#details.open) this.closeDetails();
    else if (this.#selected !== null) this.#held ? this.resume() : this.#release();
    else return false;
    this.#draw();
    return true;
  }

  // The past.

  /** Show the journal from a time in Unix seconds. */
  lookBack(from) {
    this.#past.open(from);
  }

  #showPast() {
    this.#release();
    byId("signals-box").scrollTop = 0;
    this.#draw();
  }

  backToLive() {
    if (!this.#past.shown) return;
    this.#past.close();
    this.resume();
    this.#draw();
  }

  // Drawing.

  #draw() {
    this.#context.redraw(this.draw);
  }

  draw = () => {
    this.#view.show(this.#visible(), this.#context.now());
    this.#drawControls();
    this.#past.draw();
  };

  /** Once a second: ages, expiries, and how much arrives. */
  tick() {
    this.#live.tick();
    this.#view.tick(this.#context.now());
    setText(byId("feed-rate"), rateWords(this.#standing));
    if (this.#held || this.#past.shown) this.#draw();
  }

  /** The layouts are others than before. */
  relearn() {
    this.#view.refill(this.#context.now());
  }

  /** The rows to draw, top to bottom: live the newest on top, the past as it went. */
  #visible() {
    const words = this.#words;
    if (this.#past.shown) return this.#past.shown.page.rows;
    const rows = this.#held?.rows ?? this.#live.list.rows;
    const most = this.#held ? DRAWN : this.#view.capacity;
    const shown = [];
    for (let index = rows.length - 1; index >= 0 && shown.length < most; index -= 1) {
      if (matches(rows[index], words)) shown.push(rows[index]);
    }
    return shown;
  }

  /** All that the words about the table depend on. */
  get #standing() {
    const narrowed = this.#types.chosen.size + this.#sources.chosen.size > 0;
    const searched = this.#words.length > 0;
    const { received, receivedSince } = this.#context;
    return {
      past: this.#past.shown,
      held: this.#held,
      live: this.#live,
      received: narrowed ? null : received(),
      receivedSince: narrowed || !this.#held ? null : receivedSince(this.#held.at),
      searched,
      filtered: narrowed || searched,
    };
  }

  #drawControls() {
    const pause = byId("pause");
    setText(pause, this.#held ? "Resume" : "Pause");
    pause.setAttribute("aria-pressed", String(this.#held !== null));
    pause.disabled = this.#past.shown !== null;
    const standing = this.#standing;
    const { name, text } = stateWords(standing);
    setText(byId("feed-state"), text);
    byId("feed-state").dataset.state = name;
    byId("signals-box").dataset.mode = this.#past.shown ? "past" : this.#held ? "held" : "live";
    byId("filter-clear").hidden = !standing.filtered;
    byId("signals-empty").hidden = this.#view.rows.length > 0;
    setText(byId("signals-empty"), emptyWords(standing));
  }
}
