// The relay's JSON, asked for again and again, and the token that it may want.

const TOKEN_KEY = "signal-relay-token";
const TIMEOUT_MS = 5000;

/** The relay answered, but with another status than 200. */
export class Refused extends Error {
  constructor(status, text) {
    super(text || `the relay answered ${status}`);
    this.status = status;
  }
}

/** Asks the relay; `onTokenNeeded(tried)` is called when it answers 401, to a token or to none. */
export class Api {
  #token = sessionStorage.getItem(TOKEN_KEY) ?? "";

  constructor(onTokenNeeded) {
    this.onTokenNeeded = onTokenNeeded;
  }

  get token() {
    return this.#token;
  }

  set token(text) {
    this.#token = text;
    sessionStorage.setItem(TOKEN_KEY, text);
  }

  /** The subprotocols that a WebSocket offers. */
  get protocols() {
    return this.#token ? ["signal-relay", `bearer.${this.#token}`] : ["signal-relay"];
  }

  /** Return the document at `path`. Throws Refused, or what fetch throws. */
  async get(path) {
    const headers = this.#token ? { Authorization: `Bearer ${this.#token}` } : {};
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    const response = await fetch(path, { headers, signal, cache: "no-store" });
    if (response.ok) return response.json();
    if (response.status === 401) this.onTokenNeeded(this.#token !== "");
    throw new Refused(response.status, (await response.text()).split("\n", 1)[0].slice(0, 200));
  }
}

/** Calls `ask` each `interval` ms, never twice at a time. */
export class Poll {
  #ask;
  #interval;
  #timer = null;
  #asking = false;
  #stopped = true;

  constructor(ask, interval) {
    this.#ask = ask;
    this.#interval = interval;
  }

  /** Ask at once, and go on from there. */
  hasten() {
    this.#stopped = false;
    clearTimeout(this.#timer);
    if (!this.#asking) this.#run();
  }

  stop() {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  async #run() {
    this.#asking = true;
    const began = performance.now();
    try {
      await this.#ask();
    } finally {
      this.#asking = false;
    }
    const wait = Math.max(0, began + this.#interval - performance.now());
    if (!this.#stopped) this.#timer = setTimeout(() => this.#run(), wait);
  }
}
