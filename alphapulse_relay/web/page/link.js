// Whether the relay answers: live, gone, or back again; and what its clock shows.

const BACK_SECONDS = 15;

export class Link {
  #offset = 0;
  state = "connecting";
  /** Unix seconds, by this machine, of the last change of state. */
  since = Date.now() / 1000;
  /** Seconds that the relay was gone before it came back. */
  absence = 0;
  /** What it said when it last refused. */
  answer = "";

  /** The relay answered; `relayNow` is its time in Unix seconds. */
  answered(relayNow) {
    this.#offset = relayNow - Date.now() / 1000;
    if (this.state === "gone") {
      this.absence = Date.now() / 1000 - this.since;
      this.#become("back");
    } else if (this.state !== "back" || Date.now() / 1000 - this.since > BACK_SECONDS) {
      this.#become("live");
    }
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
