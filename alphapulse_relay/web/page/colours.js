// One colour for one type, and for one source, wherever it shows. The colours stand in the style
// sheet (.series-0 and on): eight that the colour-blind tell apart; beyond those the dash differs.

const COLOURS = 8;
const DASHES = ["solid", "dot", "dash", "longdash"];

/** Gives each number a series: its own one, `first` having the first, or the next that is free. */
class Series {
  #first;
  #slots = new Map();
  #taken = new Set();

  constructor(first) {
    this.#first = first;
  }

  #slot(number) {
    if (!this.#slots.has(number)) this.#slots.set(number, this.#take(number));
    return this.#slots.get(number);
  }

  #take(number) {
    const round = Math.floor(this.#taken.size / COLOURS) * COLOURS;
    const own = (number - this.#first + 256) % COLOURS;
    for (let step = 0; step < COLOURS; step += 1) {
      const slot = round + ((own + step) % COLOURS);
      if (this.#taken.has(slot)) continue;
      this.#taken.add(slot);
      return slot;
    }
    throw new RangeError("a round of colours has room until it is full");
  }

  className(number) {
    return `series-${this.#slot(number) % COLOURS}`;
  }

  dash(number) {
    return DASHES[Math.floor(this.#slot(number) / COLOURS) % DASHES.length];
  }
}

export const typeSeries = new Series(21);
export const sourceSeries = new Series(20);
