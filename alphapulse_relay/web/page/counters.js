// The counters of trouble in a status, by the keys that the samples of /api/rates have them under.

/** All of them, by a key such as "dropped.checksum". */
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
