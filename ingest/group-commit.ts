/**
 * Ingest with group commit: what `ingest.ts` promises, over any log and any space.
 *
 * A message is decoded, claimed and written as a line when it is offered; the line waits in the part that the next commit
 * takes. Of a message that waits, its payload is kept only when it was refused. Refused messages and repetitions ride in
 * the same parts, so that everything is settled in order of arrival [G1].
 *
 * Bound: `heldBytesMax`. At it, `pressure` tells the broker to read no more until half of it is settled; what sockets had
 * handed over by then is still taken, because what was accepted is never shed [G5].
 */
import { randomInt } from 'node:crypto'
import type { SurgetankError } from '../errors.ts'
import { metrics } from '../metrics.ts'
import { encodeReadings, lineHead } from '../model/message.ts'
import type { Reading } from '../model/reading.ts'
import type { PumpInlet } from '../pump/pump.ts'
import type { Space } from '../space/space.ts'
import { type IngestLog, openCommitLoop } from './commit-loop.ts'
import { decodePayload } from './decode.ts'
import type { Ingest, IngestEvents, Publish } from './ingest.ts'
import { MESSAGE_BYTES, type Part } from './part.ts'
import { REASONS, Refusal } from './refusal.ts'
import { openRepetitions } from './repetitions.ts'
import { openSpaceFeed } from './space-feed.ts'

export interface IngestOptions {
  readonly pump: Pick<PumpInlet, 'append' | 'tail' | 'appendedByOthers'>
  readonly space: Pick<Space, 'merge' | 'claimMetric' | 'trackUnmerged'>
  readonly limits: {
    /** Bytes held: of each message MESSAGE_BYTES, and its payload or its line, whichever is longer. */
    readonly heldBytesMax: number
    /** Messages of the end of the log that are read at start, to know what is sent again. */
    readonly tailMessagesMax?: number
  }
  /** ms from any start, for durations. */
  readonly clock?: () => number
  readonly log: IngestLog
  /** The log failed for good (fate `stop`): nothing more is appended or acknowledged, and the process must end. */
  readonly failed: (error: SurgetankError) => void
}

export interface OpenIngest<Held> extends Ingest<Held> {
  /** After `drain`: ends with the append in flight. What is not durable then is never settled; devices send it again. */
  close(): Promise<void>
}

/** `full`: the bound on held bytes is reached, and the broker reads no more. `stalled`: the log takes nothing. */
type BackpressureState = 'open' | 'full' | 'stalled'

const TAIL_MESSAGES_MAX = 200_000

