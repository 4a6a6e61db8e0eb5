/** The broker and the ingest that it feeds: opened and drained in one way, whether they share their process or not. */
import type { Logger } from 'pino'
import { type Broker, type Held, openBroker } from '../broker/broker.ts'
import type { SurgetankError } from '../errors.ts'
import { type OpenIngest, openIngest } from '../ingest/group-commit.ts'
import type { PumpInlet } from '../pump/pump.ts'
import type { Settings } from '../settings.ts'
import type { Sessions, Space } from '../space/space.ts'

const DRAIN_MS_MAX = 3_000
const WILLS_MS_MAX = 1_000
/** A device that comes from another broker waits until this one knows what that one made durable: never for much. */
const CATCH_UP_MS = 5_000
const MIB = 1 << 20

export interface BrokerPart extends Pick<Broker, 'port'> {
  readonly ingest: OpenIngest<Held | null>
  /** No new connections, no more reading; what was read becomes durable and is acknowledged. Within seven seconds. */
  drain(): Promise<void>
}

export interface BrokerPartOptions {
  readonly settings: Settings
  readonly inlet: PumpInlet
  readonly space: Space
  readonly sessions: Sessions | null
  readonly log: Logger
  /** The log can never be written again. */
  readonly failed: (error: SurgetankError) => void
}

export async function openBrokerPart(options: BrokerPartOptions): Promise<BrokerPart> {
  const { settings, inlet, space, sessions, log, failed } = options
  const limits = { heldBytesMax: settings.SURGETANK_INFLIGHT_MB * MIB }
  let opened: OpenIngest<Held | null> | null = null
  const broker = await openBroker({
    openIngest: async events => {
      opened = await openIngest<Held | null>({ pump: inlet, space, limits, log, failed }, events)
      return opened
    },
    space,
    sessions,
    settings,
    clock: Date.now,
    log,
  })
  const ingest = opened as OpenIngest<Held | null> | null
  if (ingest === null) throw new Error('A broker opens its ingest.')
  // What cannot be read now is read with the next look, or when a device comes.
  const following =
    sessions === null ? undefined : setInterval(() => void ingest.catchUp().catch(() => {}), CATCH_UP_MS)
  return { port: broker.port, ingest, drain }

  async function drain(): Promise<void> {
    clearInterval(following)
    broker.stopReading()
    await ingest?.drain(DRAIN_MS_MAX)
    await broker.close()
    // The wills of the connections that were ended.
    await ingest?.drain(WILLS_MS_MAX)
    await ingest?.close()
  }
}
