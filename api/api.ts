/**
 * The API: what dashboards, scripts and probes talk to, over HTTP. The door of this folder.
 *
 * Reads only. The newest state comes from the space, history from ClickHouse, and neither waits for the other: with
 * ClickHouse away only history answers 503. Every bound has an answer: more than a bound's worth of anything is 503 with
 * Retry-After, never a queue. Errors are RFC 9457 problems and hold nothing of the inside.
 */

import type { IncomingMessage, ServerResponse } from 'node:http'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyBaseLogger, FastifyInstance, RawServerDefault } from 'fastify'
import type { Database } from '../database/database.ts'
import type { PumpView } from '../pump/pump.ts'
import type { Space } from '../space/space.ts'
import { addDeviceRoutes } from './devices.ts'
import { addDocumentation } from './documentation.ts'
import { addGuards } from './guards.ts'
import { addHealthRoutes } from './health.ts'
import { addHistoryRoute } from './history.ts'
import { addProblems } from './problems.ts'
import { listen, newServer } from './server.ts'
import { addStreamRoute } from './stream.ts'

/** One thing that this process needs, as `/readyz` shows it. */
export interface HealthCheck {
  readonly name: string
  readonly ok: boolean
  /** Not ready without it. ClickHouse is not: devices must be served most of all while it is away. */
  readonly required: boolean
  /** For a person, and nothing secret. */
  readonly detail: string
}

export interface ApiOptions {
  /** The address to listen on; beyond loopback only where every peer is trusted [G6]. */
  readonly host: string
  /** 0 picks a free port. */
  readonly port: number
  readonly space: Space
  readonly database: Database
  readonly view: PumpView
  readonly health: () => Promise<readonly HealthCheck[]>
  /** The metrics of all processes, in Prometheus' text format. */
  readonly metricsText: () => Promise<string>
  /** A metric not received for this long is marked stale. */
  readonly staleAfterMs: number
  /**
   * When the oldest message came by the clock that is not yet durable, ms since 1970 UTC; null when there is none. Without it
   * `persisted_through` can be ahead of a message that is on its way into the log.
   */
  readonly oldestHeldAt?: () => number | null
  /** ms since 1970 UTC. */
  readonly clock: () => number
  readonly log: FastifyBaseLogger
  readonly version: string
}

export interface Api {
  readonly port: number
  /** Ends the streams and the connections. */
  close(): Promise<void>
}

export type Server = FastifyInstance<
  RawServerDefault,
  IncomingMessage,
  ServerResponse,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>

const INDEX_PATHS = ['/v1/devices', '/v1/stream', '/docs', '/openapi.json', '/healthz', '/readyz', '/metrics']

/** Listens; rejects with `port_in_use` when another process does, or `setting_invalid` for an address of another machine. */
export async function openApi(options: ApiOptions): Promise<Api> {
  const server = newServer(options.log)
  const refuseOtherMethods = addGuards(server, options.host)
  addProblems(server)
  await addDocumentation(server, options.version)
  addDeviceRoutes(server, options)
  addHistoryRoute(server, options)
  const endStreams = addStreamRoute(server, options)
  addHealthRoutes(server, options, INDEX_PATHS)
  refuseOtherMethods()
  const port = await listen(server, options.host, options.port)

  return { port, close }

  async function close(): Promise<void> {
    endStreams()
    await server.close()
  }
}
