// The form that asks from when on to look back.

import { byId } from "./dom.js";
import { localText } from "./formats.js";

const DEFAULT_AGO_SECONDS = 600;

/** Calls `show` with Unix seconds. `now()` is the relay's time. */
export class LookBackForm {
  #form = byId("lookback");
  #button = byId("lookback-open");
  #time = byId("lookback-time");
  #now;

  constructor(now, show) {
    this.#now = now;
    this.#button.addEventListener("click", () => this.toggle());
    for (const button of this.#form.querySelectorAll("[data-ago]")) {
      button.addEventListener("click", () => {
        this.#set(this.#now() - Number(button.dataset.ago));
        show(this.#now() - Number(button.dataset.ago));
      });
    }
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      const time = new Date(this.#time.value).getTime();
      if (!Number.isNaN(time)) show(time / 1000);
    });
  }

  toggle(open = this.#form.hidden) {
    this.#form.hidden = !open;
    this.#button.setAttribute("aria-expanded", String(open));
    if (!open) return;
    if (!this.#time.value) this.#set(this.#now() - DEFAULT_AGO_SECONDS);
    this.#form.querySelector("button").focus();
  }

  get open() {
    return !this.#form.hidden;
  }

  #set(seconds) {
    this.#time.value = localText(new Date(seconds * 1000));
  }
}
