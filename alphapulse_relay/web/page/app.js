// The page: asks the relay, keeps what it tells, and has the parts drawn.

import { Api, Poll, Refused } from "./api.js";
import { Flow } from "./flow.js";
import { drawHeader, followBar } from "./header.js";
import { listenForKeys } from "./keys.js";
import { SignalTable } from "./layouts.js";
import { Link } from "./link.js";
import { LookBackForm } from "./lookbackform.js";
import { Peers } from "./peers.js";
import { Rates, RECENT_SECONDS } from "./rates.js";
import { Screen } from "./screen.js";
import { Signals } from "./signals.js";
import { setUpTheme } from "./theme.js";
import { setUpTokenForm } from "./token.js";
import { drawTrouble } from "./trouble.js";
import { findTroubles, SyncWatch } from "./troubles.js";

const RATES_MS = 1000;
const STATUS_MS = 1000;
const TICK_MS = 1000;

class Page {
  #draw = () => {
    const troubles = this.#troubles();
    drawHeader(this.#link, this.#status, troubles);
    this.#flow.draw(this.#rates, this.#status, this.#link.now);
    if (this.#status === null) return;
    drawTrouble(this.#link, this.#status, troubles);
    this.#peers.draw();
  };

  #tick = () => {
    this.#signals.tick();
    drawHeader(this.#link, this.#status, this.#troubles());
  };

  #screen = new Screen();
  #link = new Link();
  #rates = new Rates();
  #syncs = new SyncWatch();
  #table = new SignalTable();
  #learntOf = null;
  #status = null;
  #askToken = setUpTokenForm((token) => this.#useToken(token));
  #api = new Api((tried) => this.#lock(tried));
  #statusPoll = new Poll(() => this.#askStatus(), STATUS_MS);
  #ratesPoll = new Poll(() => this.#askRates(), RATES_MS);
  #begun = false;
  #peers = new Peers(() => this.#screen.request(this.#draw));
  #names = {
    type: (number) => this.#table.name(number),
    source: (number) => `source ${number}`,
  };
  #flow = new Flow(this.#names, () => this.#screen.request(this.#draw));
  #signals = new Signals(this.#api, {
    now: () => this.#link.now,
    table: () => this.#table,
    types: () => this.#numbers("types", this.#table.types.filter((type) => type < 100)),
    sources: () => this.#numbers("sources", []),
    names: this.#names,
    received: () => this.#rates.now(this.#link.now)?.messages ?? null,
    receivedSince: (then) => this.#rates.messagesSince(then),
    redraw: (draw) => this.#screen.request(draw),
  });

  start() {
    followBar();
    const toggleTheme = setUpTheme(() => {
      this.#flow.hasten();
      this.#draw();
    });
    const lookBack = new LookBackForm(() => this.#link.now, (from) => this.#signals.lookBack(from));
    listenForKeys({ signals: this.#signals, lookBack, toggleTheme });
    document.addEventListener("visibilitychange", () => document.hidden || this.#hasten());
    setInterval(() => this.#screen.request(this.#tick), TICK_MS);
    this.#statusPoll.hasten();
  }

  #hasten() {
    if (this.#link.state === "locked") return;
    this.#statusPoll.hasten();
    if (this.#begun) this.#ratesPoll.hasten();
  }

  /** Ask for all the rest, now that the relay has let the page in. */
  #begin() {
    if (this.#begun) return;
    this.#begun = true;
    this.#ratesPoll.hasten();
    this.#signals.open();
  }

  /** Ask for nothing until there is a token: the relay counts each refusal as a trouble. */
  #lock(tried) {
    this.#begun = false;
    this.#link.locked();
    this.#statusPoll.stop();
    this.#ratesPoll.stop();
    this.#signals.close();
    this.#askToken(tried);
    this.#screen.request(this.#draw);
  }

  #useToken(token) {
    this.#api.token = token;
    this.#statusPoll.hasten();
  }

  async #askStatus() {
    try {
      const status = await this.#api.get("/api/status");
      await this.#learn(status);
      this.#takeStatus(status);
      this.#begin();
    } catch (error) {
      if (!(error instanceof Refused)) this.#link.failed();
      else if (error.status !== 401) this.#link.refused(error.message);
    }
    this.#screen.request(this.#draw);
  }

  #takeStatus(status) {
    const now = status.started_at + status.uptime_seconds;
    if (this.#link.state === "gone") this.#signals.hasten();
    this.#status = status;
    this.#link.answered(now, status.started_at);
    this.#syncs.add(status, now);
    this.#peers.add(status);
  }

  /** Ask once for each start of the relay for the layouts, and for what came before. */
  async #learn(status) {
    if (this.#learntOf === status.started_at) return;
    this.#rates.clear();
    const [layouts] = await Promise.all([this.#api.get("/api/layouts"), this.#askRates()]);
    this.#table = new SignalTable(layouts);
    this.#learntOf = status.started_at;
    this.#screen.request(() => this.#signals.relearn());
  }

  async #askRates() {
    try {
      const { newest } = this.#rates;
      const query = newest === null ? "" : `?since=${newest}`;
      this.#rates.add(await this.#api.get(`/api/rates${query}`));
    } catch {
      // Whether the relay is gone is told by the status.
    }
    this.#screen.request(this.#draw);
  }

  /** Numbers that are known, and those that have been seen lately, in order. */
  #numbers(map, known) {
    const seen = this.#rates.ranked(map, RECENT_SECONDS);
    return [...new Set([...known, ...seen])].sort((one, other) => one - other);
  }

  #troubles() {
    if (this.#status === null) return [];
    return findTroubles(this.#status, this.#syncs, this.#rates.troubles(RECENT_SECONDS));
  }
}

new Page().start();
