/** An ingest over a log and a space that the test drives by hand, and messages for it. */
import { expect, onTestFinished } from 'vitest'
import type { SurgetankError } from '../../errors.ts'
import { openIngest } from '../../ingest/group-commit.ts'
import type { Publish } from '../../ingest/ingest.ts'
import { LINE_FORMAT, type LineFormat, parseLines } from '../../model/message.ts'
import type { Batch } from '../../pump/pump.ts'
import { type HandPump, type HandSpace, openHandLog, openHandPump, openHandSpace } from './hand-driven.ts'

/** ms. */
export const NOW = Date.UTC(2026, 10, 20, 12)

export interface Opening {
  readonly tail?: readonly string[]
  readonly format?: LineFormat
  /** Of the log before, ms. */
  readonly newestReceivedAt?: number
  /** Of the day, ms. */
  readonly now?: number
  readonly heldBytesMax?: number
  readonly settled?: (held: readonly string[]) => void
  readonly merge?: () => void
  /** A log of the test's own instead of the hand-driven one. */
  readonly append?: (batch: Batch) => Promise<void>
}

/** An ingest that is closed when the test ends. */
export async function open(opening: Opening = {}) {
  const pump: HandPump = openHandPump(opening)
  const space: HandSpace = openHandSpace(opening.merge)
  const log = openHandLog()
  const settled: string[] = []
  const pressures: boolean[] = []
  const limits = { heldBytesMax: opening.heldBytesMax ?? 64 * 1024 * 1024 }
  const failures: string[] = []
  const failed = ({ code }: SurgetankError) => void failures.push(code)
  const ingest = await openIngest<string>(
    {
      pump: { ...pump, append: opening.append ?? pump.append },
      space,
      limits,
      log,
      failed,
      wallClock: () => opening.now ?? NOW,
    },
    {
      settled: opening.settled ?? (held => void settled.push(...held)),
      pressureChanged: pressure => void pressures.push(pressure),
    },
  )
  onTestFinished(async () => {
    const closed = ingest.close()
    pump.giveUp()
    await closed
  })
  return { ingest, pump, space, log, settled, pressures, failures }
}

export type Given = Partial<
  Pick<Publish<string>, 'device' | 'receivedAt' | 'connection' | 'packet' | 'dup' | 'marksDup' | 'mark'>
> & {
  readonly json?: string
}

export function publish(held: string, given: Given = {}): Publish<string> {
  const { device = 'd', json = `{"v":${JSON.stringify(held)}}`, receivedAt = NOW } = given
  const { connection = 1, packet = 1, dup = false, marksDup = false, mark = null } = given
  const came = { receivedAt, connection, packet, dup, marksDup, mark }
  return { device, metric: null, topic: `devices/${device}/telemetry`, payload: Buffer.from(json), held, ...came }
}

/** Of each reading, µs. */
export function receipts(batch: Batch): number[] {
  return parseLines(batch.lines.toString(), LINE_FORMAT).flatMap(({ readings }) =>
    readings.map(({ receivedAt }) => receivedAt),
  )
}

/** Each message that was received is in one of these [G7]. */
export function balance({ messages, refused, counts }: Batch): void {
  const letGo = Object.values(counts.letGo).reduce((sum, gone) => sum + gone, 0)
  expect(counts.quarantined).toBe(refused.length)
  expect(counts.received).toBe(messages + counts.repeated + counts.quarantined + letGo)
}

/** The value of the first reading of each line. */
export function values(batch: Batch): unknown[] {
  return parseLines(batch.lines.toString(), LINE_FORMAT).map(({ readings }) => readings[0]?.value)
}
