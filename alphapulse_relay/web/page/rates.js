// What happened in each of the last seconds, as /api/rates tells it.

const KEPT = 600;
const CALM_SECONDS = 3;
/** Beyond so many seconds without a sample the last one says nothing about now. */
const STALE_SECONDS = 5;

export class Rates {
  samples = [];

  /** Unix seconds of the newest sample; null before the first. */
  get newest() {
    return this.samples.at(-1)?.at ?? null;
  }

  /** Take a document of /api/rates. */
  add({ samples }) {
    const after = this.newest ?? -Infinity;
    this.samples.push(...samples.filter((sample) => sample.at > after));
    this.samples.splice(0, this.samples.length - KEPT);
  }

  /** Forget all: the relay is another than before. */
  clear() {
    this.samples.length = 0;
  }

  /** The samples of the last `seconds`, oldest first. */
  last(seconds) {
    const from = (this.newest ?? 0) - seconds;
    return this.samples.filter((sample) => sample.at > from);
  }

  /** What a second held lately, averaged so that figures can be read; null if not known. */
  now(relayNow) {
    if (this.newest === null || relayNow - this.newest > STALE_SECONDS) return null;
    const few = this.last(CALM_SECONDS);
    const seconds = few.reduce((sum, sample) => sum + sample.seconds, 0);
    const mean = (key) => few.reduce((sum, sample) => sum + sample[key], 0) / seconds;
    const means = (map) => meanByNumber(few, map, seconds);
    return {
      messages: mean("messages"),
      bytes: mean("bytes"),
      delivered: mean("delivered"),
      types: means("types"),
      sources: means("sources"),
    };
  }

  /** The largest rate of a key within all samples. */
  peak(key) {
    return Math.max(0, ...this.samples.map((sample) => sample[key] / sample.seconds));
  }

  /** The sum of a key over the last `seconds`. */
  sum(key, seconds) {
    return this.last(seconds).reduce((sum, sample) => sum + sample[key], 0);
  }

  /** Numbers of types or sources within the last `seconds`, the most frequent first. */
  ranked(map, seconds) {
    const totals = new Map();
    for (const sample of this.last(seconds)) {
      for (const [number, messages] of Object.entries(sample[map])) {
        totals.set(Number(number), (totals.get(Number(number)) ?? 0) + messages);
      }
    }
    return [...totals].sort((one, other) => other[1] - one[1]).map(([number]) => number);
  }
}

function meanByNumber(samples, map, seconds) {
  const means = new Map();
  for (const sample of samples) {
    for (const [number, messages] of Object.entries(sample[map])) {
      const share = messages / seconds;
      means.set(Number(number), (means.get(Number(number)) ?? 0) + share);
    }
  }
  return means;
}
