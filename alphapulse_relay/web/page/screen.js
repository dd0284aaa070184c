// When the page is drawn: at most ten times a second, all parts at once, never while hidden. Where
// drawing takes long it is done less often, so that the page always has time for its user.

const INTERVAL_MS = 100;
const INTERVAL_MAX_MS = 1000;
/** The share of the time that drawing may take is one in so many. */
const SHARE = 4;

export class Screen {
  #parts = new Set();
  #scheduled = false;
  #drawnAt = 0;
  #interval = INTERVAL_MS;
  #painted = new MessageChannel();

  constructor() {
    document.addEventListener("visibilitychange", () => this.#schedule());
    this.#painted.port1.onmessage = () => this.#pace();
  }

  /** Have `draw` called when the page is drawn next, once however often it is asked for. */
  request(draw) {
    this.#parts.add(draw);
    this.#schedule();
  }

  #schedule() {
    if (this.#scheduled || document.hidden || this.#parts.size === 0) return;
    this.#scheduled = true;
    const wait = Math.max(0, this.#drawnAt + this.#interval - performance.now());
    setTimeout(() => requestAnimationFrame(() => this.#draw()), wait);
  }

  #draw() {
    this.#scheduled = false;
    this.#drawnAt = performance.now();
    const parts = [...this.#parts];
    this.#parts.clear();
    // Comes back when the browser has laid out and painted what is drawn here.
    this.#painted.port2.postMessage(null);
    for (const draw of parts) draw();
  }

  #pace() {
    const taken = performance.now() - this.#drawnAt;
    const wanted = Math.min(Math.max(SHARE * taken, INTERVAL_MS), INTERVAL_MAX_MS);
    // Part of the way only: one plot more should not make the table stumble.
    this.#interval += (wanted - this.#interval) / 4;
  }
}
