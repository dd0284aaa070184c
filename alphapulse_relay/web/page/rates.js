// What happened in each of the last seconds, as /api/rates tells it.

/** What is "lately". */
export const RECENT_SECONDS = 300;
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
    // The relay sends what came after the newest: if that is older, its clock was set back.
    if (samples.length > 0 && samples[0].at <= (this.newest ?? -Infinity)) this.clear();
    this.samples.push(...samples);
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
    const means = (map) => byNumber(totals(few, map), (sum) => sum / seconds);
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

  /** How often what went wrong within the last `seconds`, by kind; null if that is not told. */
  troubles(seconds) {
    return this.samples.at(-1)?.troubles ? totals(this.last(seconds), "troubles") : null;
  }

  /** How many messages came since then (Unix seconds), about; null if the samples begin later. */
  messagesSince(then) {
    const [oldest] = this.samples;
    if (!oldest || oldest.at - oldest.seconds > then) return null;
    const share = ({ at, seconds }) => Math.min(1, Math.max(0, at - then) / seconds);
    return Math.round(
      this.samples.reduce((sum, sample) => sum + sample.messages * share(sample), 0),
    );
  }

  /** Numbers of types or sources within the last `seconds`, the most frequent first. */
  ranked(map, seconds) {
    const sums = [...totals(this.last(seconds), map)];
    return sums.sort((one, other) => other[1] - one[1]).map(([number]) => Number(number));
  }
}

/** What each key of a map in the samples adds up to. */
function totals(samples, map) {
  const sums = new Map();
  for (const sample of samples) {
    for (const [key, number] of Object.entries(sample[map])) {
      sums.set(key, (sums.get(key) ?? 0) + number);
    }
  }
  return sums;
}

function byNumber(sums, convert) {
  return new Map([...sums].map(([key, sum]) => [Number(key), convert(sum)]));
}
