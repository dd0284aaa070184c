// "What flows": the figures and the plots.

import { sourceSeries, typeSeries } from "./colours.js";
import { byId, setText } from "./dom.js";
import { byteRate, count, NOTHING, rate, size } from "./formats.js";
import { RatePlot } from "./plots.js";

const DRAW_MS = 950;

/** A live WebSocket is served some times a second: what came in between is no lag. */
function canLag({ transport, state }) {
  return transport !== "websocket" || state !== "live";
}

export class Flow {
  #plots;
  #drawnAt = null;
  #span = 300;

  /** `names` has type(number) and source(number); `redraw` asks for a drawing. */
  constructor(names, redraw) {
    this.#plots = [
      new RatePlot({ plot: byId("plot-types"), legend: byId("legend-types"), map: "types",
        series: typeSeries, name: names.type, stacked: false }),
      new RatePlot({ plot: byId("plot-sources"), legend: byId("legend-sources"), map: "sources",
        series: sourceSeries, name: names.source, stacked: true }),
    ];
    byId("span").addEventListener("change", ({ target }) => {
      this.#span = 60 * Number(target.value);
      this.hasten();
      redraw();
    });
    const show = () => {
      byId("plots-missing").hidden = globalThis.Plotly !== undefined;
      document.body.classList.toggle("no-plots", globalThis.Plotly === undefined);
      redraw();
    };
    if (document.readyState === "complete") show();
    else addEventListener("load", show);
  }

  /** Draw the plots at the next occasion, however short ago they were drawn, and seen or not. */
  hasten() {
    this.#drawnAt = null;
  }

  /** Draw `rates` as of the relay's time `now`, and of the status, or null, what is current. */
  draw(rates, status, now) {
    const current = rates.now(now);
    this.#figures(rates, current);
    if (status !== null) this.#peers(status);
    const hastened = this.#drawnAt === null;
    if (!hastened && performance.now() - this.#drawnAt < DRAW_MS) return;
    this.#drawnAt = performance.now();
    for (const plot of this.#plots) {
      if (hastened || plot.isSeen) plot.draw(rates, this.#span, current);
    }
  }

  #figures(rates, current) {
    const show = (key, text) => {
      setText(byId(`figure-${key}`), current === null ? NOTHING : text(current[key]));
      const peak = current === null ? "" : `peak ${text(rates.peak(key))} in 10 min`;
      setText(byId(`note-${key}`), peak);
    };
    show("messages", rate);
    show("delivered", rate);
    const [bytes, unit] = current === null ? [NOTHING, "MB/s"] : byteRate(current.bytes);
    setText(byId("figure-bytes"), bytes);
    setText(byId("unit-bytes"), unit);
    const peak = byteRate(rates.peak("bytes")).join(" ");
    setText(byId("note-bytes"), current === null ? "" : `peak ${peak} in 10 min`);
  }

  #peers({ peers, log }) {
    const replaying = peers.filter((peer) => peer.replaying).length;
    const lag = Math.max(0, ...peers.filter(canLag).map((peer) => peer.bytes_behind));
    const [number, unit] = size(lag).split(" ");
    setText(byId("figure-peers"), count(peers.length));
    setText(byId("note-peers"), replaying ? `${count(replaying)} replaying` : "");
    setText(byId("figure-lag"), number);
    setText(byId("unit-lag"), unit);
    setText(byId("note-lag"), `publishers held at ${size(log.window / 2)}`);
  }
}
