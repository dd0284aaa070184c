// Whether the relay answers: live, gone, or back again; and what its clock shows.

/** For so long it is told that the relay is back, for who did not look just then. */
const TOLD_SECONDS = 120;
const RETURNED = ["back", "restarted"];

export class Link {
  #offset = 0;
  state = "connecting";
  /** Unix seconds, by this machine, of the last change of state. */
  since = Date.now() / 1000;
  /** Seconds that the relay was gone before it came back; 0 if nobody noticed. */
  absence = 0;
  /** Unix seconds, by the relay, of its start; null before the first answer. */
  startedAt = null;
  /** What it said when it last refused. */
  answer = "";

  /** The relay answered; `relayNow` and `startedAt` are its times in Unix seconds. */
  answered(relayNow, startedAt) {
    const now = Date.now() / 1000;
    const restarted = this.startedAt !== null && this.startedAt !== startedAt;
    this.#offset = relayNow - now;
    this.startedAt = startedAt;
    if (restarted || this.state === "gone") {
      this.absence = this.state === "gone" ? now - this.since : 0;
      this.#become(restarted ? "restarted" : "back");
    } else if (!RETURNED.includes(this.state) || now - this.since > TOLD_SECONDS) {
      this.#become("live");
    }
  }

  /** Whether the relay answers. */
  get answers() {
    return this.state === "live" || RETURNED.includes(this.state);
  }

  /** The relay did not answer. */
  failed() {
    this.#become("gone");
  }

  /** The relay answers, but not what was asked for; `answer` is its one line. */
  refused(answer) {
    this.answer = answer;
    this.#become("refused");
  }

  /** The relay answers, but wants a token first. */
  locked() {
    this.#become("locked");
  }

  #become(state) {
    if (state === this.state) return;
    this.state = state;
    this.since = Date.now() / 1000;
  }

  /** The relay's time in Unix seconds: ages and expiries are told by it. */
  get now() {
    return Date.now() / 1000 + this.#offset;
  }
}