/** Opens ingest; rejects when the end of the log cannot be read. */
export async function openIngest<Held>(options: IngestOptions, events: IngestEvents<Held>): Promise<OpenIngest<Held>> {
  const { pump, space, limits, log, failed, clock = () => performance.now() } = options
  const repetitions = openRepetitions(() => randomInt(2 ** 32))
  for (const chunk of await pump.tail(limits.tailMessagesMax ?? TAIL_MESSAGES_MAX)) {
    repetitions.rememberLines(chunk.lines)
  }
  const feed = openSpaceFeed(space, log)
  const loop = openCommitLoop<Held>({ pump, log, clock, committed, stalledChanged: updatePressure, failed })
  space.trackUnmerged(() => loop.oldestAt)
  /** Of the message at hand. */
  const written: (string | null)[] = []
  let heldMessages = 0
  let heldBytes = 0
  let overBound = false
  let pressure = false
  let drained: (() => void)[] = []
  let look: Promise<void> = Promise.resolve()
  let nextLook: Promise<void> | null = null
  let shown: BackpressureState | null = null
  showState('open')

  return {
    offer,
    offerRefused,
    get pressure() {
      return pressure
    },
    get stalled() {
      return loop.stalled
    },
    get oldestHeldAt() {
      return loop.oldestAt
    },
    get held() {
      return heldMessages
    },
    get heldBytes() {
      return heldBytes
    },
    catchUp,
    drain,
    close: loop.close,
  }

  function offer(publish: Publish<Held>): void {
    const { device, receivedAt, payload, held } = publish
    const readings = decodePayload(payload, publish.metric, receivedAt, written)
    if (readings instanceof Refusal) {
      offerRefused(publish, readings.reason, readings.detail)
      return
    }
    const claimed = claim(device, readings)
    if (claimed !== 'ok') {
      offerRefused(publish, claimed, REASONS[claimed])
      return
    }
    const encoded = encodeReadings(readings, written)
    const head = lineHead(device, receivedAt)
    const part = loop.partFor(receivedAt, head.length + encoded.length)
    const bytes = MESSAGE_BYTES + Math.max(payload.length, part.write(head, encoded))
    const { lines, readingsAt, readingsEnd } = part
    if (hasOwnTimes(readings) && repetitions.remember(device, lines, readingsAt, readingsEnd)) {
      part.addRepetition(held, bytes)
      hold(bytes)
      return
    }
    part.add(held, bytes, { device, receivedAt, readings })
    hold(bytes)
  }

  function offerRefused(publish: Publish<Held>, reason: string, detail: string): void {
    const { receivedAt, device, topic, held } = publish
    // A copy: the payload is a view of a whole read of its socket, and may wait here for long.
    const payload = Buffer.from(publish.payload)
    const refused = { receivedAt, device, topic, reason, detail, payload }
    const bytes = MESSAGE_BYTES + payload.length + topic.length + detail.length
    loop.partFor(receivedAt, payload.length).addRefused(held, bytes, refused)
    hold(bytes)
  }

  function claim(device: string, readings: readonly Reading[]): ReturnType<Space['claimMetric']> {
    for (const { metric } of readings) {
      const claimed = space.claimMetric(device, metric)
      if (claimed !== 'ok') return claimed
    }
    return 'ok'
  }

  function hold(bytes: number): void {
    heldMessages++
    heldBytes += bytes
    if (heldBytes >= limits.heldBytesMax && !overBound) updatePressure()
  }

  function committed(part: Part<Held>): void {
    heldMessages -= part.held.length
    heldBytes -= part.bytes
    events.settled(part.held)
    feed.merge(part.messages)
    count(part)
    updatePressure()
    if (heldMessages > 0) return
    const waiting = drained
    drained = []
    for (const resolve of waiting) resolve()
  }

  function count(part: Part<Held>): void {
    metrics.commitMessages.observe(part.held.length)
    if (part.readings > 0) metrics.accepted.inc(part.readings)
    if (part.repetitions > 0) metrics.duplicates.inc(part.repetitions)
    for (const [reason, messages] of countReasons(part)) metrics.quarantined.inc({ reason }, messages)
  }

  function updatePressure(): void {
    const bound = overBound ? limits.heldBytesMax / 2 : limits.heldBytesMax
    overBound = heldBytes >= bound
    showState(loop.stalled ? 'stalled' : overBound ? 'full' : 'open')
    const before = pressure
    // A log that takes nothing is no reason to read nothing: the bounds still have room, and a client whose PINGREQ is not
    // read behind its messages would close the connection.
    pressure = overBound
    if (pressure !== before) events.pressureChanged(pressure)
  }

  function showState(state: BackpressureState): void {
    if (state === shown) return
    if (shown !== null) metrics.backpressure.set({ state: shown }, 0)
    metrics.backpressure.set({ state }, 1)
    shown = state
  }

  /** One look at a time. A call during a look waits for the next one: its log's end is after the call. */
  function catchUp(): Promise<void> {
    nextLook ??= look
      .catch(() => {})
      .then(() => {
        look = lookOnce()
        nextLook = null
        return look
      })
    return nextLook
  }

  async function lookOnce(): Promise<void> {
    for await (const chunks of pump.appendedByOthers()) {
      for (const { lines } of chunks) repetitions.rememberLines(lines)
    }
  }

  async function drain(waitMs: number): Promise<void> {
    if (heldMessages === 0) return
    await new Promise<void>(resolve => {
      const timer = setTimeout(resolve, waitMs)
      drained.push(() => {
        clearTimeout(timer)
        resolve()
      })
    })
  }
}

function hasOwnTimes(readings: readonly Reading[]): boolean {
  for (const { sentTs } of readings) if (sentTs === null) return false
  return true
}

function countReasons(part: Part<unknown>): Map<string, number> {
  const counts = new Map<string, number>()
  for (const { reason } of part.refused) counts.set(reason, (counts.get(reason) ?? 0) + 1)
  return counts
}
