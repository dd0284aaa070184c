// Two plots of rates over the last minutes, drawn by Plotly where the relay has it.

import { matchChildren, element, setText } from "./dom.js";
import { rate } from "./formats.js";

const SHOWN = 7;
const CONFIG = { displayModeBar: false, responsive: true, doubleClick: false };
const OTHERS = -1;

/**
 * A plot with its legend. `map` is the samples' key ("types", "sources"), `name` gives a number's
 * name, `stacked` tells if the numbers add up to the whole.
 */
export class RatePlot {
  #plot;
  #legend;
  #map;
  #series;
  #name;
  #stacked;

  constructor({ plot, legend, map, series, name, stacked }) {
    this.#plot = plot;
    this.#legend = legend;
    this.#map = map;
    this.#series = series;
    this.#name = name;
    this.#stacked = stacked;
  }

  /** Whether anything of it, its legend included, can be seen. */
  get isSeen() {
    const { top, bottom } = this.#plot.parentElement.getBoundingClientRect();
    return bottom > 0 && top < innerHeight;
  }

  /** Draw the last `seconds`; `now` is what Rates.now() told, or null. */
  draw(rates, seconds, now) {
    const ranked = rates.ranked(this.#map, seconds);
    // In the order of their numbers, colours and places stay as they are while rates change.
    const numbers = ranked.slice(0, SHOWN).sort((one, other) => one - other);
    const rest = new Set(ranked.slice(SHOWN));
    if (rest.size) numbers.push(OTHERS);
    this.#drawLegend(numbers, rest, now);
    if (globalThis.Plotly && rates.newest !== null) this.#drawPlot(numbers, rest, rates, seconds);
  }

  #drawLegend(numbers, rest, now) {
    const current = (number) => {
      if (now === null) return "\u2013";
      if (number !== OTHERS) return rate(now[this.#map].get(number) ?? 0);
      return rate([...rest].reduce((sum, each) => sum + (now[this.#map].get(each) ?? 0), 0));
    };
    matchChildren(this.#legend, numbers, makeEntry, (entry, number) => {
      const [swatch, name, value] = entry.children;
      swatch.className = this.#swatchClass(number);
      setText(name, number === OTHERS ? `${rest.size} more` : this.#name(number));
      setText(value, current(number));
    });
  }

  #swatchClass(number) {
    if (number === OTHERS) return "swatch series-others";
    return `swatch ${this.#series.className(number)} ${this.#series.dash(number)}`;
  }

  #drawPlot(numbers, rest, rates, seconds) {
    const samples = rates.last(seconds);
    const times = samples.map((sample) => dateOf(sample.at));
    const entries = [...this.#legend.children];
    const traces = numbers.map((number, index) => {
      const read = number === OTHERS ? sumOf(rest, this.#map) : valueOf(number, this.#map);
      const values = samples.map((sample) => read(sample) / sample.seconds);
      return this.#trace(number, entries[index], times, values);
    });
    globalThis.Plotly.react(this.#plot, traces, this.#layout(rates.newest, seconds), CONFIG);
  }

  #trace(number, entry, x, y) {
    const color = getComputedStyle(entry.firstElementChild).color;
    const dash = number === OTHERS ? "solid" : this.#series.dash(number);
    return {
      type: "scatter",
      mode: "lines",
      name: entry.children[1].textContent,
      x,
      y,
      hovertemplate: "%{y:,.0f}",
      line: { color, dash, width: this.#stacked ? 1 : 1.75, simplify: false },
      ...(this.#stacked ? { stackgroup: "all", fillcolor: translucent(color) } : {}),
    };
  }

  #layout(newest, seconds) {
    const style = getComputedStyle(this.#plot);
    const grid = style.borderTopColor;
    const range = [dateOf(newest - seconds), dateOf(newest)];
    return {
      margin: { l: 46, r: 10, t: 8, b: 24 },
      height: this.#plot.clientHeight,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: style.fontFamily, size: 11, color: style.color },
      showlegend: false,
      hovermode: "x unified",
      hoverlabel: {
        bgcolor: style.backgroundColor,
        bordercolor: grid,
        font: { color: style.color, size: 11 },
      },
      dragmode: false,
      xaxis: {
        type: "date",
        range,
        gridcolor: grid,
        zeroline: false,
        fixedrange: true,
        nticks: 7,
        tickformat: "%H:%M",
        hoverformat: "%H:%M:%S",
        spikethickness: 1,
        spikedash: "solid",
        spikecolor: style.color,
      },
      yaxis: {
        rangemode: "tozero",
        minallowed: 0,
        gridcolor: grid,
        zerolinecolor: grid,
        fixedrange: true,
        nticks: 5,
        tickformat: "~s",
      },
    };
  }
}

function makeEntry() {
  return element("li", {}, element("span"), element("span", { className: "name" }), element("b"));
}

function valueOf(number, map) {
  return (sample) => sample[map][number] ?? 0;
}

function sumOf(numbers, map) {
  return (sample) => [...numbers].reduce((sum, number) => sum + (sample[map][number] ?? 0), 0);
}

/** Unix seconds as what Plotly shows as local time: of a Date it takes the local hour. */
function dateOf(seconds) {
  return new Date(seconds * 1000);
}

function translucent(color) {
  return color.replace(/^rgb\((.*)\)$/, "rgba($1, 0.55)");
}
