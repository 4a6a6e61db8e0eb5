/**
 * The API: what dashboards, scripts and probes talk to, over HTTP on 127.0.0.1. The door of this folder.
 *
 * Reads only. The newest state comes from the space, history from ClickHouse, and neither waits for the other: with
 * ClickHouse away only history answers 503. Every bound has an answer: more than a bound's worth of anything is 503 with
 * Retry-After, never a queue. Errors are RFC 9457 problems and hold nothing of the inside.
 */

import type { IncomingMessage, ServerResponse } from 'node:http'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import Fastify, { type FastifyBaseLogger, type FastifyInstance, LogController, type RawServerDefault } from 'fastify'
import type { Database } from '../database/database.ts'
import { SurgetankError } from '../errors.ts'
import type { PumpView } from '../pump/pump.ts'
import type { Space } from '../space/space.ts'
import { addDeviceRoutes } from './devices.ts'
import { addDocumentation } from './documentation.ts'
import { addGuards } from './guards.ts'
import { addHealthRoutes } from './health.ts'
import { addHistoryRoute } from './history.ts'
import { addProblems, answerBadUrl } from './problems.ts'
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
   * `receivedAt` of the oldest message that was received and is not yet durable; null when there is none. Without it
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

const HOST = '127.0.0.1'
const CONNECTIONS_MAX = 1_000
/** A request has no body that is read; a larger one is refused. */
const BODY_BYTES_MAX = 4_096
/** A whole request must have arrived after this. Answers may take longer: a stream has no end. */
const REQUEST_MS_MAX = 10_000
/** Longer than a device id, percent-encoded. */
const PATH_PART_CHARS_MAX = 512

/** Listens; rejects with `port_in_use` when another process does. */
export async function openApi(options: ApiOptions): Promise<Api> {
  const server = newServer(options.log)
  const refuseOtherMethods = addGuards(server)
  addProblems(server)
  await addDocumentation(server, options.version)
  addDeviceRoutes(server, options)
  addHistoryRoute(server, options)
  const endStreams = addStreamRoute(server, options)
  addHealthRoutes(server, options)
  refuseOtherMethods()
  const port = await listen(server, options.port)

  return { port, close }

  async function close(): Promise<void> {
    endStreams()
    await server.close()
  }
}

function newServer(log: FastifyBaseLogger): Server {
  const server = Fastify({
    loggerInstance: log,
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: BODY_BYTES_MAX,
    requestTimeout: REQUEST_MS_MAX,
    forceCloseConnections: true,
    routerOptions: { maxParamLength: PATH_PART_CHARS_MAX },
    frameworkErrors: answerBadUrl,
    // A query parameter that does not exist is refused, not ignored: a typing error must not look like an answer.
    ajv: { customOptions: { removeAdditional: false, coerceTypes: true, useDefaults: true, allErrors: false } },
  }).withTypeProvider<TypeBoxTypeProvider>()
  server.server.maxConnections = CONNECTIONS_MAX
  // Documents are written by hand where exactness matters (`state-document.ts`); schemas describe and never change them.
  server.setSerializerCompiler(() => document => JSON.stringify(document))
  return server
}

async function listen(server: Server, port: number): Promise<number> {
  try {
    await server.listen({ host: HOST, port })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error
    throw new SurgetankError('port_in_use', `HTTP: ${HOST}:${port}. SURGETANK_HTTP_PORT names another one.`, error)
  }
  const address = server.server.address()
  return typeof address === 'object' && address !== null ? address.port : port
}
