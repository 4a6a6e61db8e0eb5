/** An HTTP server of ours, before its routes: limits, guards, problems, and where it listens. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import Fastify, { type FastifyBaseLogger, LogController } from 'fastify'
import { cannotListen } from '../errors.ts'
import { isDeviceId } from '../model/ids.ts'
import { shownJson } from '../shown-text.ts'
import type { Server } from './api.ts'
import { answerBadUrl } from './problems.ts'

const CONNECTIONS_MAX = 1_000
/** A request has no body that is read; a larger one is refused. */
const BODY_BYTES_MAX = 4_096
/** A whole request must have arrived after this. Answers may take longer: a stream has no end. */
const REQUEST_MS_MAX = 10_000
/** Longer than a device id; longer parts of a path are refused before they are looked at. */
const PATH_PART_CHARS_MAX = 512
const IS_JSON = /^application\/([\w.-]+\+)?json\b/

export function newServer(log: FastifyBaseLogger): Server {
  const server = Fastify({
    loggerInstance: log,
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: BODY_BYTES_MAX,
    requestTimeout: REQUEST_MS_MAX,
    forceCloseConnections: true,
    routerOptions: { maxParamLength: PATH_PART_CHARS_MAX },
    frameworkErrors: answerBadUrl,
    // A query parameter that does not exist is refused, not ignored: a typing error must not look like an answer.
    ajv: {
      customOptions: {
        removeAdditional: false,
        coerceTypes: true,
        useDefaults: true,
        allErrors: false,
        formats: { 'device-id': isDeviceId },
      },
    },
  }).withTypeProvider<TypeBoxTypeProvider>()
  server.server.maxConnections = CONNECTIONS_MAX
  // Documents are written by hand where exactness matters (`state-document.ts`); schemas describe and never change them.
  server.setSerializerCompiler(() => document => JSON.stringify(document))
  // Text of devices is seen in a browser, too; to whoever parses it, it is what the device sent.
  server.addHook('onSend', async (_request, reply, payload) =>
    typeof payload === 'string' && IS_JSON.test(String(reply.getHeader('content-type'))) ? shownJson(payload) : payload,
  )
  return server
}

/** Resolves with the port. Rejects with `port_in_use`, or `setting_invalid` for an address of another machine. */
export async function listen(server: Server, host: string, port: number): Promise<number> {
  try {
    await server.listen({ host, port })
  } catch (error) {
    if (!['EADDRINUSE', 'EACCES', 'EADDRNOTAVAIL'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error
    throw cannotListen('HTTP', host, port, error)
  }
  const address = server.server.address()
  return typeof address === 'object' && address !== null ? address.port : port
}
