// The counters that only ever grow, as they stood in the last minutes: what was lately.

export const RECENT_SECONDS = 300;
const STEP_SECONDS = 5;

export class History {
  #snapshots = [];

  /** Take a status. One of a relay that started anew begins the history anew. */
  add(status) {
    const at = status.started_at + status.uptime_seconds;
    const newest = this.#snapshots.at(-1);
    if (newest && newest.startedAt !== status.started_at) this.#snapshots.length = 0;
    if (newest && at - newest.at < STEP_SECONDS && this.#snapshots.length) return;
    this.#snapshots.push({ at, startedAt: status.started_at, counts: countsOf(status) });
    while (this.#snapshots[1]?.at <= at - RECENT_SECONDS) this.#snapshots.shift();
  }

  /** How many of a counter came lately, as far as this page has seen; `total` as of now. */
  recent(key, total) {
    const [oldest] = this.#snapshots;
    return oldest ? Math.max(0, total - (oldest.counts.get(key) ?? 0)) : 0;
  }

  /** Unix seconds from which on the history reaches; null before the first status. */
  get since() {
    return this.#snapshots[0]?.at ?? null;
  }
}

/** All counters of trouble in a status, by a key such as "dropped.checksum". */
export function countsOf({ counters, journal }) {
  const counts = new Map();
  const take = (group, values) => {
    for (const [reason, number] of Object.entries(values)) counts.set(`${group}.${reason}`, number);
  };
  take("dropped", counters.dropped);
  take("missed", counters.missed);
  take("refused", counters.connections.refused);
  take("ended", counters.connections.ended);
  for (const [source, { missing, repeated }] of Object.entries(counters.sequences ?? {})) {
    take("missing", { [source]: missing });
    take("repeated", { [source]: repeated });
  }
  counts.set("malformed.tlvs", counters.malformed);
  if (journal) {
    const { failures, damages, sync_failures } = journal;
    take("journal", { failures, damages, sync_failures });
  }
  return counts;
}
