// Counts of what became of the records and batches that came in.
export type IntakeCounts = {
  /** Stored records. */
  records: number;
  /** Records that were stored before. */
  duplicates: number;
  /** Batches with records beyond the next number of their attempt. */
  holes: number;
  /** Batches whose lease token was not the current one. */
  fenced: number;
  /** Uplink entries that hold no batch. */
  damaged: number;
  /** Records that could not be stored, and are kept in `refused_record`. */
  refused: number;
};

export const noCounts = (): IntakeCounts => ({
  records: 0,
  duplicates: 0,
  holes: 0,
  fenced: 0,
  damaged: 0,
  refused: 0,
});
