/**
 * One part in a process of its own, as many times as needed: what every role has. The table of roles is in `roles.ts`.
 *
 * Start: refuse what is still embedded and must be shared; health, so that whoever started it sees that it waits; then what
 * the role opens, waiting for what is not there yet. Stop: not ready any more, then everything in the reverse order. So
 * health answers from the first moment to the last.
 */
import type { Logger } from 'pino'
import type { HealthCheck } from '../api/api.ts'
import { openHealthServer } from '../api/health-server.ts'
import { SurgetankError } from '../errors.ts'
import { registry } from '../metrics.ts'
import type { Settings } from '../settings.ts'
import { VERSION } from '../version.ts'
import { choosePlaces, isEmbedded, type Places, type PortName, SHARED_BY } from './adapters.ts'
import { tellBuild } from './build-info.ts'
import { type Closers, openClosers } from './closers.ts'
import { notServing } from './health.ts'
import { openPatiently, type Patience } from './patience.ts'
import { ROLES, type RoleName } from './roles.ts'
import type { StartOptions } from './surgetank.ts'

/** What a role gets from its process. */
export interface RoleProcess {
  readonly settings: Settings
  readonly places: Places
  readonly log: Logger
  readonly closers: Pick<Closers, 'add'>
  /** Opens what may not be there yet; closed again when the process ends. */
  open<T extends { close(): unknown }>(what: string, open: () => T | Promise<T>): Promise<T>
  /** As `open`, for what is closed in another way. */
  wait<T>(what: string, open: () => T | Promise<T>): Promise<T>
  /** Looks at the processes that it will run beside, before it does what they might not take. */
  beside(look: (patience: Patience) => Promise<void>): Promise<void>
  /** What `/readyz` says from now on. */
  readyWhen(checks: () => HealthCheck[]): void
  /** Gives up the port of health, for a part that serves health itself; resolves with it. */
  releasePort(): Promise<number>
  /** The role cannot go on until an operator acts. */
  failed(error: SurgetankError): void
}

export interface RunningRole {
  /** Of health and metrics. */
  readonly httpPort: number
  /** Of MQTT; null where there is none. */
  readonly mqttPort: number | null
  stop(): Promise<void>
}

/** Resolves when the part runs. Rejects with a `stop` error that says what to do, and leaves nothing running then. */
export async function startRole(name: RoleName, options: StartOptions): Promise<RunningRole> {
  const places = choosePlaces(options.settings)
  refuseEmbedded(name, places)
  tellBuild(options.log)
  return openRole(name, places, options)
}

/** As `startRole`, whatever the places are: for a test, or a machine where a part stands in for a server. */
export async function openRole(name: RoleName, places: Places, options: StartOptions): Promise<RunningRole> {
  const { settings, log, stopping, failed } = options
  const closers = openClosers(log)
  let checks = () => notServing('waits for what it needs')
  const health = await openHealthServer({
    host: settings.SURGETANK_LISTEN,
    port: settings.SURGETANK_HTTP_PORT,
    health: async () => checks(),
    metricsText: () => registry.metrics(),
    log,
    version: VERSION,
  })
  closers.add(health.close)
  const patience = { log, stopping }
  try {
    const mqttPort = await ROLES[name].start({
      settings,
      places,
      log,
      closers,
      open: async (what, open) => {
        const opened = await openPatiently(what, patience, open)
        closers.add(() => opened.close())
        return opened
      },
      beside: look => look(patience),
      wait: (what, open) => openPatiently(what, patience, open),
      readyWhen: given => {
        checks = given
      },
      releasePort: async () => {
        await health.close()
        return health.port
      },
      failed,
    })
    return { httpPort: health.port, mqttPort, stop }
  } catch (error) {
    await closers.closeAll()
    throw error
  }

  async function stop(): Promise<void> {
    checks = () => notServing('is ending')
    await closers.closeAll()
  }
}

/** Throws `setting_missing` when the role must share a part that only this process would have. */
export function refuseEmbedded(name: RoleName, places: Places): void {
  const missing = ROLES[name].shares.filter(port => isEmbedded(places, port))
  if (missing.length === 0) return
  const [parts, settings] = [missing.map(port => WORDS[port]), missing.map(port => SHARED_BY[port])]
  const sentence = `\`surgetank ${name}\` shares ${listed(parts)} with other processes: set ${listed(settings)}.`
  throw new SurgetankError('setting_missing', sentence)
}

const WORDS: Readonly<Record<PortName, string>> = {
  log: 'the log',
  space: 'the newest state',
  database: 'ClickHouse',
}

function listed(words: readonly string[]): string {
  return words.length < 2 ? words.join() : `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`
}
