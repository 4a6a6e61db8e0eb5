/**
 * The gauges that nobody counts as it happens: how full the log is, how far the writers are behind, and when the log
 * would be full at the rate of the last minute. Read once a second from the books; what ingest holds is told also while
 * the books cannot be read. A process that has only some of the parts tells what those know.
 */
import type { Logger } from 'pino'
import type { Ingest } from '../ingest/ingest.ts'
import { metrics } from '../metrics.ts'
import { BATCH_BYTES_MAX, type PumpLag, type PumpView } from '../pump/pump.ts'
import type { SessionStore } from '../sessions/sessions.ts'
import type { Space } from '../space/space.ts'

export interface GaugeOptions {
  readonly view?: Pick<PumpView, 'lag'>
  readonly space?: Pick<Space, 'counts' | 'warm'>
  readonly ingest?: Pick<Ingest<unknown>, 'held' | 'heldBytes'>
  readonly sessionStore?: Pick<SessionStore, 'count'> | null
  readonly log: Logger
}

const EVERY_MS = 1_000
const WINDOW_MS = 60_000

export interface Sample {
  /** ms of a clock that only grows. */
  readonly at: number
  readonly bytesUnwritten: number
}

/** Starts; the returned function stops. */
export function openGauges({ view, space, ingest, sessionStore, log }: GaugeOptions): () => void {
  const samples: Sample[] = []
  /** What did not answer last time: said once. */
  const away = new Set<string>()
  let running = false
  const timer = setInterval(() => void tick(), EVERY_MS)
  timer.unref()
  return () => clearInterval(timer)

  async function tick(): Promise<void> {
    metrics.heldMessages.set(ingest?.held ?? 0)
    metrics.heldBytes.set(ingest?.heldBytes ?? 0)
    // A slow answer must not pile up behind itself.
    if (running) return
    running = true
    if (view !== undefined) await ask('the log', () => readLag(view))
    if (space !== undefined) await ask('the state', () => readSpace(space))
    if (sessionStore) await ask('the sessions of clients', () => readSessions(sessionStore))
    running = false
  }

  /** Never rejects: what one of the two does not tell, the other may. */
  async function ask(what: string, read: () => Promise<void>): Promise<void> {
    try {
      await read()
      if (away.delete(what)) log.info(`${what} can be asked again`)
    } catch (error) {
      if (!away.has(what)) log.warn({ err: error }, `${what} cannot be asked; its gauges stand still`)
      away.add(what)
    }
  }

  async function readLag(view: Pick<PumpView, 'lag'>): Promise<void> {
    const lag = await view.lag()
    setLag(lag, Date.now())
    const now = performance.now()
    samples.push({ at: now, bytesUnwritten: lag.bytesUnwritten })
    while ((samples[0]?.at ?? now) < now - WINDOW_MS) samples.shift()
    metrics.logFullSeconds.set(secondsUntilFull(samples, lag.bytesMax))
  }
}

async function readSpace(space: Pick<Space, 'counts' | 'warm'>): Promise<void> {
  metrics.rehydrating.set(space.warm ? 0 : 1)
  const { devices, online } = await space.counts()
  metrics.devices.set(devices)
  metrics.devicesOnline.set(online)
}

async function readSessions(sessionStore: Pick<SessionStore, 'count'>): Promise<void> {
  metrics.sessionsKept.set(await sessionStore.count())
}

function setLag({ readings, oldestUnwrittenAt, bytes, bytesMax }: PumpLag, now: number): void {
  metrics.logBytes.set(bytes)
  metrics.logBytesMax.set(bytesMax)
  metrics.lagReadings.set(readings)
  metrics.lagSeconds.set(Math.max(0, now - (oldestUnwrittenAt ?? now)) / 1000)
}

/**
 * At the rate between the first and the last sample; Infinity while the backlog does not grow, and 0 when the largest
 * group commit finds no room, whatever the rate: a full log does not grow.
 */
export function secondsUntilFull(samples: readonly Sample[], bytesMax: number): number {
  const [first, last] = [samples[0], samples.at(-1)]
  if (first === undefined || last === undefined) return Number.POSITIVE_INFINITY
  if (bytesMax - last.bytesUnwritten < BATCH_BYTES_MAX) return 0
  if (last.at === first.at) return Number.POSITIVE_INFINITY
  const bytesPerMs = (last.bytesUnwritten - first.bytesUnwritten) / (last.at - first.at)
  if (bytesPerMs <= 0) return Number.POSITIVE_INFINITY
  return Math.max(0, bytesMax - last.bytesUnwritten) / bytesPerMs / 1000
}
