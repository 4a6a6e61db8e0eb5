/**
 * The UTC day of a time in ms since 1970, as a running number: ClickHouse's partitions are days of receipt, so what goes
 * into one insert is cut where this changes.
 */
export function utcDay(ms: number): number {
  return Math.floor(ms / 86_400_000)
}
