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
import { toMs } from '../model/time.ts'
import { type PumpInlet, RECEIPT_AHEAD_MS_MAX, type Repeated } from '../pump/pump.ts'
import type { Space } from '../space/space.ts'
import { type IngestLog, openCommitLoop } from './commit-loop.ts'
import { decodePayload, openWritten } from './decode.ts'
import type { Ingest, IngestEvents, Publish } from './ingest.ts'
import { MESSAGE_BYTES, type Part } from './part.ts'
import { crossesMidnight, openReceipts } from './receipts.ts'
import { REASONS, Refusal } from './refusal.ts'
import { openRepetitions, type Repetition } from './repetitions.ts'
import { openSpaceFeed } from './space-feed.ts'
import { openTally } from './tally.ts'

export interface IngestOptions {
  readonly pump: Pick<PumpInlet, 'append' | 'tail' | 'appendedByOthers' | 'newestReceivedAt'>
  readonly space: Pick<Space, 'merge' | 'claimMetric' | 'trackUnmerged'>
  readonly limits: {
    /** Bytes held: of each message MESSAGE_BYTES, and its payload or its line, whichever is longer. */
    readonly heldBytesMax: number
    /** Messages of the end of the log that are read at start, to know what is sent again. */
    readonly tailMessagesMax?: number
  }
  /** ms from any start, for durations. */
  readonly clock?: () => number
  /** ms since 1970 UTC, which receipts follow. */
  readonly wallClock?: () => number
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
/** How long what is counted waits for an append to take it along. */
const TALLY_MS = 1_000

/** Opens ingest; rejects when the end of the log cannot be read. */
export async function openIngest<Held>(options: IngestOptions, events: IngestEvents<Held>): Promise<OpenIngest<Held>> {
  const { pump, space, limits, log, failed, clock = () => performance.now(), wallClock = Date.now } = options
  const repetitions = openRepetitions(() => randomInt(2 ** 32))
  for (const { lines, format } of await pump.tail(limits.tailMessagesMax ?? TAIL_MESSAGES_MAX)) {
    repetitions.rememberLines(lines, format)
  }
  const receipts = openReceipts(pump.newestReceivedAt)
  checkReceipts()
  const tally = openTally()
  const feed = openSpaceFeed(space, log)
  const loop = openCommitLoop<Held>({ pump, tally, log, clock, committed, stalledChanged: updatePressure, failed })
  space.trackUnmerged(() => loop.oldestAt)
  const keeping = setInterval(everySecond, TALLY_MS)
  keeping.unref()
  /** Of the message at hand. */
  const written = openWritten()
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
    letGo: tally.letGo,
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
    close,
  }

  function offer(publish: Publish<Held>): void {
    const { device, payload, packet, held } = publish
    const readings = receive(publish)
    if (readings instanceof Refusal) {
      offerRefused(publish, readings.reason, readings.detail)
      return
    }
    const claimed = claim(device, readings)
    if (claimed !== 'ok') {
      offerRefused(publish, claimed, REASONS[claimed])
      return
    }
    const receivedAt = (readings[0] as Reading).receivedAt
    const encoded = encodeReadings(readings, written.values, written.sent)
    const head = lineHead(device, receivedAt, packet)
    const part = loop.partFor(toMs(receivedAt), head.length + encoded.length)
    const bytes = MESSAGE_BYTES + Math.max(payload.length, part.write(head, encoded))
    // At QoS 0, without a packet identifier, nothing is ever sent again [MQTT-3.3.1-2].
    const repeats = packet !== 0 && hasOwnTimes(readings) ? repetitions.remember(device, part, publish) : null
    if (repeats === null) part.add(held, bytes, { device, receivedAt, readings }, publish.receivedAt)
    else part.addRepetition(held, bytes, part.listsMore ? describeRepetition(publish, repeats) : null)
    hold(bytes)
  }

  /** Its readings with their receipts, or why there are none. */
  function receive({ payload, metric, receivedAt }: Publish<Held>): Reading[] | Refusal {
    const first = receipts.next(receivedAt)
    let readings = decodePayload(payload, metric, first, written)
    if (readings instanceof Refusal) return readings
    let last = lastReceipt(readings)
    if (crossesMidnight(first, last)) {
      readings = decodePayload(payload, metric, receipts.nextDay(first), written) as Reading[]
      last = lastReceipt(readings)
    }
    receipts.use(last)
    return readings
  }

  function offerRefused(publish: Parameters<Ingest<Held>['offerRefused']>[0], reason: string, detail: string): void {
    const { receivedAt, device, topic, held, payloadBytes } = publish
    // A copy: the payload is a view of a whole read of its socket, and may wait here for long.
    const payload = Buffer.from(publish.payload)
    const size = payloadBytes === undefined ? {} : { payloadBytes }
    const refused = { receivedAt, device, topic, reason, detail, payload, ...size }
    const bytes = MESSAGE_BYTES + payload.length + topic.length + detail.length
    // By the receipt that a line would get: where receipts run ahead of the clock, the two must not be of two days.
    loop.partFor(toMs(receipts.next(receivedAt)), payload.length).addRefused(held, bytes, refused)
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
    // One that only kept what was counted holds none.
    if (part.held.length > 0) metrics.commitMessages.observe(part.held.length)
    if (part.messages.length > 0) metrics.messagesAccepted.inc(part.messages.length)
    if (part.readings > 0) metrics.accepted.inc(part.readings)
    if (part.repetitions > 0) metrics.repeated.inc(part.repetitions)
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
      for (const { lines, format } of chunks) repetitions.rememberLines(lines, format)
    }
  }

  /** Said at each start: receipts go on from there, hardly moving, until the clock is past it. */
  function checkReceipts(): void {
    const aheadMs = receipts.aheadMs(wallClock())
    metrics.receiptAhead.set(aheadMs / 1_000)
    if (aheadMs <= RECEIPT_AHEAD_MS_MAX) return
    const lastReceipt = new Date(pump.newestReceivedAt).toISOString()
    log.error(
      { lastReceipt, aheadSeconds: Math.round(aheadMs / 1_000) },
      'the last receipt in the log is ahead of the clock; receipts stand still there until the clock is past it: set the clock right',
    )
  }

  function everySecond(): void {
    metrics.receiptAhead.set(receipts.aheadMs(wallClock()) / 1_000)
    loop.keepTally()
  }

  async function close(): Promise<void> {
    clearInterval(keeping)
    await loop.close()
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

function lastReceipt(readings: readonly Reading[]): number {
  return (readings[readings.length - 1] as Reading).receivedAt
}

/** The payload as a copy: it is a view of a whole read of its socket. */
function describeRepetition({ receivedAt, device, topic, payload }: Publish<unknown>, why: Repetition): Repeated {
  return { receivedAt, device, topic, why, payload: Buffer.from(payload) }
}

function countReasons(part: Part<unknown>): Map<string, number> {
  const counts = new Map<string, number>()
  for (const { reason } of part.refused) counts.set(reason, (counts.get(reason) ?? 0) + 1)
  return counts
}
